"""zoo_mamba beside transformers' MambaForCausalLM: the same weights, in the same process.

Against upstream's default at 512 and 1,024 tokens (it grows faster than the square), and against the fair rival,
upstream with `mambapy` installed, from 512 to 8,192; then generation, and how time and memory grow with length.

    python benchmarks/mamba.py
"""

import argparse
import logging
import time

import torch
from paired import growth, peak_of_tensors, report, speed_up
from rivals import generation, same_weights, train_step
from transformers import MambaConfig, MambaForCausalLM

import hf_zoo

SIZES = {"vocab_size": 1024, "hidden_size": 256, "num_hidden_layers": 4}


def models():
    """Ours, upstream with mambapy and upstream's default, all with the same weights."""
    torch.manual_seed(0)
    with_mambapy = MambaForCausalLM(MambaConfig(**SIZES, use_mambapy=True, use_associative_scan=False))
    default = MambaForCausalLM(MambaConfig(**SIZES))
    default.load_state_dict(with_mambapy.state_dict())
    return same_weights("zoo_mamba", default), with_mambapy, default


def seconds(run):
    """Of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--default-lengths", type=int, nargs="*", default=[512, 1024])
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)

    ours, with_mambapy, default = models()
    ids = torch.randint(0, SIZES["vocab_size"], (1, 128))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(ids).logits, default.eval()(ids).logits, atol=1e-4, rtol=1e-3)

    rows, times, peaks = [], [], []
    for length in args.lengths:
        ratio, own, _ = speed_up(train_step(ours, length), train_step(with_mambapy, length), args.pairs)
        row = {"tokens": length, "rival": "mambapy", "speed-up": ratio}
        peak, rival_peak = (peak_of_tensors(train_step(model, length)) for model in (ours, with_mambapy))
        rows.append({**row, "memory of rival / ours": rival_peak / peak})
        times.append(own)
        peaks.append(float(peak))
        if length in args.default_lengths:
            slow = seconds(train_step(default, length))
            rows.append({"tokens": length, "rival": "default", "speed-up": slow / own, "memory of rival / ours": ""})
    ratio, _, _ = speed_up(generation(ours), generation(default), args.pairs)
    rows.append({"tokens": 64, "rival": "generation", "speed-up": ratio, "memory of rival / ours": ""})
    note = f"training step; time grows as length^{growth(args.lengths, times):.2f}, "
    report("mamba", rows, note + f"peak memory as length^{growth(args.lengths, peaks):.2f}")


if __name__ == "__main__":
    hf_zoo.register()
    main()
