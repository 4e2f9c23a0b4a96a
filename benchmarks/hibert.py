"""zoo_hibert against a BERT of the same blocks with attention to the whole row, and how their time grows.

Classification of one row: a training step and inference; transformers' BertForSequenceClassification with sdpa, and
zoo_mlm. Three blocks over segments and one over documents stand against three, as twelve and four do in the paper.

    python benchmarks/hibert.py
"""

import argparse
import logging

import torch
from paired import growth, report, speed_up
from transformers import BertConfig, BertForSequenceClassification

import hf_zoo

SIZES = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "vocab_size": 1024}
MOST = 4096


def models():
    """Ours and its rivals by name, without dropout, for which torch has no fused attention on a CPU."""
    rates = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    theirs = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = {"task": "sequence-classification", **SIZES, **rates}
    blocks = {"num_hidden_layers": 3, "max_position_embeddings": MOST}
    return {
        "hibert": hf_zoo.create_model(
            "hibert-tiny",
            **{"layout": "SSSD", "num_hidden_layers": 4, "segment_size": 128, "max_position_embeddings": 128},
            **{"max_segments": MOST // 128, **options},
        ),
        "bert": BertForSequenceClassification(BertConfig(**SIZES, **blocks, **theirs)),
        "zoo_mlm": hf_zoo.create_model("mlm-tiny", **blocks, **options),
    }


def inputs(tokens):
    """One row."""
    return torch.randint(5, SIZES["vocab_size"], (1, tokens), generator=torch.Generator().manual_seed(0))


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
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--rivals-at", type=int, default=4096)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)

    rows, notes, every = [], [], models()
    for rival in ("bert", "zoo_mlm"):
        row = {"rival": rival, "tokens": args.rivals_at}
        for work in (train_step, inference):
            pair = (work(every[name], args.rivals_at) for name in ("hibert", rival))
            row[work.__name__.replace("_", " ")] = speed_up(*pair, args.pairs)[0]
        rows.append(row)
    for name in ("hibert", "bert"):
        first = inference(every[name], args.lengths[0])
        times = [speed_up(train_step(every[name], tokens), first, args.pairs)[1] for tokens in args.lengths]
        notes.append(f"{name}: a training step grows as length^{growth(args.lengths, times):.2f}")
    report(
        "hibert", rows, "speed-up of hibert (3 blocks S, 1 D) against full attention (3 blocks); " + "; ".join(notes)
    )


if __name__ == "__main__":
    hf_zoo.register()
    main()
