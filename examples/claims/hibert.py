"""Hi-BERT joins facts of different segments, which the same number of blocks over segments alone cannot.

Chalkidis et al. 2022, sections 3 and 5. The first of 16 segments holds two values, every other a word that says which
of the two is its label (as in their classification of sentences in documents): who looks at a segment alone can only
guess, and who sees the first alone is right where both values are the same, and half of the time where not.
"""

import sys

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

SEGMENTS, SIZE = 16, 8  # of a document, tokens of a segment
VALUES, MANY = 4, 16  # kinds of values, words that mean nothing
CLS, WHICH, VALUE = 5, 6, 8
FILLER = VALUE + VALUES
STEPS = 600
OPTIONS = {
    **{"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": FILLER + MANY},
    **{"segment_size": SIZE, "max_segments": SEGMENTS, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    **{"block_layout": "pre", "initializer_range": 0.1, "num_labels": VALUES},
}


def document(generator):
    """A row of segments, with labels at the first token of each but the first."""
    words = torch.randint(FILLER, FILLER + MANY, (SEGMENTS, SIZE), generator=generator)
    values = torch.randint(VALUES, (2,), generator=generator)
    which = torch.randint(2, (SEGMENTS,), generator=generator)
    words[:, 0], words[:, 1] = CLS, WHICH + which
    words[0, 1:3] = VALUE + values
    labels = torch.full((SEGMENTS, SIZE), -100)
    labels[1:, 0] = values[which[1:]]
    return {"input_ids": words.flatten(), "labels": labels.flatten()}


@torch.no_grad()
def accuracy(model):
    """Share of right labels in documents that were not trained on."""
    batch = Examples(document, 256, seed=10_001).batch(256)
    has_label = batch["labels"] != -100
    right = model(batch["input_ids"]).logits.argmax(-1) == batch["labels"]
    return right[has_label].float().mean().item()


def main(seed=0):
    claim = Claim("hibert", "Chalkidis et al. 2022")
    found = {}
    for name, layout in (("segments and documents", "SD"), ("segments alone", "SS")):
        torch.manual_seed(seed)
        model = hf_zoo.create_model("hibert-tiny", "token-classification", layout=layout, **OPTIONS)
        losses = train(model, document, steps=STEPS, learning_rate=3e-3, batch_size=32, seed=seed + 1)
        claim.draw("loss", name, range(10, STEPS + 1, 10), losses)
        found[name.replace(" ", "_")] = accuracy(model)
    claim.compare(
        "facts of two segments are joined where a block over documents reads them; segments alone are at chance",
        found["segments_and_documents"] > 0.95 and found["segments_alone"] < 1.2 / VALUES,
        **found,
    )
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
