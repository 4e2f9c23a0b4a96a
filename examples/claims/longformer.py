"""Longformer uses evidence 4,000 tokens away, where a BERT cut to 512 tokens is at chance.

Beltagy et al. 2020, sections 1 and 6: long documents need no truncation. The first token gives the label of a text;
what decides it stands in the last 128 of 4,096 tokens, and reaches the first through global attention alone.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

LENGTH, SHORT, PART = 4096, 512, 128  # tokens of a text, of what the rival sees, of the part that decides
KINDS, MANY, FILLER = 4, 40, 16  # kinds of signs; how often one stands there; words that mean nothing
CLS, FIRST = 5, 8
SIZES = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    **{"vocab_size": FIRST + KINDS + FILLER, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    **{"block_layout": "pre", "num_labels": KINDS},
}
LEARNING = {"learning_rate": 3e-3, "batch_size": 4}


def example(generator):
    """A long text that means nothing but for a sign among its last words, which is the label."""
    sign = torch.randint(KINDS, (), generator=generator)
    text = torch.randint(FIRST + KINDS, SIZES["vocab_size"], (LENGTH,), generator=generator)
    text[LENGTH - PART + torch.randperm(PART, generator=generator)[:MANY]] = FIRST + sign
    text[0] = CLS
    return {"input_ids": text, "labels": sign}


def cut(generator):
    """The same for a model of 512 positions, which sees the beginning."""
    return {**(whole := example(generator)), "input_ids": whole["input_ids"][:SHORT]}


@torch.no_grad()
def accuracy(model, draw):
    """Share of right labels on texts that were not trained on."""
    batch = Examples(draw, 256, seed=99).batch(256)
    parts = zip(batch["input_ids"].split(16), batch["labels"].split(16), strict=True)
    return sum((model(ids).logits.argmax(-1) == labels).sum().item() for ids, labels in parts) / 256


def run(claim, name, preset, steps, seed=0, **options):
    """Train the long model and its short rival, and compare."""
    shared = {"task": "sequence-classification", **SIZES}
    torch.manual_seed(seed)
    model = hf_zoo.create_model(preset, max_position_embeddings=LENGTH + 2, **options, **shared)
    losses = train(model, example, steps=steps, seed=seed + 1, **LEARNING)
    claim.draw("loss", name, range(10, steps + 1, 10), losses)
    torch.manual_seed(seed)
    rival = hf_zoo.create_model("mlm-tiny", max_position_embeddings=SHORT, **shared)
    losses = train(rival, cut, steps=steps, seed=seed + 1, **LEARNING)
    claim.draw("loss", "BERT, 512 tokens", range(10, steps + 1, 10), losses)
    far, near = accuracy(model, example), accuracy(rival, cut)
    claim.compare(
        f"{name} labels by evidence 4,000 tokens away, where a BERT of 512 tokens is at chance",
        far > 0.9 and near < 1.5 / KINDS,
        **{name.lower(): far, "bert_512": near},
    )
    claim.finish()


if __name__ == "__main__":
    run(Claim("longformer", "Beltagy et al. 2020"), "Longformer", "longformer-tiny", steps=160, attention_window=64)
