"""Two layers of attention copy what they have seen once; one layer cannot.

Olsson et al. 2022, "In-context learning and induction heads": to copy, a head must find the token that came after the
last occurrence of the present one, and so needs a head before it that tells each token what came before it.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

VOCAB, LENGTH = 64, 64
SIZES = {"vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4}


def repeated(generator):
    """A random text whose second half repeats its first, from a random place on; learnt where it repeats."""
    period = int(torch.randint(LENGTH // 4, LENGTH // 2, (), generator=generator))
    text = torch.randint(0, VOCAB, (period,), generator=generator)
    ids = text.repeat(LENGTH // period + 1)[:LENGTH]
    labels = ids.clone()
    labels[: period + 1] = -100
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def copying(model):
    """Share of repeated tokens that are predicted."""
    batch = Examples(repeated, 256, seed=99).batch(256)
    guess = model(batch["input_ids"]).logits[:, :-1].argmax(-1)
    counted = batch["labels"][:, 1:] != -100
    return (guess == batch["labels"][:, 1:])[counted].float().mean().item()


def main():
    claim = Claim("llm", "Olsson et al. 2022")
    scores = {}
    for layers in (1, 2):
        torch.manual_seed(0)
        model = hf_zoo.create_model("llm-tiny", num_hidden_layers=layers, **SIZES)
        losses = train(model, repeated, steps=1000, learning_rate=3e-3, weight_decay=0.01)
        scores[layers] = copying(model)
        claim.draw("loss on repeated text", f"{layers} layer{'s' * (layers > 1)}", range(10, 1001, 10), losses)
    claim.compare(
        "two layers copy repeated random text, one layer does not",
        scores[2] > 0.9 and scores[1] < 0.6,
        two_layers=scores[2],
        one_layer=scores[1],
    )
    claim.finish()


if __name__ == "__main__":
    main()
