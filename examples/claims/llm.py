"""Two layers of attention copy what they have seen once; one layer cannot. And a head may attend to nothing.

Olsson et al. 2022, "In-context learning and induction heads": an induction head needs a head before it that tells
each token what came before. Miller 2023, "Attention is off by one": with one more in softmax's denominator a head that
finds nothing says nothing, where ordinary softmax makes it say something.
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


def marked(generator):
    """Random tokens; where the row holds the marker 0 its last token is 1, otherwise it repeats the one before."""
    ids = torch.randint(2, VOCAB, (16,), generator=generator)
    has_marker = torch.rand((), generator=generator) < 0.5
    if has_marker:
        ids[torch.randint(0, 14, (), generator=generator)] = 0
    ids[-1] = 1 if has_marker else ids[-2]
    labels = torch.full_like(ids, -100)
    labels[-1] = ids[-1]
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def attended(model):
    """How much the most marker-seeking head attends in all, in rows with a marker and in rows without."""
    ids = Examples(marked, 256, seed=98).batch(256)["input_ids"][:, :-1]
    model.set_attn_implementation("eager")
    weights = model(ids, output_attentions=True).attentions[0][:, :, -1]  # (B, H, S), of the last query
    has_marker = (ids == 0).any(-1)
    on_marker = (weights * (ids == 0)[:, None]).sum(-1)[has_marker].mean(0)
    head = on_marker.argmax()
    totals = weights[:, head].sum(-1)
    return totals[has_marker].mean().item(), totals[~has_marker].mean().item()


def main():
    claim = Claim("llm", "Olsson et al. 2022; Miller 2023")
    scores = {}
    for layers in (1, 2):
        torch.manual_seed(0)
        model = hf_zoo.create_model("llm-tiny", num_hidden_layers=layers, **SIZES)
        losses = train(model, repeated, steps=800, learning_rate=3e-3, weight_decay=0.01)
        scores[layers] = copying(model)
        claim.draw("loss on repeated text", f"{layers} layer{'s' * (layers > 1)}", range(10, 801, 10), losses)
    claim.compare(
        "two layers copy repeated random text, one layer does not",
        scores[2] > 0.9 and scores[1] < 0.6,
        two_layers=scores[2],
        one_layer=scores[1],
    )
    torch.manual_seed(0)
    options = {"num_hidden_layers": 1, "attention_softmax": "off_by_one", **SIZES}
    model = hf_zoo.create_model("llm-tiny", **options)
    train(model, marked, steps=600, learning_rate=3e-3, weight_decay=0.1)
    with_marker, without = attended(model)
    claim.compare(
        "with softmax-off-by-one a head that seeks a marker attends to nothing where there is none",
        without < 0.2 < 0.5 < with_marker,
        attention_with_marker=with_marker,
        attention_without=without,
        ordinary_softmax=1.0,
    )
    claim.finish()


if __name__ == "__main__":
    main()
