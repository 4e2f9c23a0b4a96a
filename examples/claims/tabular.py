"""A transformer over columns is level with gradient boosting on real tables.

Gorishniy et al. 2021, table 4: on eleven tables FT-Transformer and gradient boosting win about as often. Here three
tables that scikit-learn ships, with scikit-learn's boosting at its defaults, which gives the same trees at every seed.
"""

import statistics

import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.tokenization.tabular_processor import ZooTabularProcessor

# table -> optimiser steps; the same model and learning rate for all
STEPS = {"wine": 200, "breast-cancer": 400, "digits": 500}
SEEDS = (0, 1, 2)


def boosted(train_rows, test_rows):
    """Accuracy of scikit-learn's histogram gradient boosting."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(random_state=0)
    model.fit(train_rows["numeric_values"].numpy(), train_rows["labels"].numpy())
    return model.score(test_rows["numeric_values"].numpy(), test_rows["labels"].numpy())


@torch.no_grad()
def accuracy(model, rows):
    return (model(rows["numeric_values"]).logits.argmax(-1) == rows["labels"]).float().mean().item()


def main():
    claim = Claim("tabular", "Gorishniy et al. 2021")
    wins = {}
    for table, steps in STEPS.items():
        rows = load_dataset(f"table-{table}", "train")
        processor = ZooTabularProcessor.fit(rows, target="label")
        train_rows, test_rows = processor(rows), processor(load_dataset(f"table-{table}", "validation+test"))

        def draw(generator, rows=train_rows):
            row = int(torch.randint(len(rows["labels"]), (), generator=generator))
            return {name: values[row] for name, values in rows.items()}

        scores = []
        for seed in SEEDS:
            torch.manual_seed(seed)
            rates = {"attention_dropout": 0.1, "mlp_dropout": 0.1}
            model = hf_zoo.create_model("tabular-tiny", **processor.config_fields(), **rates)
            losses = train(model, draw, steps, learning_rate=1e-3, weight_decay=1e-5, seed=seed + 1)
            scores.append(accuracy(model, test_rows))
        claim.draw("training loss", table, range(10, steps + 1, 10), losses)
        ours, rival = statistics.mean(scores), boosted(train_rows, test_rows)
        wins[table] = ours - rival
        claim.compare(
            f"on {table}, within one point of gradient boosting or above it, the mean of three seeds",
            ours >= rival - 0.01,
            ft_transformer=ours,
            worst_seed=min(scores),
            gradient_boosting=rival,
            test_rows=len(test_rows["labels"]),
        )
    claim.compare(
        "above gradient boosting on at least one of the tables",
        max(wins.values()) > 0,
        **{f"ahead_on_{table.replace('-', '_')}": win for table, win in wins.items()},
    )
    claim.finish()


if __name__ == "__main__":
    main()
