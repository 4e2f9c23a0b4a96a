"""One layer of attention among five of Mamba recalls what six layers of attention do, with a quarter of their cache.

Lieber et al. 2024 (Jamba), https://arxiv.org/abs/2403.19887, section 6. Associative recall: tokens that hold a key and
a value each, then the keys in another order, each asking for its value. A stack of Mamba alone is trained beside them.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train

KEYS = VALUES = 64
PAIRS, LAYERS, WIDTH = 48, 6, 64
SIZES = {
    **{"vocab_size": VALUES, "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": LAYERS},
    **{"num_attention_heads": 2, "num_key_value_heads": 2},
    **{"pad_token_id": None, "bos_token_id": None, "eos_token_id": None},
}
STACKS = {
    "attention": ["full_attention"] * LAYERS,
    "hybrid": [*["mamba"] * 3, "full_attention", *["mamba"] * 2],
    "mamba": ["mamba"] * LAYERS,
}
STEPS = 300
_fixed = torch.Generator().manual_seed(5)
KEY_CODES, VALUE_CODES = (torch.randn(count, WIDTH, generator=_fixed) * 0.35 for count in (KEYS, VALUES))
QUESTION = torch.randn(WIDTH, generator=_fixed) * 0.35


def recall(generator, pairs=PAIRS):
    """Tokens of a key and a value, as the sum of two fixed codes; then keys with a mark, which ask for the values."""
    keys = torch.randperm(KEYS, generator=generator)[:pairs]
    values = torch.randint(VALUES, (pairs,), generator=generator)
    order = torch.randperm(pairs, generator=generator)
    embeds = torch.cat((KEY_CODES[keys] + VALUE_CODES[values], KEY_CODES[keys[order]] + QUESTION))
    labels = torch.full((2 * pairs,), -100)
    labels[pairs + 1 :] = values[order][:-1]  # position t predicts label t + 1
    return {"inputs_embeds": embeds, "labels": labels}


@torch.no_grad()
def accuracy(model, pairs):
    """Share of the values that the model recalls."""
    batch = Examples(lambda generator: recall(generator, pairs), 128, seed=99).batch(128)
    guess = model(inputs_embeds=batch["inputs_embeds"], use_cache=False).logits[:, :-1].argmax(-1)
    counted = batch["labels"][:, 1:] != -100
    return (guess == batch["labels"][:, 1:])[counted].float().mean().item()


@torch.no_grad()
def cache_size(model):
    """Numbers in the cache after a text of the task's length: keys, values and states."""
    cache = model(inputs_embeds=torch.zeros(1, 2 * PAIRS, WIDTH), use_cache=True).past_key_values
    held = []
    for layer in map(vars, cache.layers):
        held += [layer.get("keys"), layer.get("values")]
        held += [*layer.get("conv_states", {}).values(), *layer.get("recurrent_states", {}).values()]
    return sum(z.numel() for z in held if z is not None)


def main():
    claim = Claim("hybrid", "Lieber et al. 2024")
    recalled, held = {}, {}
    for name, layers in STACKS.items():
        torch.manual_seed(0)
        options = {"mamba": {"state_size": 4}} if "mamba" in layers else {}
        mlps = ["mlp" if kind == "full_attention" else "none" for kind in layers]
        model = hf_zoo.create_model("hybrid-tiny", **SIZES, layer_types=layers, mlp_types=mlps, options=options)
        losses = train(model, recall, steps=STEPS, learning_rate=3e-3)
        claim.draw(f"recall of {PAIRS} pairs, loss", name, range(10, STEPS + 1, 10), losses)
        recalled[name], held[name] = accuracy(model, PAIRS), cache_size(model)
    share = held["hybrid"] / held["attention"]
    claim.compare(
        f"the hybrid recalls {PAIRS} pairs as attention does, with less than a quarter of its cache",
        recalled["attention"] > 0.95 and recalled["hybrid"] > recalled["attention"] - 0.03 and share < 0.25,
        hybrid=recalled["hybrid"],
        attention=recalled["attention"],
        share_of_cache=share,
    )
    claim.compare(
        "a stack of Mamba alone does not",
        recalled["mamba"] < recalled["hybrid"] - 0.2,
        hybrid=recalled["hybrid"],
        mamba=recalled["mamba"],
    )
    claim.finish()


if __name__ == "__main__":
    main()
