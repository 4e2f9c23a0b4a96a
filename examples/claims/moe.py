"""Routed experts know more than a dense model that computes as much, if their load is balanced.

Fedus et al. 2021, sections 2.2 and 3: at equal computation a token, and equal steps, the Switch transformer has a
lower loss than the dense one; without the balance loss the router sends most tokens to a few experts.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train
from hf_zoo.training.expert_load import find_routers, load_entropy

KEYS, VALUES, FACTS = 64, 64, 12
SIZES = {
    **{"vocab_size": 2 * KEYS + VALUES, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": None},
}
SWITCH = {"router_type": "switch", "num_experts": 8, "num_experts_per_tok": 1}
UNBALANCED = {"router_aux_loss_coef": 0.0, "router_z_loss_coef": 0.0}
STEPS, STEPS_OF_COLLAPSE = 800, 300
TABLE = torch.randint(0, VALUES, (KEYS, KEYS), generator=torch.Generator().manual_seed(0))


def facts(generator):
    """Triples of two keys and the value that a table of 4,096 random facts gives them; the values are learnt."""
    keys = torch.randint(0, KEYS, (FACTS, 2), generator=generator)
    values = TABLE[keys[:, 0], keys[:, 1]]
    ids = torch.stack((keys[:, 0], KEYS + keys[:, 1], 2 * KEYS + values), dim=1).flatten()
    labels = ids.clone()
    labels[torch.arange(len(ids)) % 3 != 2] = -100
    return {"input_ids": ids, "labels": labels}


@torch.no_grad()
def measure(model):
    """Loss on values, and the load entropy over its maximum, of all layers together."""
    loads = []
    hooks = [r.register_forward_hook(lambda _, x, y: loads.append(y.experts.flatten())) for r in find_routers(model)]
    batch = Examples(facts, 256, seed=99).batch(256)
    loss = model(**batch).loss.item()
    for hook in hooks:
        hook.remove()
    entropies = [load_entropy(load.bincount(minlength=SWITCH["num_experts"]).float()) for load in loads]
    return loss, min(entropies, default=1.0)


def trained(name, steps, learning_rate, **options):
    """A model after so many steps, and its losses on the way."""
    torch.manual_seed(0)
    model = hf_zoo.create_model(name, **SIZES, **options)
    return model, train(model, facts, steps=steps, learning_rate=learning_rate, batch_size=32)


def main():
    claim = Claim("moe", "Fedus et al. 2021")
    found = {}
    for label, name, options in (("dense", "llm-tiny", {}), ("experts", "moe-tiny", SWITCH)):
        model, losses = trained(name, STEPS, 3e-3, **options)
        claim.draw("loss on 4,096 facts", label, range(10, STEPS + 1, 10), losses)
        found[label] = measure(model)
    claim.compare(
        "eight experts, of which each token uses one, know more than the dense model of equal active size",
        found["experts"][0] < 0.5 * found["dense"][0],
        experts=found["experts"][0],
        dense=found["dense"][0],
    )
    balanced = found["experts"][1]
    claim.compare("the load is even: entropy over its maximum", balanced > 0.9, balanced=balanced)
    # Steps three times as long, after which a router has made up its mind
    entropies = [measure(trained("moe-tiny", STEPS_OF_COLLAPSE, 1e-2, **SWITCH, **o)[0])[1] for o in ({}, UNBALANCED)]
    claim.compare(
        "with long steps the load stays even, and collapses without the balance loss",
        entropies[0] > 0.9 and entropies[1] < 0.7,
        with_balance=entropies[0],
        without=entropies[1],
    )
    claim.finish()


if __name__ == "__main__":
    main()
