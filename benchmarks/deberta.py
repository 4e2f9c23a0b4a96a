"""zoo_deberta beside transformers' DeBERTa and DeBERTa-v2, with the same weights.

python benchmarks/deberta.py
"""

import argparse
import logging
import tempfile

import torch
from paired import report, speed_up
from rivals import train_step
from transformers import DebertaConfig, DebertaForMaskedLM, DebertaV2Config, DebertaV2ForMaskedLM

import hf_zoo
from hf_zoo.registry import ARCHITECTURES

SIZES = {
    **{"vocab_size": 1024, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4},
    **{"num_attention_heads": 4, "relative_attention": True, "position_biased_input": False},
}
VERSION_1 = {"pos_att_type": ["c2p", "p2c"]}
VERSION_3 = {
    **{"pos_att_type": ["p2c", "c2p"], "position_buckets": 256, "share_att_key": True},
    "norm_rel_ebd": "layer_norm",
}


def pairs():
    """Version -> ours and upstream's, with the same weights."""
    rivals = {
        "1": DebertaForMaskedLM(DebertaConfig(**SIZES, **VERSION_1)),
        "3": DebertaV2ForMaskedLM(DebertaV2Config(**SIZES, **VERSION_3)),
    }
    for version, rival in rivals.items():
        with tempfile.TemporaryDirectory() as folder:
            rival.save_pretrained(folder)
            yield version, ARCHITECTURES["zoo_deberta"].model_class("masked-lm").from_pretrained(folder), rival


def forward(model, tokens, rows):
    """Forward alone, as a function of nothing."""
    ids = torch.randint(0, SIZES["vocab_size"], (rows, tokens))

    @torch.no_grad()
    def run():
        model.eval()
        model(ids)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--pairs", type=int, default=9)
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)

    rows = []
    for version, model, rival in pairs():
        for length in args.lengths:
            batch = max(1, 1024 // length)
            row = {"version": version, "tokens": length, "rows": batch}
            for work, name in ((train_step, "train step"), (forward, "inference")):
                row[name], _, _ = speed_up(work(model, length, batch), work(rival, length, batch), args.pairs)
            rows.append(row)
    report("deberta", rows, "times faster than transformers' DebertaForMaskedLM and DebertaV2ForMaskedLM")


if __name__ == "__main__":
    hf_zoo.register()
    main()
