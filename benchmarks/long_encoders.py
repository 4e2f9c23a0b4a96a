"""zoo_longformer and zoo_bigbird against transformers' classes on the same weights, and how their time grows.

Classification of one row: a training step and inference, without dropout and with upstream's.

    python benchmarks/long_encoders.py
"""

import argparse
import logging
import tempfile

import torch
from paired import growth, keep_memory, report, speed_up
from transformers import (
    BigBirdConfig,
    BigBirdForSequenceClassification,
    LongformerConfig,
    LongformerForSequenceClassification,
)

import hf_zoo
from hf_zoo.registry import ARCHITECTURES

SIZES = {
    **{"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 1024},
    **{"vocab_size": 1024, "max_position_embeddings": 16386},
}
RIVALS = {
    "longformer": lambda **options: LongformerForSequenceClassification(LongformerConfig(**SIZES, **options)),
    "bigbird": lambda **options: BigBirdForSequenceClassification(BigBirdConfig(**SIZES, **options)),
}


def pair(name, dropout):
    """Ours and upstream's, with the same weights."""
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    rival = RIVALS[name](**rates)
    with tempfile.TemporaryDirectory() as folder:
        rival.save_pretrained(folder)
        ours = ARCHITECTURES[f"zoo_{name}"].model_class("sequence-classification").from_pretrained(folder)
    return ours, rival


def inputs(tokens):
    """One row."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(5, SIZES["vocab_size"], (1, tokens), generator=generator)


def train_step(model, tokens):
    """Forward and backward, as a function of nothing."""
    ids, labels = inputs(tokens), torch.zeros(1, dtype=torch.long)

    def run():
        model.train()
        model.zero_grad()
        model(ids, labels=labels).loss.backward()

    return run


def inference(model, tokens):
    """Forward alone, as a function of nothing."""
    ids = inputs(tokens)

    @torch.no_grad()
    def run():
        model.eval()
        model(ids)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--rivals-at", type=int, default=4096)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)

    rows, notes = [], []
    for name in RIVALS:
        for dropout in (0.0, 0.1):
            ours, rival = pair(name, dropout)
            row = {"model": name, "tokens": args.rivals_at, "dropout": dropout}
            for work in (train_step, inference):
                label = work.__name__.replace("_", " ")
                row[label] = speed_up(work(ours, args.rivals_at), work(rival, args.rivals_at), args.pairs)[0]
            rows.append(row)
    keep_memory()
    for name in RIVALS:
        ours, _ = pair(name, 0.0)
        times = {work: [] for work in (train_step, inference)}
        for tokens in args.lengths:
            for work, own in times.items():
                own.append(speed_up(work(ours, tokens), work(ours, args.lengths[0]), args.pairs)[1])
        powers = [growth(args.lengths, own) for own in times.values()]
        notes.append(f"{name}: a training step grows as length^{powers[0]:.2f}, inference as length^{powers[1]:.2f}")
    report(
        "long_encoders",
        rows,
        f"speed-up against transformers' class on the same weights; {'; '.join(notes)}, in kept memory",
    )


if __name__ == "__main__":
    hf_zoo.register()
    main()
