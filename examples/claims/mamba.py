"""A selective state space copies what matters and forgets what does not, far beyond the length it was trained on.

Gu and Dao 2023, section 4.1: selective copying and induction heads, which a time-invariant state space, whose dt, B
and C do not depend on the token, cannot do.
"""

import torch
from torch import nn

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

NOISE, TRIGGER, FIRST = 0, 1, 2  # ids; the symbols to remember start at FIRST
SYMBOLS = 16
COPIED, COPY_LENGTH = 4, 48
INDUCTION_LENGTH = 256
SIZES = {"vocab_size": FIRST + SYMBOLS, "hidden_size": 64, "num_hidden_layers": 2, "pad_token_id": None}


class Constant(nn.Module):
    """In place of a projection: the same numbers for every token, learnt."""

    def __init__(self, size):
        super().__init__()
        self.value = nn.Parameter(torch.randn(size))

    def forward(self, x):
        """x (B, T, ...) -> (B, T, size)."""
        return self.value.expand(*x.shape[:2], -1)


def make(is_selective):
    """Two layers of Mamba, some channels of which start slow; the ablation's dt, B and C are constants."""
    torch.manual_seed(0)
    model = hf_zoo.create_model("mamba-tiny", **SIZES)
    for block in model.model.layers:
        block.mixer.initialise(dt_min=1e-4)
        if not is_selective:
            block.mixer.x_proj = Constant(block.mixer.x_proj.out_features)
    return model


def copying(generator):
    """Symbols strewn over noise; then as many triggers, at which they are to be repeated in order."""
    symbols = torch.randint(FIRST, FIRST + SYMBOLS, (COPIED,), generator=generator)
    text = torch.full((COPY_LENGTH,), NOISE)
    text[torch.randperm(COPY_LENGTH, generator=generator)[:COPIED].sort().values] = symbols
    ids = torch.cat((text, torch.full((COPIED + 1,), TRIGGER)))
    labels = torch.full_like(ids, -100)
    labels[-COPIED:] = symbols  # position t predicts label t + 1
    return {"input_ids": ids, "labels": labels}


def induction(generator, length=INDUCTION_LENGTH, is_test=False):
    """Random symbols; now and then a trigger with a new symbol after it. At each trigger the symbol that followed the
    one before is asked for: it must be held as long as it takes, and what it replaced forgotten.

    In a test all triggers but the last stand in the first eighth of the row."""
    ids = torch.randint(FIRST, FIRST + SYMBOLS, (length,), generator=generator)
    labels = torch.full_like(ids, -100)
    is_early = is_test or torch.rand((), generator=generator) < 0.5  # from crowded rows it learns what to do,
    count = 3 if is_early else int(torch.randint(3, 25, (), generator=generator))  # from these to hold on
    span = length // 8 if is_early else length - 4
    places = 2 * torch.randperm(span // 2, generator=generator)[:count].sort().values
    for before, place in zip([None, *places], [*places, torch.tensor(length - 2)], strict=False):
        ids[place] = TRIGGER
        if before is not None and (place == length - 2 or not is_test):
            labels[place + 1] = ids[before + 1]
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def accuracy(model, draw, rows):
    """Share of the labels that the model predicts."""
    right = total = 0
    examples = Examples(draw, rows, seed=99)
    for start in range(0, rows, 16):
        batch = [examples[i] for i in range(start, min(start + 16, rows))]
        ids, labels = (torch.stack([example[name] for example in batch]) for name in ("input_ids", "labels"))
        guess = model(ids, use_cache=False).logits[:, :-1].argmax(-1)
        counted = labels[:, 1:] != -100
        right += int((guess == labels[:, 1:])[counted].sum())
        total += int(counted.sum())
    return right / total


def main():
    claim = Claim("mamba", "Gu and Dao 2023")
    scores = {}
    for name, is_selective in (("selective", True), ("time-invariant", False)):
        model = make(is_selective)
        steps = 500
        losses = train(model, copying, steps=steps, learning_rate=5e-3, batch_size=64)
        claim.draw("selective copying, loss", name, range(10, steps + 1, 10), losses)
        copied = accuracy(model, copying, 256)

        model = make(is_selective)
        steps = 350
        train(model, induction, steps=steps, learning_rate=8e-3, batch_size=16)
        lengths = [256, 512, 1024, 2048, 4096]
        recalled = [accuracy(model, lambda g, n=n: induction(g, n, is_test=True), 64) for n in lengths]
        claim.draw("induction, trained on 256 tokens", name, lengths, recalled)
        scores[name] = copied, recalled

    (copied, recalled), (invariant_copied, invariant_recalled) = scores["selective"], scores["time-invariant"]
    claim.compare(
        "selection copies symbols strewn over noise, a time-invariant state space does not",
        copied > 0.95 and invariant_copied < 0.75,
        selective=copied,
        time_invariant=invariant_copied,
    )
    claim.compare(
        "induction learnt on 256 tokens holds on 4,096, which a time-invariant state space does not learn",
        min(recalled) > 0.9 and max(invariant_recalled) < 0.4,
        selective_256=recalled[0],
        selective_4096=recalled[-1],
        time_invariant_256=invariant_recalled[0],
    )
    claim.finish()


if __name__ == "__main__":
    main()
