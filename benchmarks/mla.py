"""zoo_mla beside transformers' DeepSeek classes: the same weights, in the same process.

python benchmarks/mla.py
"""

import argparse
import logging

import torch
from llm import WORKS
from moe import choose
from paired import report, speed_up
from rivals import same_weights
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM

import hf_zoo

SIZES = {
    **{"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 768, "moe_intermediate_size": 128},
    **{"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8, "kv_lora_rank": 64},
    **{"q_lora_rank": 96, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "n_routed_experts": 16},
    **{"num_experts_per_tok": 4, "n_shared_experts": 1, "first_k_dense_replace": 1},
}
RIVALS = {
    "DeepseekV2ForCausalLM": (DeepseekV2ForCausalLM, DeepseekV2Config, {}),
    "DeepseekV3ForCausalLM": (DeepseekV3ForCausalLM, DeepseekV3Config, {"n_group": 4, "topk_group": 2}),
}


def models(rival_class, config_class, options):
    """Ours and upstream's, with the same weights."""
    torch.manual_seed(0)
    rival = rival_class(config_class(**SIZES, **options))
    return same_weights("zoo_mla", rival), rival


def long_decode(model):
    """16 single tokens after a prompt of 1,024."""
    ids = torch.randint(0, SIZES["vocab_size"], (1, 1040))
    with torch.no_grad():
        cache = model.eval()(ids[:, :1024], use_cache=True).past_key_values

    @torch.no_grad()
    def run():
        for t in range(1024, 1040):
            model(ids[:, t : t + 1], past_key_values=cache, use_cache=True)
        cache.crop(-16)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows = []
    for name, rival in RIVALS.items():
        ours, rival = models(*rival)
        works = {**dict(list(WORKS.items())[:3]), "16 single tokens after a prompt of 1,024": long_decode}
        for title, work in works.items():
            best = choose(rival, work)
            ratio, _, _ = speed_up(work(ours), work(rival), args.pairs)
            row = {"rival": name, "work": title, "speed-up": ratio}
            rows.append({**row, "rival's function": best})
    report("mla", rows, "median of paired runs against transformers' class with its fastest experts function")


if __name__ == "__main__":
    hf_zoo.register()
    main()
