"""The decoders that transformers has no counterpart of, beside zoo_llm of the same width and depth.

A training step at two lengths, and what the cache of a row holds after 2,048 tokens.

    python benchmarks/families.py
"""

import argparse
import logging

import torch
from paired import report, speed_up
from rivals import decode, train_step

import hf_zoo

SIZES = {"vocab_size": 1024, "hidden_size": 256, "num_hidden_layers": 4, "pad_token_id": None}
HEADS = {"num_attention_heads": 8, "intermediate_size": 704}
FAMILIES = {
    "zoo_s4": ("s4-tiny", {"state_size": 64}),
    "zoo_s4, diagonal": ("s4-tiny", {"state_size": 64, "state_space": "diagonal"}),
    "zoo_latent": ("latent-tiny", {**HEADS, "latent_dim": 32}),
    "zoo_hybrid, one layer of attention in four": (
        "hybrid-tiny",
        {
            **{**HEADS, "num_key_value_heads": 8, "layer_types": ["mamba2", "mamba2", "full_attention", "mamba2"]},
            **{"mlp_types": ["mlp"] * 4, "options": {"mamba2": {"state_size": 64}}},
        },
    ),
}


@torch.no_grad()
def held(model, tokens):
    """Numbers in the cache of a row."""
    cache = model.eval()(torch.zeros(1, tokens, dtype=torch.long), use_cache=True).past_key_values
    found = []
    for layer in map(vars, cache.layers):
        found += [layer.get("keys"), layer.get("values")]
        found += [*layer.get("conv_states", {}).values(), *layer.get("recurrent_states", {}).values()]
    return sum(z.numel() for z in found if z is not None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)

    torch.manual_seed(0)
    dense = hf_zoo.create_model("llm-tiny", **SIZES, **HEADS, num_key_value_heads=8, max_position_embeddings=4096)
    rows = []
    for name, (preset, options) in FAMILIES.items():
        model = hf_zoo.create_model(preset, **SIZES, **options)
        row = {"model": name}
        for tokens in (512, 2048):
            ratio, _, _ = speed_up(train_step(model, tokens), train_step(dense, tokens), args.pairs)
            row[f"training step, {tokens} tokens"] = ratio
        row["single tokens"] = speed_up(decode(model), decode(dense), args.pairs)[0]
        rows.append({**row, "cache of zoo_llm / ours": held(dense, 2048) / held(model, 2048)})
    report("families", rows, "speed-up against zoo_llm with sdpa, medians of paired runs")


if __name__ == "__main__":
    hf_zoo.register()
    main()
