"""Masks of glyphs that were not trained on get better with every click.

Kirillov et al. 2023, https://arxiv.org/abs/2304.02643, section 7.1 (figure 9: IoU by number of clicks). A scene has
one to four digits, turned, scaled and coloured, before a shaded ground. The rival of five clicks is one click. Queries
and keys of the decoder's attention start alike, so that from the first step a click looks at where it is; from
independent ones it takes some hundred steps until it does.
"""

import sys

import numpy as np
import torch
from torch import nn

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.modeling.layers.two_way_attention import InnerAttention
from hf_zoo.modeling.sam.interaction import clicks, iou

SIDE, CLICKS, MASKS = 32, 5, 2  # pixels, clicks that are measured, masks of a scene in a batch
STEPS, BATCH, LR = 1700, 16, 2.5e-3
OPTIONS = {
    **{"image_size": SIDE, "patch_size": 4, "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3},
    **{"window_size": 4, "global_attn_indexes": [0, 1, 2], "num_attention_heads": 4, "prompt_size": 128},
    **{"num_decoder_heads": 4, "attention_downsample_rate": 1, "decoder_intermediate_size": 128, "iou_head_size": 64},
    **{"initializer_range": 0.1, "num_clicks": 3, "num_refinements": 0, "box_probability": 0.0},
}


def scenes(split):
    """Images (N, 3, SIDE, SIDE), and of each the masks (glyphs, SIDE, SIDE)."""
    rows = load_dataset("glyph-scenes", split, size=SIDE, scenes=3000, alphabet="digits")
    pixels = np.stack([np.asarray(image) for image in rows["image"]]).transpose(0, 3, 1, 2) / 127.5 - 1
    masks = [torch.stack([torch.from_numpy(np.asarray(mask) > 0) for mask in row["masks"]]) for row in rows]
    return torch.from_numpy(pixels).float(), masks


def look_where_clicks_are(model):
    """Start queries and keys of tokens and patches alike."""
    for module in model.mask_decoder.modules():
        if isinstance(module, InnerAttention):
            nn.init.orthogonal_(module.q_proj.weight)
            module.k_proj.weight.data.copy_(module.q_proj.weight)


@torch.no_grad()
def iou_by_clicks(model, pixels, masks):
    """Mean IoU over all glyphs after 1 to CLICKS clicks, each time of the mask that the model itself rates highest."""
    found = [[] for _ in range(CLICKS)]
    for image, truth in zip(pixels, masks, strict=True):
        truth = truth[None]
        embeddings = model.get_image_embeddings(image[None])
        points, labels = clicks(truth, torch.zeros_like(truth), SIDE)
        answer = None
        for step in range(CLICKS):
            prompt = {"input_points": points, "input_labels": labels, "input_masks": answer}
            said = model(image_embeddings=embeddings, multimask_output=step == 0, **prompt)
            best = said.iou_scores.argmax(-1)[:, :, None, None, None].expand(-1, -1, 1, SIDE, SIDE)
            answer = said.pred_masks.gather(2, best)[:, :, 0]
            found[step] += iou(answer > 0, truth).flatten().tolist()
            more = clicks(truth, answer > 0, SIDE)
            points, labels = torch.cat((points, more[0]), 2), torch.cat((labels, more[1]), 2)
    return [float(np.mean(values)) for values in found]


def main(seed: int = 0):
    claim = Claim("sam", "Kirillov et al. 2023")
    (pixels, masks), held_out = scenes("train"), scenes("test")

    def draw(generator):
        row = int(torch.randint(len(pixels), (), generator=generator))
        order = torch.randperm(len(masks[row]), generator=generator).repeat(MASKS)[:MASKS]
        return {"pixel_values": pixels[row], "labels": masks[row][order].float()}

    torch.manual_seed(seed)
    model = hf_zoo.create_model("sam-tiny", **OPTIONS)
    look_where_clicks_are(model)
    losses = train(model, draw, STEPS, learning_rate=LR, batch_size=BATCH, seed=seed + 1)
    claim.draw("loss", "focal, dice and IoU", range(10, STEPS + 1, 10), losses)
    torch.manual_seed(seed)
    means = iou_by_clicks(model, *held_out)
    claim.draw("mean IoU by clicks", "held-out scenes", range(1, CLICKS + 1), means)
    claim.compare(
        "on held-out scenes the mean IoU rises with every click",
        all(later > earlier for earlier, later in zip(means, means[1:], strict=False)),
        **{f"{i} click{'s' if i > 1 else ''}": mean for i, mean in enumerate(means, start=1)},
    )
    claim.compare("after five clicks it is above 0.85", means[-1] > 0.85, five_clicks=means[-1])
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
