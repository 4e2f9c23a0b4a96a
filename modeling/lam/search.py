"""Search over what could be done: Monte-Carlo tree search with PUCT, of many trees at once.

Silver et al. 2017, https://arxiv.org/abs/1712.01815, and Schrittwieser et al. 2019, https://arxiv.org/abs/1911.08265,
appendix B. From each root, a simulation follows

    a = argmax_a  Qn(s, a) + c P(s, a) sqrt(sum_b N(s, b)) / (1 + N(s, a))
    c = c1 + ln((sum_b N(s, b) + c2 + 1) / c2)

to an act that was not tried, asks the model once what follows and what it is worth (v), and on the way back adds
G = r + gamma G' to every act of the path, from G = v. Qn is the mean of these, scaled to [0, 1] by the least and
largest of the tree, and 0 for what was not tried and while all are alike; before any visit of s the square root
counts as 1, so that priors decide. At the root of a search for training P is mixed with noise,
(1 - e) P + e Dirichlet(alpha).

All trees grow by one node a simulation, so everything is a tensor, and the model is called once for all of them.

Shapes: B trees, A acts, M nodes = simulations + 1.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Judged(NamedTuple):
    """What a model says of states: scores of acts (B, A), very low on what may not be done, and values (B)."""

    logits: Tensor
    value: Tensor


class Step(NamedTuple):
    """What follows an act: states (B, ...), rewards (B), which of them are the end (B), and what is said of them."""

    state: Tensor
    reward: Tensor
    done: Tensor
    judged: Judged


class Searchable(Protocol):
    """What can be searched: a latent world model, an environment that can be copied, a language model.

    States are one tensor with a row for each tree; what does not fit in a tensor is kept by the model itself, and its
    state is a number of where.
    """

    def judge(self, states: Tensor) -> Judged:
        """Of the roots (B, ...)."""

    def step(self, states: Tensor, acts: Tensor) -> Step:
        """Do acts (B) in states (B, ...)."""


@dataclass(frozen=True)
class SearchOptions:
    """How a search goes.

    Args:
        simulations: how often each tree is gone down.
        c1, c2: of PUCT.
        discount: gamma.
        noise: e, share of noise at the root; 0 decides without.
        concentration: alpha of that noise.
        temperature: of the policy N^(1 / temperature); 0 is all on the most visited.
    """

    simulations: int = 32
    c1: float = 1.25
    c2: float = 19652.0
    discount: float = 0.99
    noise: float = 0.0
    concentration: float = 0.3
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.simulations < 1:
            raise ValueError(f"simulations must be at least 1, got {self.simulations}")
        if not 0.0 <= self.noise <= 1.0:
            raise ValueError(f"noise must be from 0 to 1, got {self.noise}")
        if self.temperature < 0.0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")


class Searched(NamedTuple):
    """What a search found: how often each act of the root was tried (B, A), its mean return (B, A), the value of the
    root (B) as the mean of all that was found, and the policy that follows (B, A)."""

    visits: Tensor
    returns: Tensor
    value: Tensor
    policy: Tensor


class Tree:
    """B trees of M nodes in arrays; node n was made in simulation n, and node 0 is the root."""

    def __init__(self, rows: int, nodes: int, root: Judged, state: Tensor) -> None:
        acts, device = root.logits.shape[1], root.logits.device
        floats = {"dtype": torch.float32, "device": device}
        self.rows = torch.arange(rows, device=device)
        self.prior = torch.zeros(rows, nodes, acts, **floats)
        self.visits = torch.zeros(rows, nodes, acts, **floats)
        self.total = torch.zeros(rows, nodes, acts, **floats)
        self.reward = torch.zeros(rows, nodes, acts, **floats)
        self.child = torch.full((rows, nodes, acts), -1, device=device)
        self.value = torch.zeros(rows, nodes, **floats)
        self.is_end = torch.zeros(rows, nodes, dtype=torch.bool, device=device)
        self.least = torch.full((rows,), math.inf, **floats)
        self.most = torch.full((rows,), -math.inf, **floats)
        self.states = state.new_zeros(nodes, *state.shape)
        self.add(0, state, root, torch.zeros(rows, dtype=torch.bool, device=device))

    def add(self, node: int, state: Tensor, judged: Judged, is_end: Tensor) -> None:
        """Write what is known of one node of every tree."""
        self.states[node] = state
        self.prior[:, node] = judged.logits.float().softmax(-1)
        self.value[:, node] = judged.value.float()
        self.is_end[:, node] = is_end

    def scores(self, node: Tensor, options: SearchOptions) -> Tensor:
        """PUCT of the acts of a node (B) of each tree: (B, A)."""
        visits, prior = self.visits[self.rows, node], self.prior[self.rows, node]
        seen = visits.sum(-1, keepdim=True)
        c = options.c1 + torch.log((seen + options.c2 + 1) / options.c2)
        explored = c * prior * seen.clamp_min(1).sqrt() / (1 + visits)
        returns = self.total[self.rows, node] / visits.clamp_min(1)
        span = (self.most - self.least)[:, None]
        scaled = torch.where(span > 0, (returns - self.least[:, None]) / span, torch.zeros_like(returns))
        scores = explored + torch.where(visits > 0, scaled, torch.zeros_like(scaled))
        return scores.masked_fill(prior <= 0, -torch.inf)  # of what may not be done

    def descend(self, options: SearchOptions) -> list[tuple[Tensor, Tensor, Tensor]]:
        """One path of each tree: (node, act, whether it goes on) a step, until an act without child or an end."""
        node, path = torch.zeros_like(self.rows), []
        goes_on = ~self.is_end[:, 0]
        while True:
            act = self.scores(node, options).argmax(-1)
            path.append((node, act, goes_on))
            child = self.child[self.rows, node, act]
            goes_on = goes_on & (child >= 0) & ~self.is_end[self.rows, child.clamp_min(0)]
            if not goes_on.any():
                return path
            node = torch.where(goes_on, child, node)

    def back_up(self, path: list[tuple[Tensor, Tensor, Tensor]], value: Tensor, discount: float) -> None:
        """Add the return of a path to all its acts: value (B) of where it ended."""
        returns = value
        for node, act, goes_on in reversed(path):
            at = self.rows, node, act
            returns = torch.where(goes_on, self.reward[at] + discount * returns, returns)
            self.visits[at] += goes_on
            self.total[at] += returns * goes_on
            mean = self.total[at] / self.visits[at].clamp_min(1)
            self.least = torch.where(goes_on, torch.minimum(self.least, mean), self.least)
            self.most = torch.where(goes_on, torch.maximum(self.most, mean), self.most)


@torch.no_grad()
def tree_search(
    model: Searchable, states: Tensor, options: SearchOptions, generator: torch.Generator | None = None
) -> Searched:
    """Search from every state at once.

    Args:
        model: what is searched.
        states: (B, ...), the roots.
        generator: of the noise, on the CPU; the same seed gives the same search.
    """
    root = model.judge(states)
    tree = Tree(len(states), options.simulations + 1, root, states)
    if options.noise:
        prior = tree.prior[:, 0]
        draws = dirichlet(prior > 0, options.concentration, generator)
        tree.prior[:, 0] = (1 - options.noise) * prior + options.noise * draws
    for node in range(1, options.simulations + 1):
        path = tree.descend(options)
        last, act = torch.stack([step[0] for step in path]), torch.stack([step[1] for step in path])
        depth = torch.stack([step[2] for step in path]).sum(0) - 1  # the last step that went on
        has_path = depth >= 0  # a root that is an end has none
        at = depth.clamp_min(0), tree.rows
        parent, act = last[at], act[at]
        old = tree.child[tree.rows, parent, act]
        step = model.step(tree.states[parent, tree.rows], act)
        is_new = has_path & (old < 0)
        tree.add(node, step.state, step.judged, step.done)
        tree.reward[tree.rows, parent, act] = torch.where(
            is_new, step.reward.float(), tree.reward[tree.rows, parent, act]
        )
        tree.child[tree.rows, parent, act] = torch.where(is_new, torch.full_like(old, node), old)
        # An old child is where a path ends only if it is the end, after which nothing comes
        value = tree.value[:, node].masked_fill(step.done | ~is_new, 0.0)
        tree.back_up(path, value, options.discount)
    visits, total = tree.visits[:, 0], tree.total[:, 0]
    value = total.sum(-1) / visits.sum(-1).clamp_min(1)
    return Searched(visits, total / visits.clamp_min(1), value, visit_policy(visits, options.temperature))


def visit_policy(visits: Tensor, temperature: float) -> Tensor:
    """N^(1 / temperature), normalised: (..., A) -> (..., A); at 0 all on the first of the most visited."""
    if temperature == 0:
        return torch.nn.functional.one_hot(visits.argmax(-1), visits.shape[-1]).to(visits.dtype)
    shares = visits / visits.amax(-1, keepdim=True).clamp_min(1)
    powers = shares.pow(1 / temperature)
    return powers / powers.sum(-1, keepdim=True).clamp_min(1e-12)


def dirichlet(allowed: Tensor, concentration: float, generator: torch.Generator | None = None) -> Tensor:
    """Draws over the acts that are allowed (B, A), by gammas from Marsaglia and Tsang's method.

    torch's own Dirichlet takes no generator.
    """
    shape = allowed.shape
    d = concentration + 1 - 1 / 3  # one more than asked for, which the last line makes up for
    c = (9 * d) ** -0.5
    gammas, waiting = torch.zeros(shape), torch.ones(shape, dtype=torch.bool)
    while waiting.any():
        x, u = torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)
        v = (1 + c * x) ** 3
        taken = waiting & (v > 0) & (u.log() < x.square() / 2 + d - d * v + d * v.clamp_min(1e-12).log())
        gammas, waiting = torch.where(taken, d * v, gammas), waiting & ~taken
    gammas = gammas * torch.rand(shape, generator=generator).clamp_min(1e-12) ** (1 / concentration)
    gammas = gammas.to(allowed.device) * allowed
    return gammas / gammas.sum(-1, keepdim=True).clamp_min(1e-12)


class CopiedEnvironments:
    """Environments of any kind as something to search: an object with `clone()` and `step(act) -> reward, done`.

    Args:
        environments: one a tree.
        judge: list of environments -> `Judged`, such as a policy's forward pass over what they show.
    """

    def __init__(self, environments: list[Any], judge: Any) -> None:
        self.kept, self.look = list(environments), judge

    @property
    def roots(self) -> Tensor:
        """States of the environments that were given (B)."""
        return torch.arange(len(self.kept))

    def judge(self, states: Tensor) -> Judged:
        """See `Searchable`."""
        return self.look([self.kept[i] for i in states.tolist()])

    def step(self, states: Tensor, acts: Tensor) -> Step:
        """See `Searchable`; each step is done in a copy."""
        copies, rewards, done = [], [], []
        for state, act in zip(states.tolist(), acts.tolist(), strict=True):
            copies.append(self.kept[state].clone())
            reward, ends = copies[-1].step(act)
            rewards.append(float(reward))
            done.append(bool(ends))
        first = len(self.kept)
        self.kept += copies
        judged = self.look(copies)
        device = judged.value.device
        numbers = torch.arange(first, len(self.kept))
        return Step(numbers, torch.tensor(rewards, device=device), torch.tensor(done, device=device), judged)
