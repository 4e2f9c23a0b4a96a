"""RWKV-7 follows a state at lengths it never saw; additive linear attention and softmax attention lose track.

Peng et al. 2025, section 3 and appendix on state tracking: composing permutations, a word problem that is complete for
NC1, needs transitions that are not diagonal. Each token is a permutation of three things; at each the product of all
so far is asked for. Trained on 32 tokens, tested on 128.
"""

from itertools import permutations

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

GROUP = list(permutations(range(3)))
PRODUCT = torch.tensor([[GROUP.index(tuple(p[i] for i in q)) for q in GROUP] for p in GROUP])  # p after q
LENGTH, TEST_LENGTHS = 32, [16, 32, 64, 96, 128]
COMMON = {"vocab_size": 2 * len(GROUP), "hidden_size": 64, "pad_token_id": None}
RIVALS = {
    "RWKV-7": ("rwkv7-tiny", {}),
    "RWKV-6": ("rwkv6-tiny", {}),
    "softmax": ("llm-tiny", {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 192}),
}


def composed(generator, length=LENGTH):
    """Random permutations, and after each the product so far, as labels of the position after."""
    ids = torch.randint(len(GROUP), (length + 1,), generator=generator)
    labels = torch.empty_like(ids)
    labels[0] = -100
    product = 0
    for t in range(length):
        product = int(PRODUCT[ids[t], product])
        labels[t + 1] = len(GROUP) + product  # position t predicts label t + 1
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def accuracy(model, length):
    """Share of right products among the last quarter of a row."""
    batch = Examples(lambda generator: composed(generator, length), 128, seed=99).batch(128)
    guess = model(batch["input_ids"], use_cache=False).logits[:, :-1].argmax(-1)
    return (guess == batch["labels"][:, 1:])[:, -length // 4 :].float().mean().item()


def main():
    claim = Claim("rwkv7", "Peng et al. 2025")
    scores = {}
    for name, (preset, options) in RIVALS.items():
        torch.manual_seed(0)
        model = hf_zoo.create_model(preset, **COMMON, **options)
        losses = train(model, composed, steps=600, learning_rate=5e-3, batch_size=32)
        claim.draw("composing permutations, loss", name, range(10, 601, 10), losses)
        scores[name] = [accuracy(model, length) for length in TEST_LENGTHS]
        claim.draw("right products, trained on 32", name, TEST_LENGTHS, scores[name])
        print(name, sum(p.numel() for p in model.parameters()), scores[name])
    claim.compare(
        "RWKV-7 composes permutations at four times the length it was trained on; RWKV-6 and softmax attention do not",
        scores["RWKV-7"][-1] > 0.9 and max(scores["RWKV-6"][-1], scores["softmax"][-1]) < 0.5,
        rwkv7=scores["RWKV-7"][-1],
        rwkv6=scores["RWKV-6"][-1],
        softmax=scores["softmax"][-1],
    )
    claim.finish()


if __name__ == "__main__":
    main()
