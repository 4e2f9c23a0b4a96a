"""zoo_sam against transformers' SamModel on the same weights: the image encoder, a training step of it, prompts.

Layers are as wide as those of SAM ViT-B; three of them, two with windows and one without, keep the published
proportions. What prompts cost is set against four times that, as ViT-B has twelve.

    python benchmarks/sam.py
"""

import argparse
import logging
import tempfile

import torch
from paired import report, speed_up
from transformers import SamConfig, SamModel

import hf_zoo
from hf_zoo.registry import ARCHITECTURES


def models(image_size):
    """Ours and transformers', with the same random weights."""
    vision = {
        **{"image_size": image_size, "num_hidden_layers": 3, "initializer_range": 0.02},
        "global_attn_indexes": [2],
    }
    torch.manual_seed(0)
    rival = SamModel(SamConfig(vision_config=vision, prompt_encoder_config={"image_size": image_size}))
    with torch.no_grad():
        for name, parameter in rival.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(std=0.02)
    with tempfile.TemporaryDirectory() as folder:
        rival.save_pretrained(folder)
        return ARCHITECTURES["zoo_sam"].model_class().from_pretrained(folder).eval(), rival.eval()


def encode(model):
    """An image to its embedding, as a function of nothing."""
    side = getattr(model.config, "vision_config", model.config).image_size
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    return lambda: model.get_image_embeddings(image)


def train_step(model):
    """Forward and backward of the encoder."""
    encoder = model.image_encoder if hasattr(model, "image_encoder") else model.vision_encoder
    side = encoder.config.image_size
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))

    def run():
        encoder.zero_grad()
        encoder(image).last_hidden_state.square().mean().backward()

    return run


def prompt(model, embeddings, number):
    """Masks for clicks on an embedded image."""
    points = torch.rand(1, number, 1, 2, generator=torch.Generator().manual_seed(0)) * 1024
    labels = torch.ones(1, number, 1, dtype=torch.long)

    @torch.no_grad()
    def run():
        model(image_embeddings=embeddings, input_points=points, input_labels=labels)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)

    rows = []
    for side in (512, 1024):
        ours, rival = models(side)
        pair = encode(ours), encode(rival)
        assert (pair[0]() - pair[1]()).abs().max() < 1e-3
        ratio, seconds, _ = speed_up(*pair, args.pairs)
        rows.append({"work": f"encoder, {side} pixels", "speed-up": ratio})
        if side == 512:
            pair = train_step(ours), train_step(rival)
            rows.append({"work": "training step of it, 512 pixels", "speed-up": speed_up(*pair, args.pairs)[0]})
    embeddings = encode(ours)()
    for number in (1, 16):
        pair = (prompt(model, embeddings, number) for model in (ours, rival))
        ratio, prompt_seconds, _ = speed_up(*pair, args.pairs)
        rows.append({"work": f"{number} prompts on an embedding", "speed-up": ratio})
        if number == 1:
            share = prompt_seconds / (4 * seconds)
    note = "speed-up of zoo_sam over transformers' SamModel (sdpa); one prompt costs "
    report("sam", rows, note + f"{100 * share:.2f} % of the encoder of ViT-B at 1,024 pixels")


if __name__ == "__main__":
    hf_zoo.register()
    main()
