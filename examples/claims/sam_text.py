"""The mask that a name asks for is the mask of the glyph that it names.

Kirillov et al. 2023, https://arxiv.org/abs/2304.02643, section 7.5 (zero-shot text-to-mask). Scenes are those of
sam.py with two glyphs or more; a prompt is the name of one of them. With one mask a prompt, as here, the loss cannot
be met by a mask for every glyph, of which the best is counted: only the name tells which is asked for. The rival is
chance, one over the number of glyphs of a scene.
"""

import sys

import torch
from sam import look_where_clicks_are, scenes
from torch.nn.utils.rnn import pad_sequence

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.modeling.sam.interaction import iou

MASKS = 3  # of a scene in a batch
STEPS, BATCH, LR, SCENES = 2000, 16, 2.5e-3, 8000
OPTIONS = {
    **{"image_size": 32, "patch_size": 4, "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3},
    **{"window_size": 4, "global_attn_indexes": [0, 1, 2], "num_attention_heads": 4, "prompt_size": 64},
    **{"num_decoder_heads": 2, "attention_downsample_rate": 1, "decoder_intermediate_size": 128, "iou_head_size": 64},
    **{"initializer_range": 0.1, "num_clicks": 0, "num_refinements": 0, "box_probability": 0.0},
    **{"text_probability": 1.0, "num_multimask_outputs": 1},
    "text_config": {
        **{"model_type": "zoo_mlm", "vocab_size": 10, "hidden_size": 32, "intermediate_size": 64},
        **{"num_hidden_layers": 1, "num_attention_heads": 2, "initializer_range": 0.1, "pad_token_id": None},
    },
}


def named_scenes(split, numbers):
    """Scenes of two glyphs or more: images (N, 3, side, side), and of each the masks and the numbers of the names."""
    pixels, masks, names = scenes(split, SCENES)
    numbers.update({name: i for i, name in enumerate(sorted({name for row in names for name in row}))})
    several = [i for i, row in enumerate(names) if len(row) > 1]
    ids = [torch.tensor([[numbers[name]] for name in names[i]]) for i in several]
    return pixels[several], [masks[i] for i in several], ids


@torch.no_grad()
def picks(model, pixels, masks, ids):
    """Of each glyph's name: whether its mask overlaps that glyph most, what chance would do, and its IoU."""
    picked, chance, overlap = [], [], []
    for start in range(0, len(pixels), 50):
        batch = slice(start, start + 50)
        truth, names = (pad_sequence(some[batch], batch_first=True) for some in (masks, ids))
        said = model(pixels[batch], input_ids=names)
        best = said.iou_scores.argmax(-1)[..., None, None, None].expand(-1, -1, 1, *truth.shape[2:])
        answers = said.pred_masks.gather(2, best) > 0  # (B, names, 1, side, side)
        of_glyphs = iou(answers, truth[:, None])  # (B, names, glyphs)
        for found, row in zip(of_glyphs, masks[batch], strict=True):
            found = found[: len(row), : len(row)]
            picked += (found.argmax(-1) == torch.arange(len(row))).tolist()
            overlap += found.diagonal().tolist()
            chance += [1 / len(row)] * len(row)
    return (sum(values) / len(values) for values in (picked, chance, overlap))


def main(seed: int = 0):
    claim, numbers = Claim("sam", "Kirillov et al. 2023"), {}
    (pixels, masks, ids), held_out = named_scenes("train", numbers), named_scenes("test", numbers)

    def draw(generator):
        row = int(torch.randint(len(pixels), (), generator=generator))
        order = torch.randperm(len(ids[row]), generator=generator).repeat(MASKS)[:MASKS]
        image = pixels[row][torch.randperm(3, generator=generator)]  # another order of colours is another scene
        image = -image if torch.rand((), generator=generator) < 0.5 else image
        return {"pixel_values": image, "input_ids": ids[row][order], "labels": masks[row][order].float()}

    torch.manual_seed(seed)
    model = hf_zoo.create_model("sam-tiny", **OPTIONS)
    look_where_clicks_are(model)
    losses = train(model, draw, STEPS, LR, BATCH, seed=seed + 1, weight_decay=0.0)
    claim.draw("loss", "named glyphs", range(10, STEPS + 1, 10), losses)
    picked, chance, overlap = picks(model, *held_out)
    claim.compare(
        "the mask for a name overlaps the glyph that it names best of all in its held-out scene, in four of five",
        picked >= 0.8,
        picked=picked,
        chance=chance,
        iou=overlap,
    )
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
