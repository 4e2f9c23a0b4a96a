"""zoo_llm beside transformers' LlamaForCausalLM: the same weights, in the same process.

python benchmarks/llm.py
"""

import argparse
import logging

import torch
from paired import report, speed_up
from rivals import decode, generation, prefill, same_weights, train_step
from transformers import LlamaConfig, LlamaForCausalLM

import hf_zoo

SIZES = {
    **{"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4},
    **{"num_attention_heads": 8, "num_key_value_heads": 4},
}
WORKS = {
    "forward and backward over 4 rows of 256 tokens": lambda model: train_step(model, rows=4, tokens=256),
    "a prompt of 512 tokens into a cache": lambda model: prefill(model, tokens=512),
    "64 single tokens after a prompt of 64": decode,
    "`generate`, 64 tokens after a prompt of 64": generation,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=41)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    rival = LlamaForCausalLM(LlamaConfig(**SIZES))
    ours = same_weights("zoo_llm", rival)
    rows = []
    for name, work in WORKS.items():
        ratio, _, _ = speed_up(work(ours), work(rival), args.pairs)
        rows.append({"work": name, "speed-up": ratio})
    report("llm", rows, "median of paired runs against LlamaForCausalLM")


if __name__ == "__main__":
    hf_zoo.register()
    main()
