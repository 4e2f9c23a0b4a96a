"""RWKV-4 beside transformers' RwkvForCausalLM, the same weights in the same process; RWKV-6 and 7 beside `zoo_llm` of
the same width and depth and about as many parameters, for transformers has no other RWKV.

Then how the time of a training step grows with length, and whether a late token costs more than an early one.

    python benchmarks/rwkv.py
"""

import argparse
import logging
import tempfile
import time

import torch
from paired import growth, report, speed_up
from transformers import RwkvConfig, RwkvForCausalLM

import hf_zoo
from hf_zoo.registry import ARCHITECTURES

SIZES = {"vocab_size": 1024, "hidden_size": 256, "num_hidden_layers": 4}
LLM = {"intermediate_size": 1024, "num_attention_heads": 4, "num_key_value_heads": 4}
HEADS = {"head_size": 64}


def fourth_generations():
    """Ours and upstream's, with the same weights; upstream's halving of weights in evaluation is switched off."""
    torch.manual_seed(0)
    rival = RwkvForCausalLM(RwkvConfig(**SIZES, rescale_every=0))
    with tempfile.TemporaryDirectory() as folder:
        rival.save_pretrained(folder)
        return ARCHITECTURES["zoo_rwkv4"].model_class().from_pretrained(folder), rival


def train_step(model, length):
    """Forward and backward over one row, as a function of nothing."""
    ids = torch.randint(SIZES["vocab_size"], (1, length))

    def run():
        model.train()
        model.zero_grad()
        model(ids, labels=ids).loss.backward()

    return run


def prefill(model, length):
    """A prompt into a state."""
    ids = torch.randint(SIZES["vocab_size"], (1, length))

    @torch.no_grad()
    def run():
        model.eval()
        model(ids, use_cache=True, logits_to_keep=1)

    return run


def decode(model, is_upstream, tokens=64, start=16):
    """Single tokens after a prompt that is read once."""
    ids = torch.randint(SIZES["vocab_size"], (1, start + tokens))
    name = "state" if is_upstream else "past_key_values"
    with torch.no_grad():
        past = model.eval()(ids[:, :start], use_cache=True)[name]

    @torch.no_grad()
    def run():
        model.eval()
        for t in range(start, start + tokens):
            model(ids[:, t : t + 1], use_cache=True, **{name: past})

    return run


def seconds(run):
    """Of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192])
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)

    rows = []

    def compare(model, rival, work, ours, theirs, pairs=args.pairs):
        rows.append({"model": model, "rival": rival, "work": work, "speed-up": speed_up(ours, theirs, pairs)[0]})

    ours, rival = fourth_generations()
    work = "train step, 512 tokens"
    compare("RWKV-4", "transformers", work, train_step(ours, 512), train_step(rival, 512), pairs=3)
    # upstream takes so long over more that the better of two calls has to do
    step, slow = train_step(ours, 2048), train_step(rival, 2048)
    ratio = min(seconds(slow) for _ in range(2)) / min(seconds(step) for _ in range(5))
    rows.append({"model": "RWKV-4", "rival": "transformers", "work": "train step, 2048 tokens", "speed-up": ratio})
    compare("RWKV-4", "transformers", "prefill, 512 tokens", prefill(ours, 512), prefill(rival, 512))
    compare("RWKV-4", "transformers", "decode", decode(ours, False), decode(rival, True))

    llm = hf_zoo.create_model("llm-tiny", **SIZES, **LLM)
    models = {"RWKV-4": ours}
    for name, preset in (("RWKV-6", "rwkv6-tiny"), ("RWKV-7", "rwkv7-tiny")):
        models[name] = hf_zoo.create_model(preset, **SIZES, **HEADS)
        compare(name, "zoo_llm", "train step, 2048 tokens", train_step(models[name], 2048), train_step(llm, 2048))
    for name, model in models.items():
        early, late = (decode(model, False, start=start) for start in (16, 4096))
        compare(name, "itself", "decode after 4,096 tokens, rival after 16", late, early)

    times = [speed_up(step, step, 1)[1] for step in (train_step(ours, n) for n in args.lengths)]
    note = f"RWKV-4's training step takes time as length^{growth(args.lengths, times):.2f}"
    report("rwkv", rows, note)


if __name__ == "__main__":
    hf_zoo.register()
    main()
