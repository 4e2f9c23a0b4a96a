"""Longformer uses evidence 4,000 tokens away, where a BERT cut to 512 tokens is at chance.

Beltagy et al. 2020, sections 1 and 6: long documents need no truncation, and global tokens carry what was found. Two
signs stand at the start of 4,096 tokens and a question at their end asks for one: that one is the label. Without the
question, the better of two guesses is right half of the time.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

LENGTH, SHORT, PART = 4096, 512, 128  # tokens of a text, of what the rival sees, of the parts that say something
KINDS, MANY, FILLER = 4, 40, 16  # signs of a kind; how often each stands there; words that mean nothing
CLS, FIRST = 5, 8
SIZES = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    **{"vocab_size": FIRST + 2 * KINDS + 2 + FILLER, "hidden_dropout": 0.0, "attention_dropout": 0.0},
    **{"block_layout": "pre", "num_labels": 2 * KINDS},
}
LEARNING = {"learning_rate": 3e-3, "batch_size": 4}


def example(generator):
    """Two signs, a long text that means nothing, and at its end which of the two is asked for."""
    signs = torch.randint(KINDS, (2,), generator=generator) + torch.tensor([0, KINDS])
    asked = int(torch.randint(2, (), generator=generator))
    text = torch.randint(FIRST + 2 * KINDS + 2, SIZES["vocab_size"], (LENGTH,), generator=generator)
    places = 1 + torch.randperm(PART - 1, generator=generator)[: 2 * MANY]
    text[places] = FIRST + signs.repeat(MANY)
    text[LENGTH - PART + torch.randperm(PART, generator=generator)[:MANY]] = FIRST + 2 * KINDS + asked
    text[0] = CLS
    return {"input_ids": text, "labels": signs[asked]}


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
        f"{name} answers from evidence 4,000 tokens apart, where a BERT of 512 can only guess which is asked for",
        far > 0.9 and near < 0.6,
        **{name.lower(): far, "bert_512": near},
    )
    claim.finish()


if __name__ == "__main__":
    run(Claim("longformer", "Beltagy et al. 2020"), "Longformer", "longformer-tiny", steps=200, attention_window=64)
