"""A masked language model recalls what stands to the right; a causal model of the same size cannot.

Devlin et al. 2018, section 3.1: "deep bidirectional representations" from both contexts, against left-to-right models.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

SYMBOLS, HALF, MASK = 32, 12, 4
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 5 + SYMBOLS}


def recall(generator):
    """A random text written twice; of each symbol one of the two is masked, the first or the second."""
    text = torch.randint(5, 5 + SYMBOLS, (HALF,), generator=generator).repeat(2)
    in_first = torch.rand(HALF, generator=generator) < 0.5
    labels = text.masked_fill(~torch.cat((in_first, ~in_first)), -100)
    return {"input_ids": text.masked_fill(labels != -100, MASK), "labels": labels}


@torch.no_grad()
def recalled(model):
    """Share of masked symbols that are right, among those whose twin stands to the right and to the left."""
    batch = Examples(recall, 512, seed=99).batch(512)
    right = model(batch["input_ids"]).logits.argmax(-1) == batch["labels"]
    masked = batch["labels"] != -100
    halves = zip(right.split(HALF, dim=1), masked.split(HALF, dim=1), strict=True)
    return tuple(r[m].float().mean().item() for r, m in halves)


def shifted(generator):
    """The same text for a causal model, which is trained to predict at each place the label of the next."""
    example = recall(generator)
    labels = torch.cat((torch.tensor([-100]), example["labels"][:-1]))
    return {"input_ids": example["input_ids"], "labels": labels}


def main():
    claim = Claim("mlm", "Devlin et al. 2018")
    torch.manual_seed(0)
    model = hf_zoo.create_model("mlm-tiny", hidden_dropout=0.0, attention_dropout=0.0, **SIZES)
    losses = train(model, recall, steps=1200, learning_rate=2e-3)
    claim.draw("loss on masked symbols", "masked LM", range(10, 1201, 10), losses)
    right, left = recalled(model)

    torch.manual_seed(0)
    rival = hf_zoo.create_model("llm-tiny", intermediate_size=256, num_key_value_heads=4, **SIZES)
    losses = train(rival, shifted, steps=1200, learning_rate=2e-3)
    claim.draw("loss on masked symbols", "causal LM", range(10, 1201, 10), losses)
    rival_right, rival_left = recalled(rival)
    claim.compare(
        "symbols whose twin stands to the right are recalled by the masked model alone",
        right > 0.9 and rival_right < 0.3,
        masked_lm=right,
        causal_lm=rival_right,
    )
    claim.compare(
        "both recall symbols whose twin stands to the left",
        left > 0.9 and rival_left > 0.7,
        masked_lm=left,
        causal_lm=rival_left,
    )
    claim.finish()


if __name__ == "__main__":
    main()
