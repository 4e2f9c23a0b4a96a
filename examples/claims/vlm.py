"""One vision-language model in four forms, and what each makes of pictures whose names nobody has shown it.

The four kinds of fusion: patches into the language model (early), a whole image tower before it (late: Liu et al.
2023, https://arxiv.org/abs/2304.08485), attention to the tower's features before every layer (interleaved: Alayrac
et al. 2022, https://arxiv.org/abs/2204.14198), two towers and a loss on pairs (joint: Radford et al. 2021,
https://arxiv.org/abs/2103.00020). A picture is a letter of a font, its caption the official name, "greek small letter
alpha with tonos"; the names that are held out are new combinations of words. All are trained alike, with equal steps,
batches, sizes and learning rate. Three write the name, word by word, and have to hit all of it; joint cannot write, so
its caption is the best of all held-out names, which is an easier task. The same language model without a picture
shows what the words alone give away.
"""

import re
import time

import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset

STEPS, BATCH, RATE = 800, 64, 3e-3
NAME = re.compile(r"(latin|greek|cyrillic) (small|capital) letter \w+( with [\w ]+)?")
PAD, START, END, IMAGE, FIRST = 0, 1, 2, 3, 4  # ids; words come after
WORDS = 11  # of the longest name, with its end
# Convolutions see at once what a transformer would need many more pictures for
TOWER = {
    **{"model_type": "zoo_nfnet", "depths": [1, 1, 1], "widths": [32, 64, 128], "stem_widths": [8, 16, 16, 32]},
    **{"group_size": 16, "hidden_size": 128, "image_size": 32, "path_dropout": 0.0},
}
FORMS = {
    "early": {"fusion": "early"},
    "late": {"fusion": "late"},
    "interleaved": {"fusion": "interleaved", "cross_attention_every": 1},
    "joint": {"fusion": "joint", "projection_dim": 64},
}


def letters():
    """Pictures (N, 3, 32, 32) and names (N, WORDS) as ids: of training, and held out."""
    rows = {split: load_dataset("glyphs", split=split) for split in ("train", "validation", "test")}
    rows = {split: [row for row in part if NAME.fullmatch(row["text"])] for split, part in rows.items()}
    words = sorted({word for row in rows["train"] for word in row["text"].split()})
    ids = {word: FIRST + i for i, word in enumerate(words)}

    def tensors(part):
        pixels = [torch.frombuffer(bytearray(row["image"].tobytes()), dtype=torch.uint8) for row in part]
        pixels = torch.stack(pixels).view(-1, 32, 32, 3).permute(0, 3, 1, 2) / 127.5 - 1
        names = torch.full((len(part), WORDS), PAD)
        for i, row in enumerate(part):
            name = [*(ids[word] for word in row["text"].split()), END]
            names[i, : len(name)] = torch.tensor(name)
        return pixels, names

    held_out = [row for row in rows["validation"] + rows["test"] if ids.keys() >= set(row["text"].split())]
    return tensors(rows["train"]), tensors(held_out), FIRST + len(words)


def make(form, vocab_size, seed):
    """A model of a form: a tower of convolutions, or bare patches, and two layers of a language model."""
    torch.manual_seed(seed)
    tiny = hf_zoo.create_config("vlm-tiny")
    text = {**tiny.text_config.to_dict(), "vocab_size": vocab_size, "initializer_range": 0.1}
    options = {"text_config": text, "image_token_id": IMAGE, "initializer_range": 0.1, **FORMS[form]}
    if form != "early":
        seen = {"vision_feature_layer": None, "vision_feature_select_strategy": "full", "num_image_tokens": 4}
        options |= {"vision_config": TOWER, **seen}
    task = "feature-extraction" if form == "joint" else "image-text-to-text"
    return hf_zoo.create_model("vlm-tiny", task, **options)


def shifted(image, generator):
    """A picture moved by up to two pixels, as no glyph stands quite where another does."""
    return image.roll(torch.randint(-2, 3, (2,), generator=generator).tolist(), (1, 2))


def prompt(model):
    """What comes before a name: the places of a picture, and the start."""
    return torch.tensor([IMAGE] * model.config.placeholders + [START])


@torch.no_grad()
def hits(model, pixels, names, sees):
    """Share of the pictures whose whole name is right, and the bytes that a cache holds of one prompt."""
    if model.config.fusion == "joint":
        scores = model(names, pixels, attention_mask=(names != PAD).long()).logits_per_image
        return (scores.argmax(-1) == torch.arange(len(names))).float().mean().item(), 0
    ids = prompt(model).expand(len(names), -1) if sees else torch.full((len(names), 1), START)
    options = {"max_new_tokens": WORDS, "do_sample": False, "eos_token_id": END, "pad_token_id": PAD}
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if sees:
        inputs["pixel_values"] = pixels
    written = model.generate(**inputs, **options)[:, ids.shape[1] :]
    written = torch.nn.functional.pad(written, (0, WORDS - written.shape[1]), value=PAD)
    cache = model(**{name: value[:1] for name, value in inputs.items()}, use_cache=True).past_key_values
    kept = [x for layer in cache.layers for x in (layer.keys, layer.values)]
    kept += [x for pair in getattr(getattr(cache, "images", None), "kept", {}).values() for x in pair]
    return (written == names).all(-1).float().mean().item(), sum(x.numel() * x.element_size() for x in kept)


def learn(form, data, vocab_size, seed, sees=True, steps=STEPS):
    """A trained model, its losses and the milliseconds of a step."""
    pixels, names = data
    model = make(form, vocab_size, seed)
    before = prompt(model) if sees else torch.tensor([START])

    def draw(generator):
        i = int(torch.randint(len(names), (), generator=generator))
        if form == "joint":
            row = {"input_ids": names[i], "attention_mask": (names[i] != PAD).long()}
        else:
            # Half of the words are hidden from the ones after them: else the words known so far, of a name that is
            # none of those to be found, say more than the picture
            kept = torch.rand(WORDS, generator=generator) < 0.5
            ids = torch.cat((before, names[i].where(kept, PAD)))
            said = torch.cat((torch.full_like(before, -100), names[i].masked_fill(names[i] == PAD, -100)))
            row = {"input_ids": ids, "labels": said}
        return {**row, **({"pixel_values": shifted(pixels[i], generator)} if sees else {})}

    start = time.perf_counter()
    losses = train(model, draw, steps=steps, learning_rate=RATE, batch_size=BATCH, seed=seed)
    return model, losses, 1000 * (time.perf_counter() - start) / steps


def run(seed, claim=None):
    """Exact match on held-out names for each form, and without a picture."""
    shown, held_out, vocab_size = letters()
    found = {}
    print(f"{'':12} exact match   parameters   ms a step   bytes in the cache", flush=True)
    for form, sees in [*((form, True) for form in FORMS), ("no picture", False)]:
        model, losses, cost = learn("late" if form == "no picture" else form, shown, vocab_size, seed, sees)
        found[form], kept = hits(model, *held_out, sees)
        print(f"{form:12} {found[form]:11.3f} {model.num_parameters():12,} {cost:11.0f} {kept:14,}", flush=True)
        if claim is not None and form != "joint":
            claim.draw("loss of names in training", form, range(10, STEPS + 1, 10), losses)
    return found, len(held_out[1])


def main():
    claim = Claim("vlm", "Liu et al. 2023")
    found, count = run(seed=0, claim=claim)
    claim.compare(
        "late fusion writes at least five times as many whole names rightly, of those that no picture was shown with, "
        "as one name for all would be",
        found["late"] >= 5 / count,
        **{form: found[form] for form in ("late", "early", "interleaved")},
        one_guess=1 / count,
    )
    claim.compare(
        "without a picture the words alone give no more than the best single guess, one name for all",
        found["no picture"] <= 1 / count + 1e-9,
        no_picture=found["no picture"],
        one_guess=1 / count,
    )
    claim.compare(
        "joint, which cannot write and picks from the held-out names, finds at least ten times as many as chance",
        found["joint"] >= 10 / count,
        joint=found["joint"],
        chance=1 / count,
    )
    claim.finish()


if __name__ == "__main__":
    main()
