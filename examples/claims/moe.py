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
STEPS = 800
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


def main():
    claim = Claim("moe", "Fedus et al. 2021")
    makers = {
        "dense": lambda: hf_zoo.create_model("llm-tiny", **SIZES),
        "experts": lambda: hf_zoo.create_model("moe-tiny", **SIZES, **SWITCH),
        "experts, no balance": lambda: hf_zoo.create_model("moe-tiny", **SIZES, **SWITCH, **UNBALANCED),
    }
    found = {}
    for name, make in makers.items():
        torch.manual_seed(0)
        model = make()
        losses = train(model, facts, steps=STEPS, learning_rate=3e-3, batch_size=32)
        claim.draw("loss on 4,096 facts", name, range(10, STEPS + 1, 10), losses)
        found[name] = measure(model)
    (dense, _), (routed, balanced), (_, collapsed) = found.values()
    claim.compare(
        "eight experts, of which each token uses one, know more than the dense model of equal active size",
        routed < 0.5 * dense,
        experts=routed,
        dense=dense,
    )
    claim.compare("the balance loss keeps the load even: entropy over its maximum", balanced > 0.9, balanced=balanced)
    claim.compare(
        "without the balance loss the load collapses", collapsed < 0.75, without=collapsed, with_balance=balanced
    )
    claim.finish()


if __name__ == "__main__":
    main()
