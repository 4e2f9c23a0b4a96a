"""zoo_vlm beside transformers' LLaVA on the same weights: a training step, a prompt with its image, and writing.

python benchmarks/vlm.py
"""

import argparse
import logging

import torch
from paired import report, speed_up
from rivals import same_weights
from transformers import LlavaConfig, LlavaForConditionalGeneration

import hf_zoo

IMAGE = 1999
SIZES = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4}
VISION = {**SIZES, "model_type": "clip_vision_model", "intermediate_size": 1024, "image_size": 112, "patch_size": 14}
TEXT = {**SIZES, "model_type": "llama", "vocab_size": 2000, "pad_token_id": 0}


def rival():
    """A LLaVA of 64 patches an image."""
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=VISION, text_config=TEXT, image_token_index=IMAGE, image_seq_length=64)
    )


def batch(rows, words):
    """Rows of an image and words."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(1, IMAGE, (rows, words), generator=generator)
    ids = torch.cat((torch.full((rows, 64), IMAGE), text), dim=1)
    return {"input_ids": ids, "pixel_values": torch.randn(rows, 3, 112, 112, generator=generator)}


def train_step(model):
    """Forward and backward of four rows."""
    inputs = batch(4, 64)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)

    def run():
        model.train()
        model.zero_grad()
        model(**inputs, labels=labels).loss.backward()

    return run


def prefill(model):
    """An image and 64 words into a cache."""
    inputs = batch(1, 64)

    @torch.no_grad()
    def run():
        model.eval()
        model(**inputs, use_cache=True, logits_to_keep=1)

    return run


def generation(model):
    """32 words by `generate`, greedily."""
    inputs = batch(1, 16)
    options = {"max_new_tokens": 32, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    @torch.no_grad()
    def run():
        model.eval()
        model.generate(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]), **options)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=21)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    theirs = rival()
    ours = same_weights("zoo_vlm", theirs)
    ours.train_stage("all")  # as transformers' class trains
    rows = []
    for work in (train_step, prefill, generation):
        ratio, mine, other = speed_up(work(ours), work(theirs), args.pairs)
        ms = {"ours ms": 1000 * mine, "theirs ms": 1000 * other}
        rows.append({"work": work.__name__.replace("_", " "), "speed-up": ratio, **ms})
    report("vlm", rows, "medians of paired runs beside LlavaForConditionalGeneration on the same weights")


if __name__ == "__main__":
    hf_zoo.register()
    main()
