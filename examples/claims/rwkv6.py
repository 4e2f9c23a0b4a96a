"""A decay that depends on the token holds a value for long and drops it at once; a constant one cannot do both.

Peng et al. 2024, section 4: RWKV-6 is RWKV-5 with shift and decay that depend on the token. The task is the induction
of Gu and Dao 2023, section 4.1, with several values in quick succession and a long wait for the last.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

TRIGGER, FIRST, SYMBOLS = 0, 1, 16  # ids; the symbols start at FIRST
LENGTH, TEST_LENGTHS = 128, [128, 256, 512]
STEPS = 200
SIZES = {"vocab_size": FIRST + SYMBOLS, "hidden_size": 64, "num_hidden_layers": 2, "pad_token_id": None}


def replaced(generator, length=LENGTH, is_test=False):
    """Random symbols; now and then a trigger, after which comes a new value. At each trigger the value that followed
    the trigger before is asked for.

    In a test six triggers stand in the first eighth of the row and one at its end, where alone is asked."""
    ids = torch.randint(FIRST, FIRST + SYMBOLS, (length,), generator=generator)
    labels = torch.full_like(ids, -100)
    is_early = is_test or torch.rand((), generator=generator) < 0.5  # from these rows it learns to hold on
    count = 6 if is_early else int(torch.randint(3, 25, (), generator=generator))  # from crowded ones to replace
    span = length // 8 if is_early else length - 4
    places = [int(place) for place in 2 * torch.randperm(span // 2, generator=generator)[:count].sort().values]
    places.append(length - 2)
    ids[places] = TRIGGER
    for before, place in zip(places, places[1:], strict=False):
        if place == length - 2 or not is_test:
            labels[place + 1] = ids[before + 1]  # position t predicts label t + 1
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def accuracy(model, length):
    """Share of rows of this length at whose end the last value is known."""
    batch = Examples(lambda generator: replaced(generator, length, is_test=True), 128, seed=99).batch(128)
    guess = model(batch["input_ids"], use_cache=False).logits[:, -2].argmax(-1)
    return (guess == batch["labels"][:, -1]).float().mean().item()


def main():
    claim = Claim("rwkv6", "Peng et al. 2024")
    scores = {}
    for name, is_data_dependent in (("RWKV-6", True), ("RWKV-5", False)):
        torch.manual_seed(0)
        model = hf_zoo.create_model("rwkv6-tiny", **SIZES, is_data_dependent=is_data_dependent)
        losses = train(model, replaced, steps=STEPS, learning_rate=8e-3, batch_size=16)
        claim.draw("loss", name, range(10, STEPS + 1, 10), losses)
        scores[name] = [accuracy(model, length) for length in TEST_LENGTHS]
        claim.draw(f"last value known, trained on {LENGTH}", name, TEST_LENGTHS, scores[name])
    claim.compare(
        "RWKV-6 holds the last of several values twice as long as in training, RWKV-5 loses it",
        scores["RWKV-6"][1] > 0.9 and scores["RWKV-5"][1] < 0.6,
        rwkv6=scores["RWKV-6"][1],
        rwkv5=scores["RWKV-5"][1],
        rwkv6_at_training_length=scores["RWKV-6"][0],
        rwkv5_at_training_length=scores["RWKV-5"][0],
    )
    claim.finish()


if __name__ == "__main__":
    main()
