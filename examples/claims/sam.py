"""Masks of glyphs get better with every click, and a name picks its glyph, in scenes that were not trained on.

Kirillov et al. 2023, section 7.1 (figure 9: IoU by number of clicks) and section 7.5 (text). Scenes have one to four
glyphs of a font on a background; those of the test have glyphs whose names are new combinations of known words. The
rival of five clicks is one click; the rival of a name is the mask that the other glyph's name gives.
"""

import sys
from functools import cache

import numpy as np
import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.modeling.sam.interaction import clicks, iou

SIDE = 64  # of a piece of a scene, and of its masks
MANY, LENGTH = 4, 10  # glyphs of a scene, words of a name
STEPS, BATCH = 700, 8
TEXT = {"model_type": "zoo_mlm", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
OPTIONS = {
    **{"image_size": SIDE, "patch_size": 4, "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 4},
    **{"window_size": 4, "global_attn_indexes": [1, 3], "prompt_size": 64, "num_decoder_heads": 4},
    **{"decoder_intermediate_size": 128, "iou_head_size": 64, "initializer_range": 0.1},
    **{"num_clicks": 3, "num_refinements": 0, "box_probability": 0.0, "text_probability": 0.4},
}


@cache
def words():
    """Word -> id, of all names that are trained on; 0 fills up, 1 is any other word."""
    names = " ".join(name for names in load_dataset("glyph-scenes", split="train")["names"] for name in names)
    return {word: i for i, word in enumerate(sorted(set(names.split())), 2)}


@cache
def scenes(split):
    """Images, masks, words and their places, all scenes stacked; scenes of fewer glyphs are filled up."""
    rows = load_dataset("glyph-scenes", split=split)
    pixels = torch.stack([torch.from_numpy(np.array(row["image"].convert("RGB"))) for row in rows])
    masks = torch.zeros(len(rows), MANY, *pixels.shape[1:3], dtype=torch.bool)
    ids = torch.zeros(len(rows), MANY, LENGTH, dtype=torch.long)
    for i, row in enumerate(rows):
        for j, (mask, name) in enumerate(zip(row["masks"], row["names"], strict=True)):
            masks[i, j] = torch.from_numpy(np.array(mask) > 127)
            known = [words().get(word, 1) for word in name.split()][:LENGTH]
            ids[i, j, : len(known)] = torch.tensor(known)
    ids[:, :, 0].clamp_(min=1)  # a text of nothing has one word
    return pixels.permute(0, 3, 1, 2), masks, ids


def piece(scene, generator):
    """A piece of a scene around one of its glyphs: pixels, masks of the glyphs that are whole in it, and words."""
    pixels, masks, ids = scene
    there = masks.flatten(1).any(-1).nonzero()[:, 0]
    glyph = masks[there[torch.randint(len(there), (1,), generator=generator)[0]]]
    corner = []
    for axis in (0, 1):
        places = glyph.any(axis).nonzero()
        low, high = int(places.max()) + 1 - SIDE, int(places.min())
        low, high = max(min(low, high), 0), min(max(low, high), len(glyph) - SIDE)
        corner.append(int(torch.randint(min(low, high), max(low, high) + 1, (1,), generator=generator)))
    x, y = corner
    cut = masks[:, y : y + SIDE, x : x + SIDE]
    whole = cut.flatten(1).sum(-1) == masks.flatten(1).sum(-1)
    cut = cut * whole[:, None, None]
    return pixels[:, y : y + SIDE, x : x + SIDE].float() / 127.5 - 1, cut, ids


@cache
def held_out():
    """A piece of each scene of the test, stacked."""
    generator = torch.Generator().manual_seed(0)
    pieces = [piece(scene, generator) for scene in zip(*scenes("test"), strict=True) for _ in range(2)]
    return [torch.stack(parts) for parts in zip(*pieces, strict=True)]


def draw(generator):
    """A piece of a scene of the training set with two of its glyphs, or one and an empty mask."""
    every = scenes("train")
    row = int(torch.randint(len(every[0]), (1,), generator=generator))
    pixels, masks, ids = piece([part[row] for part in every], generator)
    few = masks.flatten(1).any(-1).long().argsort(descending=True, stable=True)[:2]
    return {
        "pixel_values": pixels,
        "labels": masks[few].float(),
        "input_ids": ids[few],
        "attention_mask": (ids[few] > 0).long(),
    }


@torch.no_grad()
def iou_by_clicks(model, most=5):
    """Mean IoU over the glyphs of held-out scenes after 1 to `most` clicks, the best-scored mask each time."""
    pixels, truth, _ = held_out()
    counts = truth.flatten(2).any(-1)
    embeddings, means = model.get_image_embeddings(pixels), []
    points, labels = clicks(truth, torch.zeros_like(truth), SIDE)
    masks = None
    for step in range(most):
        answer = model(
            image_embeddings=embeddings,
            input_points=points,
            input_labels=labels,
            input_masks=masks,
            multimask_output=step == 0,
        )
        best = answer.iou_scores.argmax(-1)[:, :, None, None, None].expand(-1, -1, 1, SIDE, SIDE)
        masks = answer.pred_masks.gather(2, best)[:, :, 0]
        means.append(iou(masks > 0, truth)[counts].mean().item())
        more = clicks(truth, masks > 0, SIDE)
        points, labels = torch.cat((points, more[0]), 2), torch.cat((labels, more[1]), 2)
    return means


@torch.no_grad()
def iou_by_name(model):
    """Mean IoU of a glyph with the mask of its own name, and with that of another glyph of its scene."""
    pixels, truth, ids = held_out()
    both = truth.flatten(2).any(-1)[:, :2].all(-1)
    pixels, truth, ids = pixels[both], truth[both, :2], ids[both, :2]
    answer = model(pixels, input_ids=ids, attention_mask=(ids > 0).long())
    best = answer.iou_scores.argmax(-1)[:, :, None, None, None].expand(-1, -1, 1, SIDE, SIDE)
    masks = answer.pred_masks.gather(2, best)[:, :, 0] > 0
    return iou(masks, truth).mean().item(), iou(masks.flip(1), truth).mean().item()


def main(seed=0, steps=STEPS):
    claim = Claim("sam", "Kirillov et al. 2023")
    torch.manual_seed(seed)
    text = {**TEXT, "vocab_size": len(words()) + 2, "intermediate_size": 128}
    model = hf_zoo.create_model("sam-tiny", text_config=text, **OPTIONS)
    losses = train(model, draw, steps, learning_rate=2e-3, batch_size=BATCH, seed=seed + 1)
    claim.draw("loss", "focal, dice and IoU", range(10, steps + 1, 10), losses)
    torch.manual_seed(seed)
    means = iou_by_clicks(model)
    claim.draw("IoU on held-out scenes", "clicks", range(1, len(means) + 1), means)
    claim.compare(
        "a glyph's mask is better after five clicks than after one, and beyond 0.85",
        means[-1] > means[0] + 0.02 and means[-1] > 0.85,
        one_click=means[0],
        five_clicks=means[-1],
    )
    own, other = iou_by_name(model)
    claim.compare(
        "a name, a new combination of known words, picks its own glyph of two rather than the other",
        own > other + 0.2,
        own_name=own,
        other_name=other,
    )
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
