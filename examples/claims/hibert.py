"""Hi-BERT joins facts of different segments, which the same number of blocks over segments alone cannot.

Chalkidis et al. 2022, sections 3 and 5. Each of 16 segments holds a number below 8; the label of a segment (as in
their classification of sentences in documents) is whether its number is above that of the first. Who looks
at segments one by one sees one of the two numbers, and is right for three quarters of them at best.
"""

import sys

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

SEGMENTS, SIZE = 16, 8  # of a document, tokens of a segment
NUMBERS, MANY = 8, 16  # how many numbers there are, how many words that mean nothing
CLS, NUMBER = 5, 6  # ids of the first token, of the first number
FILLER = NUMBER + NUMBERS
BEST_ALONE = sum(max(n, NUMBERS - n) for n in range(NUMBERS)) / NUMBERS**2  # a number n is above n of 8
STEPS = 600
OPTIONS = {
    **{"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": FILLER + MANY},
    **{"segment_size": SIZE, "max_segments": SEGMENTS, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    **{"block_layout": "pre", "initializer_range": 0.1, "num_hidden_layers": 4, "num_labels": 2},
}


def document(generator):
    """A row of segments, with labels at the first token of each but the first."""
    words = torch.randint(FILLER, FILLER + MANY, (SEGMENTS, SIZE), generator=generator)
    numbers = torch.randint(NUMBERS, (SEGMENTS,), generator=generator)
    words[:, 0], words[:, 1] = CLS, NUMBER + numbers
    labels = torch.full((SEGMENTS, SIZE), -100)
    labels[1:, 0] = (numbers[1:] > numbers[0]).long()
    return {"input_ids": words.flatten(), "labels": labels.flatten()}


@torch.no_grad()
def accuracy(model):
    """Share of right labels in documents that were not trained on."""
    batch = Examples(document, 1000, seed=10_001).batch(1000)
    has_label = batch["labels"] != -100
    right = model(batch["input_ids"]).logits.argmax(-1) == batch["labels"]
    return right[has_label].float().mean().item()


def main(seed=0):
    claim = Claim("hibert", "Chalkidis et al. 2022")
    found = {}
    for name, layout in (("segments and documents", "SDSD"), ("segments alone", "SSSS")):
        torch.manual_seed(seed)
        model = hf_zoo.create_model("hibert-tiny", "token-classification", layout=layout, **OPTIONS)
        losses = train(model, document, steps=STEPS, learning_rate=2e-3, batch_size=32, seed=seed + 1)
        claim.draw("loss", name, range(10, STEPS + 1, 10), losses)
        found[name.replace(" ", "_")] = accuracy(model)
    claim.compare(
        f"numbers of two segments are compared where blocks over documents read them; segments alone do no better "
        f"than one number allows ({BEST_ALONE:.2f})",
        found["segments_and_documents"] > 0.95 and found["segments_alone"] < BEST_ALONE + 0.03,
        **found,
    )
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
