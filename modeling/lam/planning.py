"""From what the heads say to one act, in four ways: with or without options that last, with or without a search.

Acts are numbered: the N tools of a row, then think, ask and finish.

Shapes: B batch, N tools, A = N + 3 acts, C acts that a search considers, L latent_dim, E tool_dim.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .configuration_lam import ZooLamConfig
from .policy import KINDS, act_prior
from .search import Judged, Searched, SearchOptions, Step, tree_search
from .world_model import WorldModel


class Plan(NamedTuple):
    """What was decided.

    Args:
        act: (B), its number.
        option: (B), the option that is followed, for the next decision.
        shares: (B, A), how likely each act was found to be.
        value: (B), what is expected.
    """

    act: Tensor
    option: Tensor
    shares: Tensor
    value: Tensor


class ForeseenActs:
    """The world model as something to search, over the acts of each row.

    Args:
        world_model: the model.
        acts: (B, C, E), vectors of the acts.
        exists: (B, C).
    """

    def __init__(self, world_model: WorldModel, acts: Tensor, exists: Tensor) -> None:
        self.world_model, self.acts, self.exists = world_model, acts, exists
        self.rows = torch.arange(len(acts), device=acts.device)

    def judge(self, states: Tensor) -> Judged:
        """See `Searchable`; states are latents (B, L)."""
        return Judged(*self.world_model.judge(states, self.acts, self.exists))

    def step(self, states: Tensor, acts: Tensor) -> Step:
        """See `Searchable`."""
        state, reward, done = self.world_model(states, self.acts[self.rows, acts])
        return Step(state, reward, done > 0, self.judge(state))


def search_options(config: ZooLamConfig, **overrides: Any) -> SearchOptions:
    """How a model's own searches go."""
    chosen = {"simulations": config.mcts_simulations, "c1": config.c1, "c2": config.c2, "discount": config.discount}
    return SearchOptions(**{**chosen, **overrides})


@torch.no_grad()
def search_acts(
    world_model: WorldModel,
    latent: Tensor,
    prior: Tensor,
    tools: Tensor,
    tools_mask: Tensor | None,
    options: SearchOptions,
    max_actions: int,
    generator: torch.Generator | None = None,
) -> Searched:
    """Search the world model from latents (B, L), over the `max_actions` acts that are likeliest at the root.

    Args:
        prior: (B, A), logarithms of how likely acts are; the root is judged by them.
        tools: (B, N, E), tools_mask (B, N).

    Returns:
        what was found, of all acts (B, A).
    """
    acts, exists = world_model.acts(tools, tools_mask)
    likely = prior.masked_fill(~exists, -torch.inf).topk(min(max_actions, acts.shape[1]), dim=-1).indices
    few = ForeseenActs(
        world_model, acts.gather(1, likely[..., None].expand(-1, -1, acts.shape[-1])), exists.gather(1, likely)
    )
    few = _WithRootPrior(few, prior.gather(1, likely))
    found = tree_search(few, latent, options, generator)
    spread = lambda x: torch.zeros_like(prior, dtype=x.dtype).scatter(1, likely, x)  # noqa: E731
    return Searched(spread(found.visits), spread(found.returns), found.value, spread(found.policy))


class _WithRootPrior:
    """The same, with the heads' own opinion of the present, which knows more than its latent."""

    def __init__(self, inner: ForeseenActs, prior: Tensor) -> None:
        self.inner, self.prior, self.step = inner, prior, inner.step

    def judge(self, states: Tensor) -> Judged:
        return Judged(self.prior.masked_fill(~self.inner.exists, -1e9), self.inner.judge(states).value)


@torch.no_grad()
def plan(
    model: Any,
    outputs: Any,
    tools_mask: Tensor | None = None,
    option: Tensor | None = None,
    generator: torch.Generator | None = None,
    **overrides: Any,
) -> Plan:
    """One act a row, by `config.planner`.

    Args:
        model: `ZooLamForCausalLM`.
        outputs: of its forward pass, with `act_positions` and tools.
        tools_mask: (B, N), true on real tools.
        option: (B), that was followed so far; None at the first decision. Without "hierarchical" each decision has
            the best option anew.
        generator: of noise, and of draws where `temperature` is above 0, on the CPU.
        overrides: of `SearchOptions`, whose `temperature` is 0 here; `planner` instead of the config's.
    """
    planner = overrides.pop("planner", model.config.planner)
    state, policy = outputs.state, model.policy
    option = policy.next_option(state, option if "hierarchical" in planner else None)
    kinds, _, value = policy(state, option)
    prior = act_prior(kinds, outputs.tool_logits)
    if "mcts" not in planner:
        return Plan(prior.argmax(-1), option, prior.exp(), value)
    tools = outputs.tool_vectors
    if tools is None:
        tools = state.new_zeros(len(state), 0, model.config.tool_dim)
    options = search_options(model.config, **{"temperature": 0.0, **overrides})
    found = search_acts(
        model.world_model,
        model.latent(state, option),
        prior,
        tools,
        tools_mask,
        options,
        model.config.max_actions,
        generator,
    )
    act = found.policy.argmax(-1)
    if options.temperature:
        act = torch.multinomial(found.policy.cpu(), 1, generator=generator)[:, 0].to(act.device)
    return Plan(act, option, found.visits / found.visits.sum(-1, keepdim=True), found.value)


def describe_act(act: int, num_tools: int) -> tuple[str, int | None]:
    """Number of an act -> its kind, and the tool if it is a call."""
    return (KINDS[0], act) if act < num_tools else (KINDS[1 + act - num_tools], None)
