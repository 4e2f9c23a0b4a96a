"""zoo_mlm beside transformers' BertForMaskedLM on the same weights, with dropout and without.

Torch has no attention kernel with dropout for a CPU, so transformers' "sdpa" holds all scores there.

    python benchmarks/mlm.py
"""

import argparse
import logging

import torch
from paired import report, speed_up
from rivals import same_weights, train_step
from transformers import BertConfig, BertForMaskedLM

import hf_zoo

SIZES = {
    **{"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "max_position_embeddings": 4096},
}


def models(dropout):
    """Ours and upstream's, with the same weights."""
    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    rival = BertForMaskedLM(BertConfig(**SIZES, **rates))
    return same_weights("zoo_mlm", rival), rival


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows = []
    for dropout in (0.0, 0.1):
        ours, rival = models(dropout)
        for length in args.lengths:
            ratio, _, _ = speed_up(train_step(ours, length), train_step(rival, length), args.pairs)
            rows.append({"dropout": dropout, "tokens": length, "speed-up of a training step": ratio})
    report("mlm", rows, "medians of paired runs against BertForMaskedLM under sdpa")


if __name__ == "__main__":
    hf_zoo.register()
    main()
