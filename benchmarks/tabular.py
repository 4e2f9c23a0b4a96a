"""zoo_tabular beside torch's own TransformerEncoder of the same sizes; transformers has no model of tables.

Both read the same tokens of columns. Torch's has pre-norm blocks with a plain ReLU network of as many weights as the
gated one has, and fused kernels in evaluation.

    python benchmarks/tabular.py
"""

import argparse

import torch
from paired import report, speed_up
from torch import nn

import hf_zoo


def models(columns, dropout):
    """Ours, and torch's blocks behind our tokens."""
    torch.manual_seed(0)
    rates = {"attention_dropout": dropout, "mlp_dropout": dropout}
    ours = hf_zoo.create_model("ft-transformer-3", num_numeric_columns=columns, **rates)
    size, heads = ours.config.hidden_size, ours.config.num_attention_heads
    width = ours.config.intermediate_size * 3 // 2
    block = nn.TransformerEncoderLayer(size, heads, width, dropout, batch_first=True, norm_first=True)
    rival = nn.TransformerEncoder(block, ours.config.num_hidden_layers, nn.LayerNorm(size), enable_nested_tensor=False)
    head = nn.Linear(size, 2)

    def theirs(values):
        trunk = ours.model
        x = torch.cat((trunk.cls_token.expand(len(values), 1, -1), trunk.embed_columns(values, None)), dim=1)
        return head(rival(x)[:, 0].relu())

    return ours, rival, lambda values: ours(values).logits, theirs


def train_step(module, forward, values, labels):
    """Forward and backward."""

    def run():
        module.train()
        module.zero_grad()
        nn.functional.cross_entropy(forward(values), labels).backward()

    return run


def prediction(module, forward, values):
    """Forward alone."""

    @torch.no_grad()
    def run():
        module.eval()
        forward(values)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--columns", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--rows", type=int, default=128)
    args = parser.parse_args()
    rows = []
    for columns in args.columns:
        values, labels = torch.randn(args.rows, columns), torch.arange(args.rows) % 2
        row = {"columns": columns}
        for dropout in (0.0, 0.2):
            ours, rival, forward, theirs = models(columns, dropout)
            steps = (train_step(m, f, values, labels) for m, f in ((ours, forward), (rival, theirs)))
            row[f"speed-up of a training step, dropout {dropout}"] = speed_up(*steps, args.pairs)[0]
        predictions = (prediction(m, f, values) for m, f in ((ours, forward), (rival, theirs)))
        row["speed-up of prediction"] = speed_up(*predictions, args.pairs)[0]
        rows.append(row)
    report("tabular", rows, "medians of paired runs against torch's TransformerEncoder on the same tokens")


if __name__ == "__main__":
    hf_zoo.register()
    main()
