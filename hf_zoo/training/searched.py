"""What a `zoo_lam` model learns from its own searches: to do at once what they found.

The shares of visits teach the policy, and what came of an episode the value (Silver et al. 2017,
https://arxiv.org/abs/1712.01815); both teach the world model along the acts that were taken (Schrittwieser et al.
2019, https://arxiv.org/abs/1911.08265).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from hf_zoo.modeling.lam.search import SearchOptions

Collator = Callable[[Sequence[Any]], dict[str, "Tensor"]]


def searched_episodes(
    model: "PreTrainedModel",
    environments: Sequence[Any],
    show: Callable[[Any], Any],
    collate: Collator,
    options: "SearchOptions",
    max_steps: int = 30,
    unroll: int = 5,
    generator: "torch.Generator | None" = None,
) -> list[dict[str, Any]]:
    """Play environments to their ends, each step as a search says; one row a step, for `SearchedCollator`.

    The acts are the tools that are shown, by number. Values are discounted sums of the rewards that came, and of what
    the search expects where an episode is given up.

    Args:
        model: a `ZooLamForCausalLM`, whose pointer and value guide the search.
        environments: each with `clone()` and `step(act) -> reward, done`; they are left as they are.
        show: what a row of the model's inputs is made of, from an environment.
        collate: such rows to inputs of the model, with `act_positions` and tools, as many for all.
        options: of the search; `noise` and `temperature` above 0 make it try more.
        max_steps: of an episode.
        unroll: steps that the world model is taught to foresee.
        generator: of noise and of acts that are drawn, on the CPU.
    """
    import torch

    from hf_zoo.modeling.lam.search import CopiedEnvironments, Judged, tree_search

    model.eval()

    def judge(states: list[Any]) -> Judged:
        outputs = model(**_on_device(collate([show(state) for state in states]), model))
        return Judged(outputs.tool_logits[:, :-1], outputs.value)

    games = [environment.clone() for environment in environments]
    episodes: list[list[dict[str, Any]]] = [[] for _ in games]
    going = list(range(len(games)))
    with torch.no_grad():
        for _ in range(max_steps):
            if not going:
                break
            tree = CopiedEnvironments([games[i].clone() for i in going], judge)
            found = tree_search(tree, tree.roots, options, generator)
            policy = found.policy.cpu()
            acts = (
                torch.multinomial(policy, 1, generator=generator)[:, 0] if options.temperature else policy.argmax(-1)
            )
            shares = (found.visits / found.visits.sum(-1, keepdim=True)).tolist()
            for row, (i, act) in enumerate(zip(going, acts.tolist(), strict=True)):
                step = {"shown": show(games[i]), "visits": shares[row], "expected": float(found.value[row])}
                reward, done = games[i].step(act)
                episodes[i].append({**step, "act": act, "reward": float(reward), "done": bool(done)})
            going = [i for i in going if not episodes[i][-1]["done"]]
    return [row for steps in episodes for row in _rows(steps, unroll, options.discount)]


def _rows(steps: list[dict[str, Any]], unroll: int, discount: float) -> list[dict[str, Any]]:
    """The rows of an episode. One that was given up teaches what was seen to the end of the unrolled steps alone."""
    has_end = steps[-1]["done"]
    played = steps if has_end else steps[:-1]  # the last state was searched, what followed was not
    values = [0.0 if has_end else steps[-1]["expected"]]
    for step in reversed(played):
        values.insert(0, step["reward"] + discount * values[0])
    nothing = [0.0] * len(steps[0]["visits"])
    rows = []
    for first in range(len(played) if has_end else len(played) - unroll + 1):
        taken = played[first : first + unroll]
        after = unroll - len(taken)  # steps after the end, which the loss leaves out
        visits = [step["visits"] for step in steps[first : first + unroll + 1]]
        seen = values[first : first + unroll + 1]
        rows.append(
            {
                "shown": steps[first]["shown"],
                "search_acts": [step["act"] for step in taken] + [0] * after,
                "search_visits": visits + [nothing] * (unroll + 1 - len(visits)),
                "search_values": seen + [0.0] * (unroll + 1 - len(seen)),
                "search_rewards": [step["reward"] for step in taken] + [0.0] * after,
                "search_done": [float(step["done"]) for step in taken] + [1.0] * after,
            }
        )
    return rows


def searched_decisions(
    model: "PreTrainedModel",
    shown: Sequence[Any],
    collate: Collator,
    generator: "torch.Generator | None" = None,
    **overrides: Any,
) -> list[dict[str, Any]]:
    """Search the model's own world model from decisions, where nothing can be tried; one row each.

    Args:
        model: a `ZooLamForCausalLM`.
        shown: the rows.
        collate: rows to inputs of the model, with `act_positions` and tools, as many for all.
        generator: of noise, on the CPU.
        overrides: of `SearchOptions`, such as `simulations`.
    """
    import torch

    from hf_zoo.modeling.lam.planning import plan

    model.eval()
    with torch.no_grad():
        batch = _on_device(collate(shown), model)
        exists = batch["tool_mask"].bool().any(-1) if "tool_mask" in batch else None
        found = plan(model, model(**batch), exists, generator=generator, planner="mcts", **overrides)
    nothing: dict[str, list] = {"search_acts": [], "search_rewards": [], "search_done": []}
    return [
        {"shown": row, "search_visits": [shares], "search_values": [value], **nothing}
        for row, shares, value in zip(shown, found.shares.tolist(), found.value.tolist(), strict=True)
    ]


class SearchedCollator:
    """Joins rows of `searched_episodes` or `searched_decisions` into a batch with what to learn, for `Trainer`.

    Args:
        collate: what made inputs of rows there.
    """

    def __init__(self, collate: Collator) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, "Tensor"]:
        """The batch; acts that no search tries (think, ask and finish) have no visits."""
        import torch

        batch = self.collate([row["shown"] for row in rows])
        batch["search_acts"] = torch.tensor([row["search_acts"] for row in rows]).long()
        for name in ("search_visits", "search_values", "search_rewards", "search_done"):
            batch[name] = torch.tensor([row[name] for row in rows])
        missing = batch["tool_ids"].shape[1] + 3 - batch["search_visits"].shape[-1]
        batch["search_visits"] = torch.nn.functional.pad(batch["search_visits"], (0, missing))
        return batch


def _on_device(batch: dict[str, "Tensor"], model: "PreTrainedModel") -> dict[str, "Tensor"]:
    return {name: value.to(model.device) for name, value in batch.items()}
