"""Linear attention recalls as much as its state holds; attention, whose memory grows with the text, recalls all.

Katharopoulos et al. 2020, section 3.3: the past is a matrix with a row for each feature. Keys that are to be told
apart in it can hardly outnumber its rows, which associative recall shows: pairs of a key and a value, then keys, whose
value is asked for. The feature map alone makes the state larger, with not one weight more (Arora et al. 2024, "Simple
linear attention language models balance the recall-throughput tradeoff", https://arxiv.org/abs/2402.18668).
"""

import sys

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

KEYS, VALUES, ASKED, HEAD = 128, 16, 32, 8
PAIRS = (2, 8, 32, 128)
LENGTH = max(PAIRS) + ASKED + 1
SIZES = {
    **{"vocab_size": KEYS, "type_vocab_size": 1 + VALUES, "hidden_size": 64, "intermediate_size": 128},
    **{"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": HEAD},
    **{"positions": "none", "pad_token_id": None, "num_hidden_layers": 1, "initializer_range": 0.1},
}
MODELS = {  # name -> token mixer, feature map
    "small state": ("linear_attention", "elu1"),
    "large state": ("linear_attention", "taylor2"),
    "full attention": ("full_attention", "elu1"),
}


def recall(generator, pairs=None):
    """Distinct keys, each with a random value as its type; then some of the keys without, whose value is the label."""
    pairs = PAIRS[int(torch.randint(len(PAIRS), (), generator=generator))] if pairs is None else pairs
    keys = torch.randperm(KEYS, generator=generator)[:pairs]
    values = torch.randint(1, 1 + VALUES, (pairs,), generator=generator)
    asked = torch.randint(pairs, (ASKED,), generator=generator)
    ids, types, labels = (torch.full((LENGTH,), value) for value in (0, 0, -100))
    start = LENGTH - pairs - ASKED - 1
    ids[start:-1] = torch.cat((keys, keys[asked]))
    types[start : start + pairs] = values
    labels[-ASKED:] = values[asked]  # position t predicts label t + 1
    mask = (torch.arange(LENGTH) >= start).long()
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask, "labels": labels}


@torch.no_grad()
def accuracy(model, pairs):
    """Share of values that are recalled."""
    batch = Examples(lambda generator: recall(generator, pairs), 128, seed=99).batch(128)
    guess = model(**batch, use_cache=False).logits[:, :-1].argmax(-1)
    counted = batch["labels"][:, 1:] != -100
    return (guess == batch["labels"][:, 1:])[counted].float().mean().item()


def main():
    claim = Claim("slm", "Katharopoulos et al. 2020")
    scores, steps, seed = {}, 400, int(sys.argv[1]) if len(sys.argv) > 1 else 0
    for name, (mixer, feature_map) in MODELS.items():
        torch.manual_seed(seed)
        model = hf_zoo.create_model("slm-tiny", **SIZES, layer_types=[mixer], feature_map=feature_map)
        losses = train(  # types are no argument of a decoder's head, but of what it passes on
            model, recall, steps=steps, learning_rate=5e-3, seed=seed + 1, remove_unused_columns=False
        )
        claim.draw("associative recall, loss", name, range(10, steps + 1, 10), losses)
        scores[name] = [accuracy(model, pairs) for pairs in PAIRS]
        claim.draw("share recalled, by pairs", name, PAIRS, scores[name])
    small, large, full = scores.values()
    claim.compare(
        f"linear attention with {HEAD} features recalls most of 2 pairs, and little of {PAIRS[-2]}",
        small[0] > 0.7 and small[-2] < 0.4,
        pairs_2=small[0],
        pairs_32=small[-2],
    )
    claim.compare(
        f"with {1 + HEAD + HEAD**2} features it recalls {PAIRS[1]} pairs, and little of {PAIRS[-1]}",
        large[1] > 0.9 and large[-1] < 0.6,
        pairs_8=large[1],
        pairs_128=large[-1],
    )
    claim.compare(
        f"the larger state moves the limit: at {PAIRS[-2]} pairs it recalls far more",
        large[-2] > small[-2] + 0.25,
        features_73=large[-2],
        features_8=small[-2],
    )
    claim.compare(
        "full attention recalls any number of pairs",
        min(full) > 0.97,
        pairs_2=full[0],
        pairs_128=full[-1],
    )
    claim.finish()


if __name__ == "__main__":
    main()
