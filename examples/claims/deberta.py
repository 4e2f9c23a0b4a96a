"""What DeBERTa learns at some places of a text it can do at all others; BERT, which knows places, cannot.

He et al. 2020, section 3.1: attention sees how far tokens are apart, not where they stand. A text written twice stands
somewhere in a row of filler; of each symbol one of the two is masked. In training the text stands near either end of
the row, in the test in the middle, where no text ever stood.
"""

import sys

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

SYMBOLS, HALF, MASK, FILLER = 32, 8, 4, 5
LENGTH = 64
SEEN, UNSEEN = (*range(5), *range(44, 49)), tuple(range(20, 29))  # where the text starts
SIZES = {
    **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": FILLER + 1 + SYMBOLS},
    **{"max_position_embeddings": LENGTH, "hidden_dropout": 0.0, "attention_dropout": 0.0},
}
MODELS = {
    "DeBERTa": ("deberta-tiny", {"position_buckets": 0, "max_relative_positions": 16, "conv_kernel_size": 0}),
    "BERT": ("mlm-tiny", {}),
}


def recall(generator, starts=SEEN):
    """A random text twice, somewhere in filler; of each symbol one of the two is masked, the first or the second."""
    text = torch.randint(FILLER + 1, FILLER + 1 + SYMBOLS, (HALF,), generator=generator).repeat(2)
    in_first = torch.rand(HALF, generator=generator) < 0.5
    masked = torch.cat((in_first, ~in_first))
    start = starts[int(torch.randint(len(starts), (), generator=generator))]
    ids, labels = torch.full((LENGTH,), FILLER), torch.full((LENGTH,), -100)
    ids[start : start + 2 * HALF] = text.masked_fill(masked, MASK)
    labels[start : start + 2 * HALF] = text.masked_fill(~masked, -100)
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def accuracy(model, starts):
    """Share of masked symbols that are right."""
    batch = Examples(lambda generator: recall(generator, starts), 256, seed=99).batch(256)
    counted = batch["labels"] != -100
    return (model(batch["input_ids"]).logits.argmax(-1) == batch["labels"])[counted].float().mean().item()


def main():
    claim = Claim("deberta", "He et al. 2020")
    seen, unseen, steps, seed = {}, {}, 800, int(sys.argv[1]) if len(sys.argv) > 1 else 0
    for name, (preset, options) in MODELS.items():
        torch.manual_seed(seed)
        model = hf_zoo.create_model(preset, **SIZES, **options)
        losses = train(model, recall, steps=steps, learning_rate=2e-3, seed=seed + 1)
        claim.draw("loss on masked symbols", name, range(10, steps + 1, 10), losses)
        starts = range(0, LENGTH - 2 * HALF + 1, 4)
        claim.draw("share recalled, by place of the text", name, starts, [accuracy(model, (s,)) for s in starts])
        seen[name], unseen[name] = accuracy(model, SEEN), accuracy(model, UNSEEN)
    claim.compare("both recall where texts stood in training", min(seen.values()) > 0.9, **seen)
    claim.compare(
        "where none ever stood DeBERTa recalls as well, and BERT does not",
        unseen["DeBERTa"] > seen["DeBERTa"] - 0.05 and unseen["BERT"] < 0.5,
        **unseen,
    )
    claim.finish()


if __name__ == "__main__":
    main()
