"""A larger state recalls more: with N = 128 numbers a channel Mamba-2 answers what it cannot with N = 16.

Dao and Gu 2024, section 9.1: multi-query associative recall (Arora et al. 2023, https://arxiv.org/abs/2312.04927).
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

KEYS = VALUES = 32  # ids of keys come first, then those of values
FILL = KEYS + VALUES
PAIRS = 24
SIZES = {**{"vocab_size": FILL + 1, "hidden_size": 64, "num_hidden_layers": 1, "head_dim": 64}, "pad_token_id": None}


def recall(generator, most=PAIRS, pairs=None):
    """Keys, each with its value after it; then all keys again in another order, each asking for its value.

    Without a number of pairs there are from 2 to `most`, and before them what fills the row."""
    if pairs is None:
        pairs = int(torch.randint(2, most + 1, (), generator=generator))
    keys = torch.randperm(KEYS, generator=generator)[:pairs]
    values = KEYS + torch.randint(VALUES, (pairs,), generator=generator)
    order = torch.randperm(pairs, generator=generator)
    told = torch.stack((keys, values), dim=1)
    text = torch.cat((told, told[order])).flatten()
    ids = torch.full((4 * most,), FILL)
    ids[-len(text) :] = text
    labels = torch.full_like(ids, -100)
    labels[-2 * pairs + 1 :: 2] = values[order]  # position t predicts label t + 1
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def accuracy(model, pairs):
    """Share of the values that the model recalls."""
    batch = Examples(lambda generator: recall(generator, pairs=pairs), 128, seed=99).batch(128)
    guess = model(batch["input_ids"], use_cache=False).logits[:, :-1].argmax(-1)
    counted = batch["labels"][:, 1:] != -100
    return (guess == batch["labels"][:, 1:])[counted].float().mean().item()


def main():
    claim = Claim("mamba2", "Dao and Gu 2024")
    recalled = {}
    for state_size in (128, 16):
        torch.manual_seed(0)
        model = hf_zoo.create_model("mamba2-tiny", **SIZES, state_size=state_size)
        # from few pairs it learns what is asked, then from many to hold them
        train(model, lambda generator: recall(generator, most=6), steps=500, learning_rate=5e-3)
        losses = train(model, recall, steps=500, learning_rate=5e-3, seed=2)
        claim.draw(f"recall of 2 to {PAIRS} pairs, loss", f"N = {state_size}", range(10, 501, 10), losses)
        counts = [2, 4, 8, 16, PAIRS]
        scores = [accuracy(model, pairs) for pairs in counts]
        claim.draw("share recalled", f"N = {state_size}", counts, scores)
        recalled[state_size] = scores[-1]
    claim.compare(
        f"with N = 128 {PAIRS} pairs are recalled, with N = 16 a good part is lost",
        recalled[128] > 0.95 and recalled[16] < 0.85,
        N_128=recalled[128],
        N_16=recalled[16],
    )
    claim.finish()


if __name__ == "__main__":
    main()
