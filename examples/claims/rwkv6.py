"""A decay that depends on the token copies what is strewn over noise; a constant one, as in RWKV-5, mixes it up.

Peng et al. 2024, section 4: RWKV-6 is RWKV-5 with shift and decay that depend on the token. Selective copying is the
task of Gu and Dao 2023, section 4.1.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

NOISE, TRIGGER, FIRST = 0, 1, 2  # ids; the symbols to remember start at FIRST
SYMBOLS, COPIED, LENGTH = 16, 4, 32
STEPS = 400
SIZES = {"vocab_size": FIRST + SYMBOLS, "hidden_size": 64, "num_hidden_layers": 2, "pad_token_id": None}


def copying(generator):
    """Symbols strewn over noise; then as many triggers, at which they are to be repeated in order."""
    symbols = torch.randint(FIRST, FIRST + SYMBOLS, (COPIED,), generator=generator)
    text = torch.full((LENGTH,), NOISE)
    text[torch.randperm(LENGTH, generator=generator)[:COPIED].sort().values] = symbols
    ids = torch.cat((text, torch.full((COPIED + 1,), TRIGGER)))
    labels = torch.full_like(ids, -100)
    labels[-COPIED:] = symbols  # position t predicts label t + 1
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def accuracy(model):
    """Share of the symbols that are repeated right."""
    batch = Examples(copying, 256, seed=99).batch(256)
    guess = model(batch["input_ids"], use_cache=False).logits[:, :-1].argmax(-1)
    return (guess == batch["labels"][:, 1:])[:, -COPIED:].float().mean().item()


def main():
    claim = Claim("rwkv6", "Peng et al. 2024")
    scores = {}
    for name, is_data_dependent in (("RWKV-6", True), ("RWKV-5", False)):
        torch.manual_seed(0)
        model = hf_zoo.create_model("rwkv6-tiny", **SIZES, is_data_dependent=is_data_dependent)
        losses = train(model, copying, steps=STEPS, learning_rate=5e-3, batch_size=32)
        claim.draw("selective copying, loss", name, range(10, STEPS + 1, 10), losses)
        scores[name] = accuracy(model)
    claim.compare(
        "RWKV-6 copies symbols strewn over noise, RWKV-5 of the same size does not in as many steps",
        scores["RWKV-6"] > 0.95 and scores["RWKV-5"] < 0.9,
        rwkv6=scores["RWKV-6"],
        rwkv5=scores["RWKV-5"],
    )
    claim.finish()


if __name__ == "__main__":
    main()
