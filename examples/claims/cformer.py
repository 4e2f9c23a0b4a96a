"""A C-Former fires a token for each tone, however long tones last; tokens of equal stretches of time cannot.

Dong and Xu 2019, https://arxiv.org/abs/1905.11235, section 3.1: weights that add up to one over a unit of speech say
where it ends and so how many units there are, for which Chen et al. 2023, https://arxiv.org/abs/2305.04160, have a
C-Former before their language model. Rows are tones of uneven lengths, one after the other; the transcript says how
each is played (its octave and timbre, whatever the notes). The rival is the same model with one weight for all frames,
which is learnt. Held-out tones come as in training, all short or all long, and more at a time than ever in training.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import hf_zoo
from hf_zoo.claims import Claim, Examples, train
from hf_zoo.data import load_dataset
from hf_zoo.data.tones import OCTAVES, TIMBRES
from hf_zoo.tokenization.beats_feature_extractor import ZooBeatsFeatureExtractor

STEPS, BATCH, LR = 1800, 16, 3e-3
ROWS = 300  # of each test
WORDS = [(octave, timbre) for octave in OCTAVES for timbre in TIMBRES]  # the first is word 1: 0 is CTC's blank
PACES = {  # how many tones there are in a row, and how many frames of 10 ms each lasts, from and to
    "uneven": ((1, 4), (20, 80)),  # as in training
    "short": ((3, 6), (20, 32)),
    "long": ((2, 4), (68, 80)),
    "many": ((6, 9), (20, 80)),
}
ENCODER = {
    **{"model_type": "zoo_beats", "num_mel_bins": 16, "patch_size": 8, "patch_embedding_size": 32},
    **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"position_kernel_size": 16, "position_groups": 4, "num_buckets": 32, "max_distance": 64},
    **{"hidden_dropout": 0.0, "attention_dropout": 0.0, "initializer_range": 0.15},
}
CONFIG = {
    **{"encoder_config": ENCODER, "adaptor_config": None, "hidden_size": 64, "output_size": 64},
    **{"vocab_size": len(WORDS) + 1, "initializer_range": 0.15},
}


class EvenWeights(nn.Module):
    """The rival's: every real frame weighs the same."""

    def __init__(self):
        super().__init__()
        self.score = nn.Parameter(torch.zeros(()))

    def forward(self, h, mask):
        """h (B, T, D), mask (B, T) -> weights (B, T)."""
        weights = self.score.sigmoid().expand(h.shape[:2])
        return weights if mask is None else weights * mask


def tones(split):
    """The spectrum (frames, bins) of each tone of a split, and its word."""
    ears, rows = ZooBeatsFeatureExtractor(ENCODER["num_mel_bins"], ENCODER["patch_size"]), load_dataset("tones", split)
    spectra = [torch.from_numpy(ears.spectrum(np.asarray(audio["array"]))).float() for audio in rows["audio"]]
    return spectra, [WORDS.index(pair) + 1 for pair in zip(rows["octave"], rows["timbre"], strict=True)]


def row_of(generator, spectra, words, how_many, how_long):
    """Tones one after the other, each cut to a length of its own; padded to the most that there may be."""

    def between(least, most):
        return int(torch.randint(least, most + 1, (), generator=generator))

    picked = torch.randint(len(words), (between(*how_many),), generator=generator).tolist()
    sound = torch.cat([spectra[i][: between(*how_long)] for i in picked])
    padding = how_many[1] * how_long[1] - len(sound)
    return {
        "input_values": F.pad(sound, (0, 0, 0, padding)),
        "attention_mask": torch.tensor([1] * len(sound) + [0] * padding),
        "labels": torch.tensor([words[i] for i in picked] + [-100] * (how_many[1] - len(picked))),
    }


def edits(said, meant):
    """How many words to change, leave out or put in, to make what was meant of what was said."""
    row = list(range(len(meant) + 1))
    for i, word in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(meant, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


@torch.no_grad()
def scores(model, held_out, pace):
    """Word error rate, and the share of rows with as many tokens as words."""
    batch = Examples(lambda generator: row_of(generator, *held_out, *pace), ROWS, seed=99).batch(ROWS)
    out = model(batch["input_values"], batch["attention_mask"])
    meant = [labels[labels != -100].tolist() for labels in batch["labels"]]
    said = [ids[mask.bool()].tolist() for ids, mask in zip(out.token_logits.argmax(-1), out.token_mask, strict=True)]
    counted = sum(len(a) == len(b) for a, b in zip(said, meant, strict=True)) / ROWS
    return sum(map(edits, said, meant)) / sum(map(len, meant)), counted


def run(seed, claim):
    """Error rate and share of rows that are counted right, by pace, of both models."""
    heard, held_out = tones("train"), tones("validation+test")
    found = {}
    for name in ("learnt", "even"):
        torch.manual_seed(seed)
        model = hf_zoo.create_model("cformer-tiny", **CONFIG)
        if name == "even":
            model.model.weights = EvenWeights()
        losses = train(model, lambda g: row_of(g, *heard, *PACES["uneven"]), STEPS, LR, BATCH, seed=seed + 1)
        claim.draw("loss in training", name, range(10, STEPS + 1, 10), losses)
        found[name] = {pace: scores(model, held_out, PACES[pace]) for pace in PACES}
        print(name, {pace: [round(score, 3) for score in both] for pace, both in found[name].items()}, flush=True)
        lengths = range(24, 81, 8)
        errors, counted = zip(*(scores(model, held_out, ((3, 3), (n, n))) for n in lengths), strict=True)
        claim.draw("word error rate, by frames of each of three tones", name, lengths, errors)
        claim.draw("share with three tokens", name, lengths, counted)
    return found


def main(seed=0):
    claim = Claim("cformer", "Dong and Xu 2019")
    found = run(seed, claim)
    errors, counted = ({name: {p: both[i] for p, both in of.items()} for name, of in found.items()} for i in (0, 1))
    learnt, even = errors["learnt"], errors["even"]
    for pace, share, words in (
        ("uneven", 0.75, "tones of uneven lengths: three quarters of the errors of equal stretches of time, at most"),
        ("many", 0.85, "more of them than ever in training: 85 % of the errors, at most"),
    ):
        claim.compare(words, learnt[pace] <= share * even[pace], learnt=learnt[pace], even=even[pace])
    for pace in ("short", "long"):
        claim.compare(
            f"{pace} tones alone: rows with as many tokens as tones are three in ten at least, with even weights one",
            counted["learnt"][pace] >= 0.3 and counted["even"][pace] <= 0.1,
            **{name: shares[pace] for name, shares in counted.items()},
            **{f"errors_{name}": rates[pace] for name, rates in errors.items()},
        )
    claim.finish()


if __name__ == "__main__":
    main()
