"""zoo_gato beside transformers' GPT-2 of the same width, depth and heads, on tokens alone; no class has Gato's inputs.

Gato's blocks are gated and have as many weights as GPT-2's plain ones here.

    python benchmarks/gato.py
"""

import argparse
import logging

import torch
from paired import report, speed_up
from rivals import decode, prefill, train_step
from transformers import GPT2Config, GPT2LMHeadModel

import hf_zoo

WIDTH, LAYERS, HEADS, VOCABULARY = 256, 4, 8, 2050


def models():
    """Ours, and GPT-2 with the same number of weights in its blocks."""
    torch.manual_seed(0)
    ours = hf_zoo.create_model(
        "gato-tiny",
        **{"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "head_dim": None},
        **{"intermediate_size": 768, "vocab_size": VOCABULARY, "stochastic_depth": 0.0, "image_token_id": 2049},
    )
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_inner": 1152, "vocab_size": VOCABULARY}
    return ours, GPT2LMHeadModel(GPT2Config(**sizes, **dropout, activation_function="gelu"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    ours, rival = models()
    works = {
        "training step, 512 tokens": lambda model: train_step(model, 512),
        "prefill, 512 tokens": lambda model: prefill(model, 512),
        "decoding 64 tokens": decode,
    }
    rows = [
        {"work": name, "speed-up": speed_up(work(ours), work(rival), args.pairs)[0]} for name, work in works.items()
    ]
    report("gato", rows, "medians of paired runs against GPT2LMHeadModel under sdpa")


if __name__ == "__main__":
    hf_zoo.register()
    main()
