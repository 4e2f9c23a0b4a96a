"""Two towers learn from pairs to find the name of a picture that nobody has shown them, the better the more pairs.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision",
https://arxiv.org/abs/2103.00020, section 2. A picture is a glyph of a font and its text the official name of the
character, "greek small letter alpha with tonos"; held-out names are new combinations of words. The same model sees a
sixteenth, a quarter and all of the pairs, for as many steps. Recall@1 is how often the name that a picture is nearest
to, of all held-out ones, is its own.
"""

import random

import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.tokenization.train import train_tokenizer

STEPS, BATCH = 400, 128
SHARES = (1 / 16, 1 / 4, 1.0)
LENGTH = 20  # tokens of a name
# Convolutions see at once what a transformer would need many more pictures for
VISION = {
    **{"model_type": "zoo_nfnet", "depths": [1, 1, 1], "widths": [64, 128, 256], "stem_widths": [16, 16, 32, 32]},
    **{"group_size": 16, "hidden_size": 256, "image_size": 32, "path_dropout": 0.0},
}


def tensors(rows, tokenizer):
    """Pictures (N, 3, 32, 32) from -1 to 1, and names that end with the end token."""
    pixels = torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8) for p in rows["image"]])
    pixels = pixels.view(-1, 32, 32, 3).permute(0, 3, 1, 2) / 127.5 - 1
    texts = [text + tokenizer.eos_token for text in rows["text"]]
    options = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "padding_side": "right"}
    names = tokenizer(texts, return_tensors="pt", **options)
    return {"pixel_values": pixels, "input_ids": names["input_ids"], "attention_mask": names["attention_mask"]}


def shifted(image, generator):
    """A picture moved by up to two pixels, as no glyph stands quite where another does."""
    by = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return image.roll(by, (1, 2))


@torch.no_grad()
def recall(model, data):
    """Share of the pictures whose nearest name is their own."""
    images = model.get_image_features(data["pixel_values"]).pooler_output
    texts = model.get_text_features(data["input_ids"], data["attention_mask"]).pooler_output
    scores = torch.nn.functional.normalize(images, dim=-1) @ torch.nn.functional.normalize(texts, dim=-1).T
    return (scores.argmax(-1) == torch.arange(len(scores))).float().mean().item()


def run(seed, claim=None):
    """Recall on held-out names for each share of the training pairs."""
    rows = {split: load_dataset("glyphs", split=split) for split in ("train", "validation", "test")}
    tokenizer = train_tokenizer(rows["train"]["text"], "bpe", 1500)
    data = {split: tensors(part, tokenizer) for split, part in rows.items()}
    held_out = {name: torch.cat((data["validation"][name], data["test"][name])) for name in data["test"]}
    order = list(range(len(rows["train"])))
    random.Random(seed).shuffle(order)
    found = {}
    for share in SHARES:
        chosen = order[: int(share * len(order))]

        def draw(generator, chosen=chosen):
            i = chosen[int(torch.randint(len(chosen), (), generator=generator))]
            row = {name: value[i] for name, value in data["train"].items()}
            return {**row, "pixel_values": shifted(row["pixel_values"], generator)}

        torch.manual_seed(seed)
        text = {**hf_zoo.create_config("clip-tiny").text_config.to_dict(), "vocab_size": len(tokenizer)}
        model = hf_zoo.create_model("clip-tiny", vision_config=VISION, text_config=text, projection_dim=128)
        losses = train(model, draw, steps=STEPS, learning_rate=2e-3, batch_size=BATCH, seed=seed)
        found[share] = recall(model, held_out)
        print(f"{len(chosen)} pairs: recall@1 {found[share]:.3f} of {len(held_out['input_ids'])} names", flush=True)
        if claim is not None:
            claim.draw("loss in training", f"{len(chosen)} pairs", range(10, STEPS + 1, 10), losses)
    sizes = [int(share * len(order)) for share in SHARES]
    if claim is not None:
        claim.draw("recall@1 on held-out names", "CLIP", sizes, list(found.values()))
        chance = [1 / len(held_out["input_ids"])] * len(sizes)
        claim.draw("recall@1 on held-out names", "chance", sizes, chance)
    return found, 1 / len(held_out["input_ids"])


def main():
    claim = Claim("clip", "Radford et al. 2021")
    found, chance = run(seed=0, claim=claim)
    claim.compare(
        "of all names that no picture was shown with, the right one is found at least 20 times as often as by chance",
        found[1.0] >= 20 * chance,
        recall=found[1.0],
        chance=chance,
    )
    claim.compare(
        "and the more often the more pairs are learnt from",
        found[1 / 16] < found[1 / 4] < found[1.0],
        sixteenth=found[1 / 16],
        quarter=found[1 / 4],
        all=found[1.0],
    )
    claim.finish()


if __name__ == "__main__":
    main()
