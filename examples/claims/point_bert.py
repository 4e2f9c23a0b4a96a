"""A transformer that has learnt to guess the words of hidden parts of solids needs fewer labels to name solids.

Yu et al. 2021, https://arxiv.org/abs/2111.14819, table 2 (few-shot learning): Point-BERT against the same transformer
from scratch. First a tokenizer learns words for groups of points, then the transformer guesses those of hidden groups,
both of clouds without labels; then five labelled clouds of each of nine solids are all there is. Both are tuned alike,
with clouds that are turned at random, and name clouds that were held out. Other labelled clouds are other figures, so
that the mean of three draws of them counts. The tokenizer's temperature stays 1.
"""

import statistics
import sys

import torch

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.modeling.point_bert.modeling_point_bert import ZooPointBertTokenizer

TOKENIZER_STEPS, STEPS, TUNING_STEPS = 300, 1500, 250
SHOTS, DRAWS = 5, 3
TURNS = 4  # of each cloud without a label
SIZES = {"num_points": 256, "num_groups": 32, "group_size": 16, "num_hidden_layers": 3}


def turned(points, generator):
    """points (N, 3), turned or mirrored at random."""
    return points @ torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]


def drawn_from(rows):
    """What draws one row of tensors that are as long as each other."""

    def draw(generator):
        i = int(torch.randint(len(rows["points"]), (), generator=generator))
        return {name: values[i] for name, values in rows.items()}

    return draw


@torch.no_grad()
def batched(function, points):
    """What a function says of clouds (B, N, 3), some at a time."""
    return torch.cat([function(some) for some in points.split(200)])


def pre_trained(clouds, seed):
    """Tokenizer and learner, trained on clouds without labels, and the losses of the learner."""
    generator = torch.Generator().manual_seed(seed)
    clouds = torch.stack([turned(cloud, generator) for cloud in clouds for _ in range(TURNS)])
    torch.manual_seed(seed)
    learner = hf_zoo.create_model("point-bert-tiny", "pre-training", **SIZES)
    tokenizer = ZooPointBertTokenizer(learner.config)
    train(tokenizer, drawn_from({"points": clouds}), TOKENIZER_STEPS, 2e-3, seed=seed + 1)
    rows = {"points": clouds, "labels": batched(tokenizer.tokenize, clouds)}
    return tokenizer, learner, train(learner, drawn_from(rows), STEPS, 1e-3, seed=seed + 1)


@torch.no_grad()
def guessed(tokenizer, learner, clouds):
    """Share of hidden words that the learner guesses, and the share of the commonest word."""
    torch.manual_seed(0)
    words, hidden = batched(tokenizer.tokenize, clouds), learner.draw_hidden_groups(clouds)
    right = learner(clouds, hidden).logits.argmax(-1) == words
    return right[hidden].float().mean().item(), (words == words.flatten().mode().values)[hidden].float().mean().item()


def tuned(model, rows, held_out, seed):
    """Accuracy on held-out clouds after training on a few."""

    def draw(generator):
        row = drawn_from(rows)(generator)
        return {**row, "points": turned(row["points"], generator)}

    train(model, draw, TUNING_STEPS, 1e-3, seed=seed + 1)
    logits = batched(lambda points: model(points).logits, held_out["points"])
    return (logits.argmax(-1) == held_out["label"]).float().mean().item()


def run(seed, claim=None):
    """Shares of hidden words, and for each draw of labelled clouds the accuracy pre-trained and from scratch."""
    solids = load_dataset("solids", points=SIZES["num_points"], each=400).with_format("torch")
    rows, validation, test = (solids[split][:] for split in ("train", "validation", "test"))
    held_out = {name: torch.cat((validation[name], test[name])) for name in ("points", "label")}
    tokenizer, learner, losses = pre_trained(rows["points"], seed)
    if claim is not None:
        claim.draw("loss on hidden words", "pre-training", range(10, STEPS + 1, 10), losses)
    shares = guessed(tokenizer, learner, held_out["points"])
    scores = {"pre_trained": [], "from_scratch": []}
    of_each = [(rows["label"] == label).nonzero()[:, 0] for label in range(9)]
    for draw in range(DRAWS):
        few = torch.cat([some[draw * SHOTS : (draw + 1) * SHOTS] for some in of_each])
        labelled = {"points": rows["points"][few], "labels": rows["label"][few]}
        for name, found in scores.items():
            torch.manual_seed(seed)
            model = hf_zoo.create_model("point-bert-tiny", num_labels=9, **SIZES)
            if name == "pre_trained":
                model.model.load_state_dict(learner.model.state_dict())
            found.append(tuned(model, labelled, held_out, seed))
        print(f"draw {draw}: {scores['pre_trained'][-1]:.3f}, {scores['from_scratch'][-1]:.3f}", flush=True)
    return shares, scores


def main(seed=0):
    claim = Claim("point_bert", "Yu et al. 2021")
    (guessed_share, commonest), scores = run(seed, claim)
    for name, found in scores.items():
        claim.draw("held-out accuracy, by draw of labelled clouds", name, range(1, DRAWS + 1), found)
    claim.compare(
        "hidden words of held-out clouds are guessed more often than the commonest word would be right",
        guessed_share > 1.2 * commonest,
        guessed=guessed_share,
        commonest=commonest,
    )
    means = {name: statistics.mean(found) for name, found in scores.items()}
    claim.compare(
        f"with {SHOTS} labels of each solid more held-out clouds are named than from scratch, in {DRAWS} draws",
        means["pre_trained"] > means["from_scratch"] + 0.02,
        **means,
    )
    claim.finish()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
