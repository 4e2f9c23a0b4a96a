"""At high learning rates attention collapses onto single patches, unless queries and keys are normalised.

Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion Parameters", https://arxiv.org/abs/2302.05442, section
2.1 and figure 1: training diverged as attention logits grew until the weights had almost no entropy; norms of queries
and keys prevent it. What size does there a learning rate does here. Glyphs that cross a picture are named in films
that were held out; the rival is the same transformer with the same optimiser, without these norms.
"""

import math
import sys

import torch
from nfnet import accuracy, frames

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset

STEPS, BATCH = 600, 32
USUAL, HIGH = 3e-3, 2e-2  # learning rates
RIVALS = {"normalised": True, "plain": False}
SIZES = {"patch_size": 4, "num_channels": 1}
PATCHES = (32 // SIZES["patch_size"]) ** 2


@torch.no_grad()
def entropy(model, pixels):
    """Of the attention of the block that has least, as a share of that of attention to all alike."""
    model.set_attn_implementation("eager")
    attentions = model(pixels, output_attentions=True).attentions
    return min(torch.special.entr(weights).sum(-1).mean().item() for weights in attentions) / math.log(PATCHES + 1)


def run(seed, claim=None):
    """Accuracy and entropy by learning rate and rival."""
    names = sorted(set(load_dataset("moving-glyphs", "train")["name"]))
    (pixels, labels), held_out = (frames(split, names) for split in ("train", "validation+test"))

    def draw(generator):
        i = int(torch.randint(len(labels), (), generator=generator))
        return {"pixel_values": pixels[i], "labels": labels[i]}

    found, entropies = {}, {}
    for rate in (USUAL, HIGH):
        for name, is_normalised in RIVALS.items():
            torch.manual_seed(seed)
            options = {"qk_norm": is_normalised, "num_labels": len(names), **SIZES}
            model = hf_zoo.create_model("vit-tiny", "image-classification", **options)
            losses = train(model, draw, STEPS, rate, BATCH, seed=seed + 1)
            found[rate, name] = accuracy(model, *held_out)
            entropies[rate, name] = entropy(model, held_out[0][:200])
            print(f"{name}, rate {rate}: {found[rate, name]:.3f}, {entropies[rate, name]:.3f}", flush=True)
            if claim is not None:
                claim.draw(f"loss at a rate of {rate}", name, range(10, STEPS + 1, 10), losses)
    return found, entropies


def main(seed=0):
    claim = Claim("vit", "Dehghani et al. 2023")
    found, entropies = run(seed, claim)
    usual, high = ({name: found[rate, name] for name in RIVALS} for rate in (USUAL, HIGH))
    claim.compare(
        f"at a rate of {USUAL} a transformer names held-out glyphs with norms of queries and keys and without",
        min(usual.values()) > 0.75,
        **usual,
    )
    claim.compare(
        f"at {HIGH} it does so with norms, and without them for thirty points fewer at least",
        high["normalised"] > 0.75 and high["plain"] < high["normalised"] - 0.3,
        **high,
    )
    claim.compare(
        "and without norms the attention of a block has a tenth of the entropy or less, and with them a third or more",
        entropies[HIGH, "plain"] < 0.1 and entropies[HIGH, "normalised"] > 1 / 3,
        **{name: entropies[HIGH, name] for name in RIVALS},
    )
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
