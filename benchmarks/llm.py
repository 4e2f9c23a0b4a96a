"""zoo_llm beside transformers' LlamaForCausalLM: the same weights, in the same process.

python benchmarks/llm.py
"""

import argparse
import logging
import tempfile

import torch
from paired import report, speed_up
from transformers import LlamaConfig, LlamaForCausalLM

import hf_zoo
from hf_zoo.registry import ARCHITECTURES

SIZES = {
    **{"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4},
    **{"num_attention_heads": 8, "num_key_value_heads": 4},
}


def models():
    """Ours and upstream's, with the same weights."""
    torch.manual_seed(0)
    rival = LlamaForCausalLM(LlamaConfig(**SIZES))
    with tempfile.TemporaryDirectory() as folder:
        rival.save_pretrained(folder)
        return ARCHITECTURES["zoo_llm"].model_class().from_pretrained(folder), rival


def train_step(model):
    """Forward and backward over 4 rows of 256 tokens."""
    ids = torch.randint(0, SIZES["vocab_size"], (4, 256))

    def run():
        model.train()
        model.zero_grad()
        model(ids, labels=ids).loss.backward()

    return run


def prefill(model):
    """A prompt of 512 tokens into a cache."""
    ids = torch.randint(0, SIZES["vocab_size"], (1, 512))

    @torch.no_grad()
    def run():
        model.eval()
        model(ids, use_cache=True, logits_to_keep=1)

    return run


def decode(model):
    """64 single tokens after a prompt of 64."""
    ids = torch.randint(0, SIZES["vocab_size"], (1, 128))

    @torch.no_grad()
    def run():
        model.eval()
        cache = model(ids[:, :64], use_cache=True).past_key_values
        for t in range(64, 128):
            model(ids[:, t : t + 1], past_key_values=cache, use_cache=True)

    return run


def generation(model):
    """`generate`, 64 tokens after a prompt of 64."""
    ids = torch.randint(0, SIZES["vocab_size"], (1, 64))
    options = {"max_new_tokens": 64, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    @torch.no_grad()
    def run():
        model.eval()
        model.generate(ids, attention_mask=torch.ones_like(ids), **options)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=41)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    ours, rival = models()
    rows = []
    for work in (train_step, prefill, decode, generation):
        ratio, _, _ = speed_up(work(ours), work(rival), args.pairs)
        rows.append({"work": work.__doc__.rstrip("."), "speed-up": ratio})
    report("llm", rows, "median of paired runs against LlamaForCausalLM")


if __name__ == "__main__":
    hf_zoo.register()
    main()
