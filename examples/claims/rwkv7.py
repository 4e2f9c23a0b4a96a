"""RWKV-7 follows a state at lengths it never saw; additive linear attention and softmax attention lose track.

Peng et al. 2025, the section on state tracking: composing permutations needs a memory whose transition is not
diagonal. Each token swaps two neighbours of three things, leaves them, or puts them back; at each the order so far is
asked for. Trained on 16 tokens, tested on 64 without putting back. A swap turns the memory over along one direction,
which needs in-context learning rates up to 2 (Grazzi et al. 2024); the published bound of 1 is shown beside it.
"""

from itertools import permutations

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

ORDERS = list(permutations(range(3)))
MOVES = [(0, 1, 2), (1, 0, 2), (0, 2, 1)]  # nothing, and the two swaps
RESET, FIRST = len(MOVES), len(MOVES) + 1  # ids; the orders, as labels, start at FIRST
AFTER = [[ORDERS.index(tuple(order[i] for i in move)) for order in ORDERS] for move in MOVES]
LENGTH, TEST_LENGTHS = 16, [16, 32, 48, 64]
STEPS = 1000
COMMON = {"vocab_size": FIRST + len(ORDERS), "hidden_size": 64, "pad_token_id": None}
SOFTMAX = {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 192}
MODELS = {  # the rivals have a layer more
    "RWKV-7, rates to 2": ("rwkv7-tiny", {"num_hidden_layers": 1, "head_size": 32, "rate_limit": 2.0}),
    "RWKV-7, rates to 1": ("rwkv7-tiny", {"num_hidden_layers": 1, "head_size": 32}),
    "RWKV-6": ("rwkv6-tiny", {"head_size": 32}),
    "softmax": ("llm-tiny", SOFTMAX),
}


def moves(generator, length=LENGTH, is_test=False):
    """Random moves, and after each the order so far, as the label of the position after."""
    ids = torch.randint(len(MOVES), (length + 1,), generator=generator)
    share = (0.5, 0.3, 0.15, 0.05)[int(torch.randint(4, (), generator=generator))]
    is_reset = torch.rand(length + 1, generator=generator) < share
    if not is_test:
        ids[is_reset] = RESET
    labels, order = torch.full_like(ids, -100), 0
    for t in range(length):
        order = 0 if ids[t] == RESET else AFTER[ids[t]][order]
        labels[t + 1] = FIRST + order  # position t predicts label t + 1
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def accuracy(model, length):
    """Share of right orders in the last quarter of rows of this length."""
    batch = Examples(lambda generator: moves(generator, length, is_test=True), 256, seed=99).batch(256)
    guess = model(batch["input_ids"], use_cache=False).logits[:, :-1].argmax(-1)
    return (guess == batch["labels"][:, 1:])[:, -(length // 4) :].float().mean().item()


def main():
    claim = Claim("rwkv7", "Peng et al. 2025")
    scores = {}
    for name, (preset, options) in MODELS.items():
        torch.manual_seed(0)
        model = hf_zoo.create_model(preset, **COMMON, **options)
        losses = train(model, moves, steps=STEPS, learning_rate=1e-2)
        claim.draw("loss", name, range(10, STEPS + 1, 10), losses)
        scores[name] = [accuracy(model, length) for length in TEST_LENGTHS]
        claim.draw(f"right orders, trained on {LENGTH}", name, TEST_LENGTHS, scores[name])
    reached = {name: values[-1] for name, values in scores.items()}
    claim.compare(
        "one layer of RWKV-7 follows swaps at four times its training length; two of RWKV-6 or attention do not",
        reached["RWKV-7, rates to 2"] > 0.9 and max(reached["RWKV-6"], reached["softmax"]) < 0.5,
        rwkv7=reached["RWKV-7, rates to 2"],
        rwkv7_rates_to_1=reached["RWKV-7, rates to 1"],
        rwkv6=reached["RWKV-6"],
        softmax=reached["softmax"],
    )
    claim.finish()


if __name__ == "__main__":
    main()
