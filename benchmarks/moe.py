"""zoo_moe beside transformers' MixtralForCausalLM with its best experts function: the same weights, in one process.

python benchmarks/moe.py
"""

import argparse
import logging

import torch
from llm import WORKS
from paired import report, speed_up
from rivals import decode, same_weights
from transformers import MixtralConfig, MixtralForCausalLM

import hf_zoo

SIZES = {
    **{"vocab_size": 2048, "hidden_size": 256, "num_hidden_layers": 4},
    **{"num_attention_heads": 8, "num_key_value_heads": 4},
}
EXPERTS = {
    "8 experts, 2 a token": {"num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 384},
    "64 experts, 6 a token": {"num_local_experts": 64, "num_experts_per_tok": 6, "intermediate_size": 128},
}
FUNCTIONS = ("eager", "grouped_mm", "batched_mm")


def models(experts):
    """Ours and upstream's, with the same weights; both add the balance loss in training."""
    torch.manual_seed(0)
    rival = MixtralForCausalLM(MixtralConfig(**SIZES, **experts, output_router_logits=True))
    return same_weights("zoo_moe", rival), rival


def choose(rival, work):
    """Give the rival the function that is fastest at this work; its name."""
    seconds = {}
    for function in FUNCTIONS:
        if function == "batched_mm" and work is not decode:
            continue  # it copies an expert for every pair of token and expert: hundreds of times slower
        rival.set_experts_implementation(function)
        run = work(rival)
        seconds[function] = speed_up(run, run, 2)[1]
    best = min(seconds, key=seconds.get)
    rival.set_experts_implementation(best)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows = []
    for name, experts in EXPERTS.items():
        ours, rival = models(experts)
        for title, work in list(WORKS.items())[:3]:
            is_training = title.startswith("forward and backward")
            for model in (ours, rival):
                model.config.output_router_logits = is_training
            best = choose(rival, work)
            ratio, _, _ = speed_up(work(ours), work(rival), args.pairs)
            row = {"experts": name, "work": title, "speed-up": ratio}
            rows.append({**row, "rival's function": best})
    report("moe", rows, "median of paired runs against MixtralForCausalLM with its fastest function")


if __name__ == "__main__":
    hf_zoo.register()
    main()
