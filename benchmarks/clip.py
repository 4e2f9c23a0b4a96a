"""zoo_vit and zoo_clip beside transformers' classes on the same weights, and how long a step waits for its data.

python benchmarks/clip.py
"""

import argparse
import logging
import time

import torch
from paired import report, speed_up
from rivals import same_weights
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel, ViTConfig, ViTModel

import hf_zoo
from hf_zoo.data import load_dataset

VISION = {
    **{"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4},
    **{"image_size": 128, "patch_size": 16},
}
TEXT = {
    **{"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4},
    **{"vocab_size": 2048, "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0},
}


def rivals():
    """Name -> transformers' model and its inputs."""
    torch.manual_seed(0)
    pixels = torch.randn(8, 3, 128, 128)
    ids = torch.randint(5, 2048, (8, 32))
    ids[:, -1] = 3
    pairs = {"input_ids": ids, "pixel_values": pixels, "return_loss": True}
    return {
        "ViTModel": (ViTModel(ViTConfig(**VISION)), {"pixel_values": pixels}),
        "CLIPVisionModel": (CLIPVisionModel(CLIPVisionConfig(**VISION)), {"pixel_values": pixels}),
        "CLIPModel": (CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT)), pairs),
    }


def ours(rival):
    """The zoo's model with the rival's weights."""
    if isinstance(rival, CLIPModel):
        return same_weights("zoo_clip", rival)
    return same_weights("zoo_vit", rival, task="feature-extraction")


def train_step(model, inputs):
    """Forward and backward."""

    def run():
        model.train()
        model.zero_grad()
        outputs = model(**inputs)
        loss = outputs.loss if "loss" in outputs else outputs.last_hidden_state.square().mean()
        loss.backward()

    return run


def inference(model, inputs):
    """Forward alone."""

    @torch.no_grad()
    def run():
        model.eval()
        model(**inputs)

    return run


def waiting_share(steps=60, rows=32):
    """Share of a training loop on `glyphs` in clip-tiny that goes by until the next batch is there.

    The processor has read pictures and captions before, once for all epochs, into tensors.
    """
    processor, model = hf_zoo.create_processor("clip-tiny"), hf_zoo.create_model("clip-tiny").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data = load_dataset("glyphs", split="train").select(range(320))
    whole = processor(images=list(data["image"]), text=list(data["text"]), padding=True, return_tensors="pt")
    data = [{name: value[i] for name, value in whole.items()} for i in range(len(data))]
    waited = worked = 0.0
    done = 0
    while done < steps:
        start = time.perf_counter()
        for batch in torch.utils.data.DataLoader(data, batch_size=rows, shuffle=True):
            ready = time.perf_counter()
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            end = time.perf_counter()
            waited, worked, start, done = waited + ready - start, worked + end - ready, end, done + 1
    return waited / (waited + worked)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=21)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows = []
    for name, (rival, inputs) in rivals().items():
        model = ours(rival)
        row = {"beside": name}
        for work in (train_step, inference):
            ratio, _, _ = speed_up(work(model, inputs), work(rival, inputs), args.pairs)
            row[f"speed-up of {work.__name__.replace('_', ' ')}"] = ratio
        rows.append(row)
    note = f"medians of paired runs on the same weights; clip-tiny waits {waiting_share():.1%} of its time for data"
    report("clip", rows, note)


if __name__ == "__main__":
    hf_zoo.register()
    main()
