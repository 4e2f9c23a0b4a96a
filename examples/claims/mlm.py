"""A masked language model recalls what stands to the right; a causal model of the same size cannot.

Devlin et al. 2018, section 3.1: "deep bidirectional representations" from both contexts, against left-to-right models.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

KEYS, VALUES, PAIRS, MASK = 16, 16, 6, 4
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 5 + KEYS + VALUES}


def recall(generator):
    """Pairs of key and value, each written twice; of each pair one value is masked, in its first or second place."""
    keys = torch.randperm(KEYS, generator=generator)[:PAIRS] + 5
    values = torch.randint(0, VALUES, (PAIRS,), generator=generator) + 5 + KEYS
    first = torch.stack((keys, values), dim=1)
    second = first[torch.randperm(PAIRS, generator=generator)]
    text = torch.cat((first, second)).flatten()
    labels = torch.full_like(text, -100)
    in_first = torch.rand(PAIRS, generator=generator) < 0.5
    for key, is_first in zip(keys, in_first, strict=True):
        places = (text == key).nonzero().flatten() + 1
        place = places[0 if is_first else 1]
        labels[place] = text[place]
    return {"input_ids": text.masked_fill(labels != -100, MASK), "labels": labels}


@torch.no_grad()
def recalled(model):
    """Share of masked values that are right, among those whose twin stands to the right and to the left."""
    batch = Examples(recall, 512, seed=99).batch(512)
    right = model(batch["input_ids"]).logits.argmax(-1) == batch["labels"]
    masked, half = batch["labels"] != -100, 2 * PAIRS
    twin_right, twin_left = masked.clone(), masked.clone()
    twin_right[:, half:], twin_left[:, :half] = False, False
    return right[twin_right].float().mean().item(), right[twin_left].float().mean().item()


def shifted(generator):
    """The same text for a causal model, which predicts at each place the token of the next."""
    example = recall(generator)
    labels = torch.cat((torch.tensor([-100]), example["labels"][:-1]))
    return {"input_ids": example["input_ids"], "labels": labels}


def main():
    claim = Claim("mlm", "Devlin et al. 2018")
    torch.manual_seed(0)
    model = hf_zoo.create_model("mlm-tiny", hidden_dropout=0.0, attention_dropout=0.0, **SIZES)
    losses = train(model, recall, steps=1500, learning_rate=1e-3)
    claim.draw("loss on masked values", "masked LM", range(10, 1501, 10), losses)
    right, left = recalled(model)

    torch.manual_seed(0)
    rival = hf_zoo.create_model("llm-tiny", intermediate_size=256, num_key_value_heads=4, **SIZES)
    losses = train(rival, shifted, steps=1500, learning_rate=1e-3)
    claim.draw("loss on masked values", "causal LM", range(10, 1501, 10), losses)
    rival_right, rival_left = recalled(rival)
    claim.compare(
        "values whose twin stands to the right are recalled by the masked model alone",
        right > 0.9 and rival_right < 0.3,
        masked_lm=right,
        causal_lm=rival_right,
    )
    claim.compare(
        "both recall values whose twin stands to the left",
        left > 0.9 and rival_left > 0.7,
        masked_lm=left,
        causal_lm=rival_left,
    )
    claim.finish()


if __name__ == "__main__":
    main()
