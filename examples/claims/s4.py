"""A state space that starts as HiPPO classifies images read pixel by pixel, where a GRU of equal size stays behind.

Gu et al. 2021, section 4.2: sequential images. scikit-learn's 1,797 digits, enlarged from 8 x 8 to 32 x 32 pixels of
17 grey levels, are texts of 1,024 tokens; those held out are never trained on.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import SequenceClassifierOutput

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset

LEVELS, SIDE, CLASSES = 17, 32, 10
SIZES = {"vocab_size": LEVELS, "hidden_size": 64, "num_hidden_layers": 3, "state_size": 32, "pad_token_id": None}
STEPS, BATCH = 220, 32


class GRUClassifier(nn.Module):
    """The rival: embedding, two layers of GRU, a label read from the last state."""

    def __init__(self, size):
        super().__init__()
        self.embedding = nn.Embedding(LEVELS, size)
        self.gru = nn.GRU(size, size, num_layers=2, batch_first=True)
        self.score = nn.Linear(size, CLASSES)

    def forward(self, input_ids, labels=None):
        """input_ids (B, T) -> logits (B, classes), and the loss with labels (B,)."""
        logits = self.score(self.gru(self.embedding(input_ids))[0][:, -1])
        return SequenceClassifierOutput(None if labels is None else F.cross_entropy(logits, labels), logits)


def digits(split):
    """Pixels (images, 1024) as tokens from 0 to 16, row by row, and classes (images,)."""
    rows = load_dataset("table-digits", split)
    labels = torch.tensor(rows["label"])
    pixels = torch.tensor([list(row.values()) for row in rows.remove_columns("label")]).view(-1, 1, 8, 8)
    large = F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear")
    return large.round().long().flatten(1), labels


@torch.no_grad()
def accuracy(model, images, labels):
    """Share of the images that are named rightly."""
    model.eval()
    guesses = [model(part).logits.argmax(-1) for part in images.split(64)]
    return (torch.cat(guesses) == labels).float().mean().item()


def main():
    claim = Claim("s4", "Gu et al. 2021")
    images, labels = digits("train")
    held_out = digits("validation+test")

    def draw(generator):
        i = torch.randint(len(labels), (), generator=generator)
        return {"input_ids": images[i], "labels": labels[i]}

    scores, counts = {}, {}
    for name in ("S4", "GRU"):
        torch.manual_seed(0)
        model = GRUClassifier(64)
        if name == "S4":
            model = hf_zoo.create_model("s4-tiny", task="sequence-classification", num_labels=CLASSES, **SIZES)
        losses = train(model, draw, steps=STEPS, learning_rate=5e-3, batch_size=BATCH)
        claim.draw("digits as 1,024 pixels, loss", name, range(10, STEPS + 1, 10), losses)
        scores[name] = accuracy(model, *held_out)
        counts[name] = sum(p.numel() for p in model.parameters())
    claim.compare(
        "S4 reads digits from 1,024 pixels, a GRU of no fewer parameters does not after as many steps",
        scores["S4"] > 0.85 and scores["GRU"] < scores["S4"] - 0.3 and counts["GRU"] >= 0.9 * counts["S4"],
        S4=scores["S4"],
        GRU=scores["GRU"],
        S4_parameters=counts["S4"],
        GRU_parameters=counts["GRU"],
    )
    claim.finish()


if __name__ == "__main__":
    main()
