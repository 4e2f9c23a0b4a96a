"""Where a text may go on in two ways, regression predicts their mean, and diffusion says one or the other.

Barault et al. 2024, https://arxiv.org/abs/2412.08821, section 2.3: the reason for diffusion. Texts are docstrings of
the standard library: a first sentence and a second, each a vector of its words. Every first sentence is followed by
its own second sentence in half of its copies, and by another's in the other half. All forms have the same trunk.
"""

import sys

import numpy as np
import torch
from torch.nn import functional as F

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.tokenization.sentence_segmenter import SentenceSegmenter

TEXTS, SIZE, DRAWS = 48, 32, 24  # first sentences, numbers of a vector, continuations drawn of each
SAID = 0.9  # cosine to a sentence from which on it counts as said; two sentences' mean has about 0.7 to each
STEPS, LR = 700, 2e-3
FORMS = ("regression", "one_tower", "two_tower", "quantised")
OPTIONS = {"num_codebooks": 8, "codebook_size": 256, "guidance_probability": 0.0}
SAMPLING = {"guidance_scale": 1.0, "initial_noise": 1.0, "num_sampling_steps": 20}


def sentences():
    """First and second sentences of docstrings (N, 2, SIZE), each the random directions of its words, summed."""
    cut, random, directions, pairs = SentenceSegmenter(), np.random.default_rng(0), {}, []
    for row in load_dataset("python-docs", "train"):
        said = [sentence for sentence in cut(row["doc"]) if 4 <= len(sentence.split()) <= 20]
        if len(said) >= 2:
            pairs.append(said[:2])

    def vector(sentence):
        words = sentence.lower().split()
        made = sum(directions.setdefault(word, random.standard_normal(SIZE)) for word in words)
        return made / np.linalg.norm(made)

    vectors = torch.tensor(np.array([[vector(one) for one in pair] for pair in pairs]), dtype=torch.float32)
    return vectors * SIZE**0.5


def main(seed: int = 0):
    claim = Claim("concept_predictor", "Barault et al. 2024")
    every = sentences()
    chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:TEXTS]
    first, second = every[chosen].unbind(1)
    ends = torch.stack((second, second.roll(1, 0)), dim=1)  # two ways to go on, both of them real sentences
    middle, apart = ends.mean(1), (ends[:, 0] - ends[:, 1]).norm(dim=-1) / 2

    def draw(generator):
        text = int(torch.randint(TEXTS, (), generator=generator))
        way = int(torch.randint(2, (), generator=generator))
        row = torch.stack((first[text], ends[text, way]))
        labels = row.clone()
        labels[0] = -100.0  # what a text begins with is not to be learnt
        return {"concepts": row, "labels": labels}

    on_one, on_both, at_middle = {}, {}, {}
    for form in FORMS:
        torch.manual_seed(seed)
        model = hf_zoo.create_model("concept-predictor-tiny", concept_head=form, **OPTIONS)
        model.fit_space(every.flatten(0, 1))
        losses = train(model, draw, STEPS, learning_rate=LR, batch_size=64)
        claim.draw(form.replace("_", " "), "loss", range(10, STEPS + 1, 10), losses)
        model.eval()
        drawn = []
        generator = torch.Generator().manual_seed(seed)
        for _ in range(1 if form == "regression" else DRAWS):
            options = {**SAMPLING, "temperature": 0.5, "generator": generator}
            drawn.append(model.generate(first[:, None], max_new_concepts=1, **options).concepts[:, 0])
        said = torch.stack(drawn, 1)[:, :, None]  # (texts, draws, 1, S)
        hits = F.cosine_similarity(said, ends[:, None], dim=-1) > SAID  # (texts, draws, 2)
        name = form.replace("_", " ")
        on_one[name] = hits.any(-1).float().mean().item()
        on_both[name] = hits.any(1).all(-1).float().mean().item()
        at_middle[name] = ((said[:, :, 0] - middle[:, None]).norm(dim=-1) / apart[:, None]).median().item()
    others = [name for name in on_one if name != "regression"]
    claim.compare(
        f"a continuation is one of the two sentences (cosine above {SAID}); regression says neither",
        min(on_one[name] for name in others) > 0.8 and on_one["regression"] < 0.1,
        **on_one,
    )
    claim.compare(
        f"both are said in {DRAWS} draws, for most texts",
        min(on_both[name] for name in others) > 0.8,
        **{name: on_both[name] for name in others},
    )
    claim.compare(
        "regression says their mean: its distance to it, over that of either sentence",
        at_middle["regression"] < 0.25 and min(at_middle[name] for name in others) > 0.7,
        **at_middle,
    )
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
