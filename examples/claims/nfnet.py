"""A network without norms trains at large batches if the gradient of each unit is clipped by its weights.

Brock et al. 2021, https://arxiv.org/abs/2102.06171, section 4.1 and figure 2: with all runs seeing as many images, and
learning rates that grow with the batch, networks without norms stop training at some batch size; adaptive gradient
clipping carries them beyond. Here glyphs that cross a picture are named in films that were held out. The rival, the
same network and optimiser without clipping, also tries lower rates at the largest batch, the best of which counts.
"""

import sys

import numpy as np
import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.training.adaptive_clipping import AdaptiveClipping

IMAGES = 65_536  # that each run sees
BATCHES = (64, 256, 512)
RATE = 0.02 / 64  # learning rate of an image of the batch
SHARES = (0.5, 0.25)  # of that rate, which the rival tries at the largest batch
CLIP = 0.05
SGD = {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=True", "max_grad_norm": 0.0}


def frames(split, names):
    """The frames of all films of a split (N, 1, height, width), from -1 to 1 with light ink, and whose they are."""
    films = load_dataset("moving-glyphs", split)
    grey = np.stack([np.asarray(frame.convert("L"), np.float32) for film in films["frames"] for frame in film])
    labels = [names.index(name) for name, film in zip(films["name"], films["frames"], strict=True) for _ in film]
    return torch.from_numpy(1 - grey[:, None] / 127.5), torch.tensor(labels)


@torch.no_grad()
def accuracy(model, pixels, labels):
    right = [
        model(some).logits.argmax(-1) == them for some, them in zip(pixels.split(200), labels.split(200), strict=True)
    ]
    return torch.cat(right).float().mean().item()


def run(seed, batches=BATCHES, shares=SHARES):
    """Accuracy by batch size, with clipping and without, and what the rival reaches at lower rates."""
    names = sorted(set(load_dataset("moving-glyphs", "train")["name"]))
    (pixels, labels), held_out = (frames(split, names) for split in ("train", "validation+test"))

    def draw(generator):
        i = int(torch.randint(len(labels), (), generator=generator))
        return {"pixel_values": pixels[i], "labels": labels[i]}

    def score(batch, share=1.0, callbacks=()):
        torch.manual_seed(seed)
        model = hf_zoo.create_model("nfnet-tiny", num_labels=len(names), num_channels=1)
        rate = share * RATE * batch
        train(model, draw, IMAGES // batch, rate, batch, seed=seed + 1, callbacks=callbacks, **SGD)
        found = accuracy(model, *held_out)
        print(f"batch {batch}, rate {rate:.3g}, {'clipped' if callbacks else 'plain'}: {found:.3f}", flush=True)
        return found

    clipped = {batch: score(batch, callbacks=[AdaptiveClipping(CLIP)]) for batch in batches}
    plain = {batch: score(batch) for batch in batches}
    return clipped, plain, [score(batches[-1], share) for share in shares]


def main(seed=0):
    claim = Claim("nfnet", "Brock et al. 2021")
    clipped, plain, lower = run(seed)
    for label, scores in (("clipped", clipped), ("plain", plain)):
        claim.draw("held-out accuracy, by batch size", label, list(scores), list(scores.values()))
    small, large = BATCHES[0], BATCHES[-1]
    claim.compare(
        f"at a batch of {small} both train",
        min(clipped[small], plain[small]) > 0.9,
        clipped=clipped[small],
        plain=plain[small],
    )
    claim.compare(
        f"at {large} and a rate that has grown as much, four of five are right with clipping, three at most without",
        clipped[large] > 0.8 and plain[large] < 0.6,
        clipped=clipped[large],
        plain=plain[large],
    )
    claim.compare(
        f"no lower rate that was tried makes up for clipping at {large}",
        clipped[large] > max(lower) + 0.15,
        clipped=clipped[large],
        plain_at_best=max(lower),
    )
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
