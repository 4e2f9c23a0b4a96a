"""zoo_meta_transformer beside transformers' classifiers of pictures, sounds and videos of the same sizes, all with
their blocks frozen.

    python benchmarks/meta_transformer.py
"""

import argparse

import torch
from paired import report, speed_up
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    ViTConfig,
    ViTForImageClassification,
)

import hf_zoo
from hf_zoo.modeling.meta_transformer.configuration_meta_transformer import ZooMetaTransformerConfig
from hf_zoo.modeling.meta_transformer.modeling_meta_transformer import ZooMetaTransformerForSequenceClassification

BLOCKS = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6}


def rivals(rows):
    """Modality -> its sizes, our input, theirs, and their model."""
    picture, sound = torch.randn(rows, 3, 112, 112), torch.randn(rows, 256, 128)
    video = torch.randn(rows, 8, 3, 64, 64)
    clip = {"image_size": 64, "patch_size": 16, "num_frames": 8}
    vit = ViTForImageClassification(ViTConfig(**BLOCKS, image_size=112))
    ast = ASTForAudioClassification(ASTConfig(**BLOCKS, max_length=256))
    mae = VideoMAEForVideoClassification(VideoMAEConfig(**BLOCKS, **clip))
    return {
        "image": ({"image_size": 112}, {"pixel_values": picture}, {"pixel_values": picture}, vit, vit.vit),
        "audio": (
            *({"max_frames": 256}, {"audio_values": sound}, {"input_values": sound}),
            *(ast, ast.audio_spectrogram_transformer),
        ),
        "video": (clip, {"pixel_values_videos": video}, {"pixel_values": video}, mae, mae.videomae),
    }


def train_step(model, inputs, labels):
    """Forward and backward."""

    def run():
        model.train()
        model.zero_grad()
        model(**inputs, labels=labels).loss.backward()

    return run


def prediction(model, inputs):
    """Forward alone."""

    @torch.no_grad()
    def run():
        model.eval()
        model(**inputs)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--rows", type=int, default=4)
    args = parser.parse_args()
    labels, rows = torch.arange(args.rows) % 2, []
    for name, (sizes, own, other, rival, trunk) in rivals(args.rows).items():
        config = ZooMetaTransformerConfig(
            modalities={name: sizes},
            encoder_config={
                **{"model_type": "zoo_vit", "use_cls": False, "pooling": "mean", "final_norm": "none"},
                **BLOCKS,
            },
        )
        model = ZooMetaTransformerForSequenceClassification(config)
        for part_name, weight in trunk.named_parameters():
            weight.requires_grad_("embeddings" in part_name)
        steps = train_step(model, own, labels), train_step(rival, other, labels)
        rows.append(
            {
                "modality": name,
                "rival": type(rival).__name__,
                "speed-up of a training step": speed_up(*steps, args.pairs)[0],
                "speed-up of prediction": speed_up(prediction(model, own), prediction(rival, other), args.pairs)[0],
            }
        )
    report("meta_transformer", rows, "medians of paired runs, all with frozen blocks of the same sizes")


if __name__ == "__main__":
    hf_zoo.register()
    main()
