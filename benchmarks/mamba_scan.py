"""Selective state-space blocks beside transformers' Mamba, on the same weights in the same process.

One training step (forward and backward) of a stack of blocks, against transformers with `mambapy`. Both take turns, so
that other work on the machine slows both alike, and the ratio is the median over the pairs. Memory is the growth of
the peak resident set of a fresh process over one step at that length, since the peak of a process never falls again;
it is read from /proc, so this needs Linux.

    python benchmarks/mamba_scan.py --lengths 512 1024 2048 4096 8192 --repeats 5
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import MambaConfig, MambaModel

from hf_zoo.modeling.layers.selective_ssm import SelectiveSSM


class Stack(nn.Module):
    """Pre-norm residual blocks of SelectiveSSM; `load` takes the weights of transformers' blocks."""

    def __init__(self, hidden_size, num_layers):
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(hidden_size, eps=1e-5) for _ in range(num_layers))
        self.mixers = nn.ModuleList(SelectiveSSM(hidden_size) for _ in range(num_layers))
        self.norm = nn.RMSNorm(hidden_size, eps=1e-5)

    def load(self, model):
        """Takes over the weights of a `MambaModel`."""
        for norm, mixer, block in zip(self.norms, self.mixers, model.layers, strict=True):
            norm.load_state_dict(block.norm.state_dict())
            mixer.load_state_dict(block.mixer.state_dict())
        self.norm.load_state_dict(model.norm_f.state_dict())
        return self

    def forward(self, x):
        """x (B, T, D) -> (B, T, D)."""
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            x = x + mixer(norm(x))[0]
        return self.norm(x)


def build(args):
    """Ours and transformers' stack, as functions from (1, T, D) to (1, T, D)."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=8, hidden_size=args.hidden_size, num_hidden_layers=args.layers)
    theirs = MambaModel(MambaConfig(**sizes, use_mambapy=not args.sequential, use_cache=False)).train()
    ours = Stack(args.hidden_size, args.layers).load(theirs).train()
    return {"ours": ours, "theirs": lambda x: theirs(inputs_embeds=x).last_hidden_state}


def train_step(model, x):
    """Seconds for one forward and backward pass."""
    start = time.perf_counter()
    model(x).square().mean().backward()
    return time.perf_counter() - start


def peak_rss():
    """Peak resident bytes of this process. Not `getrusage`, whose figure a child inherits from its parent (Linux)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def peak_growth(args, name, length):
    """Bytes that the peak resident set grows by over one step, in a process of its own after a short warm-up."""
    command = [sys.executable, __file__, "--probe", name, "--lengths", str(length)]
    command += ["--hidden-size", str(args.hidden_size), "--layers", str(args.layers)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def probe(args):
    model = build(args)[args.probe]
    train_step(model, torch.randn(1, 32, args.hidden_size))
    before = peak_rss()
    train_step(model, torch.randn(1, args.lengths[0], args.hidden_size))
    print(peak_rss() - before)


def exponent(lengths, values):
    """Slope of log(value) over log(length), by least squares."""
    return statistics.linear_regression([math.log(x) for x in lengths], [math.log(y) for y in values]).slope


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--sequential", action="store_true", help="transformers' default path, without mambapy")
    parser.add_argument("--probe", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.probe:
        return probe(args)

    models = build(args)
    x = torch.randn(1, 100, args.hidden_size)
    torch.testing.assert_close(models["ours"](x), models["theirs"](x), rtol=1e-4, atol=1e-4)
    table = Table("tokens", "speed-up", "of pairs", "peak memory ratio")
    seconds, memory = {name: [] for name in models}, {name: [] for name in models}
    for length in args.lengths:
        x = torch.randn(1, length, args.hidden_size)
        pairs = [{name: train_step(model, x) for name, model in models.items()} for _ in range(args.repeats + 1)][1:]
        ratios = [pair["theirs"] / pair["ours"] for pair in pairs]
        for name in models:
            seconds[name].append(statistics.median(pair[name] for pair in pairs))
            memory[name].append(peak_growth(args, name, length))
        table.add_row(
            str(length),
            f"{statistics.median(ratios):.1f}x",
            f"{min(ratios):.1f} to {max(ratios):.1f}",
            f"{memory['theirs'][-1] / memory['ours'][-1]:.1f}x",
        )
    Console().print(table)
    if len(args.lengths) > 1:
        for name in models:
            time_slope, memory_slope = exponent(args.lengths, seconds[name]), exponent(args.lengths, memory[name])
            print(f"{name}: time grows as T^{time_slope:.2f}, peak memory as T^{memory_slope:.2f}")


if __name__ == "__main__":
    main()
