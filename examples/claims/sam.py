"""Masks of glyphs that were not trained on get better with every click.

Kirillov et al. 2023, https://arxiv.org/abs/2304.02643, section 7.1 (figure 9: IoU by number of clicks). A scene has
one to four digits, turned, scaled and coloured, before a shaded ground. The rival of five clicks is one click. Queries
and keys of the decoder's attention start alike, so that from the first step a click looks at where it is; from
independent ones it takes some hundred steps until it does.
"""

import sys
from itertools import pairwise

import numpy as np
import torch
from torch import nn

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.modeling.layers.two_way_attention import InnerAttention
from hf_zoo.modeling.sam.interaction import clicks, iou, resize_masks

SIDE, CLICKS, MASKS = 32, 5, 2  # pixels, clicks that are measured, masks of a scene in a batch
BATCH, LR = 8, 2.5e-3
STAGES = ((1300, 0), (600, 3))  # steps, clicks that follow the first: a first mask is cheap, corrections are not
# A patch has four pixels, two to the width of a stroke: whether each is on a glyph is nearly linear in them
OPTIONS = {
    **{"image_size": SIDE, "patch_size": 2, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3},
    **{"window_size": 4, "global_attn_indexes": [2], "num_attention_heads": 2, "prompt_size": 64},
    **{"num_decoder_heads": 2, "attention_downsample_rate": 1, "decoder_intermediate_size": 128, "iou_head_size": 64},
    **{"initializer_range": 0.1, "num_refinements": 0, "box_probability": 0.0},
}


def scenes(split, count=3000):
    """Images (N, 3, SIDE, SIDE), and of each the masks (glyphs, SIDE, SIDE) and the names."""
    rows = load_dataset("glyph-scenes", split, size=SIDE, scenes=count, alphabet="digits")
    pixels = np.stack([np.asarray(image) for image in rows["image"]]).transpose(0, 3, 1, 2) / 127.5 - 1
    masks = [torch.stack([torch.from_numpy(np.asarray(mask) > 0) for mask in row["masks"]]) for row in rows]
    return torch.from_numpy(pixels).float(), masks, rows["names"]


def turned(pixels, masks, generator):
    """A scene mirrored at random, its colours in another order: another scene, as true as the first."""
    for axis in (-1, -2):
        if torch.rand((), generator=generator) < 0.5:
            pixels, masks = pixels.flip(axis), masks.flip(axis)
    return pixels[torch.randperm(3, generator=generator)], masks


def look_where_clicks_are(model):
    """Start queries and keys of tokens and patches alike."""
    for module in model.mask_decoder.modules():
        if isinstance(module, InnerAttention):
            nn.init.orthogonal_(module.q_proj.weight)
            module.k_proj.weight.data.copy_(module.q_proj.weight)


@torch.no_grad()
def iou_by_clicks(model, pixels, masks):
    """Mean IoU over all glyphs after 1 to CLICKS clicks, each time of the mask that the model itself rates highest.

    Masks have twice the pixels of a scene along a side; so has the truth, which that leaves as it is.
    """
    found, size = [[] for _ in range(CLICKS)], model.config.mask_size
    for image, truth in zip(pixels, masks, strict=True):
        truth = resize_masks(truth[None], size)
        embeddings = model.get_image_embeddings(image[None])
        points, labels = clicks(truth, torch.zeros_like(truth), SIDE)
        answer = None
        for step in range(CLICKS):
            prompt = {"input_points": points, "input_labels": labels, "input_masks": answer}
            said = model(image_embeddings=embeddings, multimask_output=step == 0, **prompt)
            best = said.iou_scores.argmax(-1)[:, :, None, None, None].expand(-1, -1, 1, size, size)
            answer = said.pred_masks.gather(2, best)[:, :, 0]
            found[step] += iou(answer > 0, truth).flatten().tolist()
            more = clicks(truth, answer > 0, SIDE)
            points, labels = torch.cat((points, more[0]), 2), torch.cat((labels, more[1]), 2)
    return [float(np.mean(values)) for values in found]


def main(seed: int = 0):
    claim = Claim("sam", "Kirillov et al. 2023")
    (pixels, masks, _), (*held_out, _) = scenes("train"), scenes("test")

    def draw(generator):
        row = int(torch.randint(len(pixels), (), generator=generator))
        order = torch.randperm(len(masks[row]), generator=generator).repeat(MASKS)[:MASKS]
        image, truth = turned(pixels[row], masks[row][order], generator)
        return {"pixel_values": image, "labels": truth.float()}

    torch.manual_seed(seed)
    model = hf_zoo.create_model("sam-tiny", **OPTIONS)
    look_where_clicks_are(model)
    losses = []
    for stage, (steps, model.config.num_clicks) in enumerate(STAGES, start=1):
        is_last = stage == len(STAGES)
        schedule = {"warmup_steps": 0} if is_last else {"lr_scheduler_type": "constant_with_warmup"}
        losses += train(model, draw, steps, LR, BATCH, stage + len(STAGES) * seed, **schedule)
    claim.draw("loss", "focal, dice and IoU", range(10, 10 * len(losses) + 1, 10), losses)
    torch.manual_seed(seed)
    means = iou_by_clicks(model, *held_out)
    claim.draw("mean IoU by clicks", "held-out scenes", range(1, CLICKS + 1), means)
    claim.compare(
        "on held-out scenes the mean IoU rises with every click from one to five",
        all(few < more for few, more in pairwise(means)),
        **{f"{i} click{'s' if i > 1 else ''}": mean for i, mean in enumerate(means, start=1)},
    )
    claim.compare("after five clicks it is above 0.85", means[-1] > 0.85, five_clicks=means[-1])
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
