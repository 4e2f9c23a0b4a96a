"""Heads that exchange what they hold find the item whose two keys match each other; independent heads hardly do.

Items are tokens of another modality with two keys and a value; in one of them the keys are equal, and its value is
asked for. One layer of linear latents: scores of independent heads are sums over the keys, and a sum does not tell
whether two match. The interaction multiplies what two heads hold of the same token.
"""

import torch
from torch import nn
from torch.nn import functional as F

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

KEYS, VALUES, ITEMS = 8, 8, 8
ASK = VALUES  # the id that asks; those before it are the values
WIDTH = 2 * KEYS + VALUES
SIZES = {
    **{"vocab_size": VALUES + 2, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1},
    **{"num_attention_heads": 4, "latent_dim": 16, "interaction_rank": 8, "latent_norm": False},
    **{"positions": "none", "modalities": {"item": WIDTH}, "align_weight": 0.0, "pad_token_id": None},
}
STEPS = 600


def conjunction(generator):
    """Items (ITEMS, WIDTH) as three one-hot codes; in one the keys match. Then the question, and its answer."""
    first = torch.randint(KEYS, (ITEMS,), generator=generator)
    other = torch.randint(1, KEYS, (ITEMS,), generator=generator)
    wanted = int(torch.randint(ITEMS, (), generator=generator))
    other[wanted] = 0
    values = torch.randint(VALUES, (ITEMS,), generator=generator)
    codes = ((first, KEYS), ((first + other) % KEYS, KEYS), (values, VALUES))
    items = torch.cat([F.one_hot(code, size) for code, size in codes], dim=-1).float()
    ids = torch.stack((torch.tensor(ASK), values[wanted]))
    return {"input_ids": ids, "labels": torch.stack((torch.tensor(-100), values[wanted])), "items": items}


class WithItems(nn.Module):
    """The model, with items before its text."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, items, labels=None):
        """input_ids (B, 2), items (B, ITEMS, WIDTH) -> the model's outputs."""
        return self.model(input_ids=input_ids, labels=labels, modality_inputs={"item": items}, use_cache=False)


def make(has_interaction):
    """One layer; items come in by a fixed orthogonal map, so that no length of a vector betrays a match."""
    torch.manual_seed(0)
    model = hf_zoo.create_model("latent-tiny", **SIZES, has_interaction=has_interaction)
    door = model.model.embed_modalities["item"].requires_grad_(False)
    with torch.no_grad():
        nn.init.orthogonal_(door.weight, gain=4.0)
        door.bias.zero_()
    return WithItems(model)


@torch.no_grad()
def accuracy(model):
    """Share of the questions that the model answers."""
    batch = Examples(conjunction, 1024, seed=99).batch(1024)
    guess = model(batch["input_ids"], batch["items"]).logits[:, 0].argmax(-1)
    return (guess == batch["labels"][:, 1]).float().mean().item()


def main():
    claim = Claim("latent", "this package's form of the idea")
    scores, counts = {}, {}
    for name, has_interaction in (("interaction", True), ("independent heads", False)):
        model = make(has_interaction)
        losses = train(model, conjunction, steps=STEPS, learning_rate=3e-3, batch_size=64)
        claim.draw("which keys match? loss", name, range(10, STEPS + 1, 10), losses)
        scores[name] = accuracy(model)
        counts[name] = sum(p.numel() for p in model.parameters())
    claim.compare(
        "with interaction one layer finds the item whose keys match, with independent heads it does not",
        scores["interaction"] > 0.8 and scores["independent heads"] < scores["interaction"] - 0.15,
        interaction=scores["interaction"],
        independent=scores["independent heads"],
        interaction_parameters=counts["interaction"],
        independent_parameters=counts["independent heads"],
    )
    claim.finish()


if __name__ == "__main__":
    main()
