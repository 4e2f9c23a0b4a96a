"""Sounds find films and words that they were never paired with, because images bind them.

Girdhar et al. 2023, "ImageBind", https://arxiv.org/abs/2305.05665, section 3.1. Every
way to play a tone (an octave on an instrument) goes with one capital letter. In training a picture of the letter comes
with a tone and with the letter's name; the loss compares pictures with tones and pictures with names, and no film is
ever shown. Then held-out tones look for films in which a letter crosses the picture, and for names. The rival is the
same model with its bonds cut: tones that come with pictures of any letter.
"""

import string

import numpy as np
import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.data.glyphs import draw_glyph, name_of
from hf_zoo.data.tones import OCTAVES, TIMBRES

STEPS, BATCH = 1200, 32
KINDS = [(octave, timbre) for octave in OCTAVES for timbre in TIMBRES]  # of tones, one a letter
LETTERS = string.ascii_uppercase[: len(KINDS)]
FRAMES = 98  # of a spectrum of one second
CLIPS = 4  # of a film, two frames each
CONFIG = {
    "modalities": ["vision", "text", "audio"],
    "frozen_modalities": [],
    "audio_config": {
        **{"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128},
        **{"input_shape": [64, FRAMES], "patch_size": 16, "patch_stride": 16, "path_dropout": 0.0},
    },
}


def sounds(rows, extractor):
    """Spectra (N, 1, bins, frames), and which letter each goes with."""
    waves = [np.asarray(audio["array"], np.float32) for audio in rows["audio"]]
    values = extractor(waves, sampling_rate=16_000, return_tensors="pt")["input_values"]
    kinds = torch.tensor([KINDS.index(pair) for pair in zip(rows["octave"], rows["timbre"], strict=True)])
    return values.mT[:, None], kinds


def pixels(image):
    """A picture as numbers from -1 to 1 (3, height, width)."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 127.5 - 1).permute(2, 0, 1)


def moved(image, generator):
    """A white picture into which the letter is moved by up to six pixels each way."""
    wide = torch.nn.functional.pad(image, (6, 6, 6, 6), value=1.0)
    top, left = torch.randint(0, 13, (2,), generator=generator).tolist()
    return wide[:, top : top + image.shape[1], left : left + image.shape[2]]


def nearest(vectors, others):
    """The place of the nearest of the others for each vector."""
    return (vectors @ others.T).argmax(-1)


def run(seed, claim=None):
    """How often a held-out tone finds a film, and a name, of its letter, with bonds and without."""
    from transformers import ASTFeatureExtractor

    extractor = ASTFeatureExtractor(num_mel_bins=64, max_length=FRAMES, mean=-4.268, std=4.569)
    rows = load_dataset("tones")
    train_sounds, train_kinds = sounds(rows["train"], extractor)
    parts = [sounds(rows[split], extractor) for split in ("validation", "test")]
    held_out, held_kinds = (torch.cat(part) for part in zip(*parts, strict=True))
    pictures = [pixels(draw_glyph(letter, 32)) for letter in LETTERS]
    names = [name_of(letter) for letter in LETTERS]
    processor = hf_zoo.create_processor("imagebind-tiny")
    texts = processor(text=names)
    films = load_dataset("moving-glyphs", split="test+validation+train[:600]").filter(lambda row: row["name"] in names)
    clips = torch.stack([torch.stack([pixels(frame) for frame in row["frames"]]) for row in films])
    clips = clips.unflatten(1, (CLIPS, -1)).transpose(2, 3)  # (films, clips, colours, 2, height, width)
    film_kinds = torch.tensor([names.index(row["name"]) for row in films])
    found = {}
    for label in ("bound", "cut"):

        def draw(generator, label=label):
            i = int(torch.randint(len(train_sounds), (), generator=generator))
            kind = int(train_kinds[i])
            if label == "cut":
                kind = int(torch.randint(len(KINDS), (), generator=generator))
            text = {name: texts[name][kind] for name in ("input_ids", "attention_mask")}
            return {"pixel_values": moved(pictures[kind], generator), "audio_values": train_sounds[i], **text}

        torch.manual_seed(seed)
        model = hf_zoo.create_model("imagebind-tiny", **CONFIG)
        losses = train(model, draw, steps=STEPS, learning_rate=2e-3, batch_size=BATCH, seed=seed)
        with torch.no_grad():
            heard = model.get_signal_features("audio", held_out).pooler_output
            seen = model.get_signal_features("vision", clips).pooler_output
            read = model.get_text_features(texts["input_ids"], texts["attention_mask"]).pooler_output
        by_film = (film_kinds[nearest(heard, seen)] == held_kinds).float().mean().item()
        by_name = (nearest(heard, read) == held_kinds).float().mean().item()
        found[label] = by_film, by_name
        print(f"{label}: films {by_film:.3f}, names {by_name:.3f}", flush=True)
        if claim is not None:
            claim.draw("loss in training", label, range(10, STEPS + 1, 10), losses)
    return found, len(held_out), len(films)


def main():
    claim = Claim("imagebind", "Girdhar et al. 2023")
    found, num_sounds, num_films = run(seed=0, claim=claim)
    print(f"{num_sounds} tones, {num_films} films")
    chance = 1 / len(KINDS)
    for place, what in enumerate(("film of its letter", "name of its letter")):
        claim.compare(
            f"a held-out tone finds a {what}, never paired with it, four times as often as by chance",
            found["bound"][place] >= 4 * chance,
            bound=found["bound"][place],
            chance=chance,
        )
        claim.compare(
            f"and finds no {what} where tones came with any picture",
            found["cut"][place] <= 2.5 * chance,
            cut=found["cut"][place],
            chance=chance,
        )
    claim.finish()


if __name__ == "__main__":
    main()
