"""zoo_mamba2 beside transformers' Mamba2ForCausalLM: the same weights, in the same process.

Training steps over doublings of the length against upstream's chunked form in plain torch, then a prompt, single
tokens and generation; how time and memory grow with length; and whether a token costs more late than early.

    python benchmarks/mamba2.py
"""

import argparse
import logging

import torch
from paired import growth, peak_of_tensors, report, speed_up
from rivals import decode, generation, prefill, same_weights, train_step
from transformers import Mamba2Config, Mamba2ForCausalLM

import hf_zoo

SIZES = {
    **{"vocab_size": 1024, "hidden_size": 256, "num_hidden_layers": 4, "num_heads": 8, "head_dim": 64},
    **{"n_groups": 1, "tie_word_embeddings": True},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)

    torch.manual_seed(0)
    rival = Mamba2ForCausalLM(Mamba2Config(**SIZES))
    ours = same_weights("zoo_mamba2", rival)
    ids = torch.randint(0, SIZES["vocab_size"], (1, 128))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(ids).logits, rival.eval()(ids).logits, atol=1e-4, rtol=1e-3)

    rows, times, peaks = [], [], []
    for length in args.lengths:
        ratio, own, _ = speed_up(train_step(ours, length), train_step(rival, length), args.pairs)
        peak, rival_peak = (peak_of_tensors(train_step(model, length)) for model in (ours, rival))
        memory = rival_peak / peak
        rows.append({"work": "training step", "tokens": length, "speed-up": ratio, "memory of rival / ours": memory})
        times.append(own)
        peaks.append(float(peak))
    works = {
        "prompt": (2048, lambda model: prefill(model, 2048)),
        "single tokens": (64, decode),
        "generation": (64, generation),
    }
    for name, (tokens, work) in works.items():
        ratio, _, _ = speed_up(work(ours), work(rival), args.pairs)
        rows.append({"work": name, "tokens": tokens, "speed-up": ratio, "memory of rival / ours": ""})
    note = f"training step: time grows as length^{growth(args.lengths, times):.2f}, "
    report("mamba2", rows, note + f"peak memory as length^{growth(args.lengths, peaks):.2f}")


if __name__ == "__main__":
    hf_zoo.register()
    main()
