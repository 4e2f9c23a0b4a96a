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

All trees grow by one node a simulation, so the model is called once for all of them. What is between its calls are a
few numbers for each act, kept in arrays of numpy, whose small operations cost a fraction of a tensor's.

Shapes: B trees, A acts, M nodes = simulations + 1.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
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


class Path(NamedTuple):
    """One way down each tree.

    Args:
        steps: (node, act, whether the tree is still on its way), arrays of B, from the root on.
        parent, act: (B), where each ends.
    """

    steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    parent: np.ndarray
    act: np.ndarray


class Tree:
    """B trees of M nodes in arrays; node n was made in simulation n, and node 0 is the root."""

    def __init__(self, nodes: int, root: Judged, state: Tensor) -> None:
        rows, acts = root.logits.shape
        self.rows = np.arange(rows)
        self.prior, self.visits, self.total, self.reward = np.zeros((4, rows, nodes, acts))
        self.child = np.full((rows, nodes, acts), -1)
        self.is_end = np.zeros((rows, nodes), dtype=bool)
        self.least, self.most = np.full(rows, np.inf), np.full(rows, -np.inf)
        self.states = state.new_zeros(nodes, *state.shape)
        self.add(0, state, root, np.zeros(rows, dtype=bool))

    def add(self, node: int, state: Tensor, judged: Judged, is_end: np.ndarray) -> None:
        """Write what is known of one node of every tree."""
        self.states[node] = state
        self.prior[:, node] = _array(judged.logits.float().softmax(-1))
        self.is_end[:, node] = is_end

    def scores(self, node: np.ndarray, options: SearchOptions) -> np.ndarray:
        """PUCT of the acts of a node (B) of each tree: (B, A)."""
        at = self.rows, node
        visits, prior = self.visits[at], self.prior[at]
        seen = visits.sum(-1, keepdims=True)
        c = options.c1 + np.log((seen + options.c2 + 1) / options.c2)
        explored = c * prior * np.sqrt(np.maximum(seen, 1)) / (1 + visits)
        is_scaled = (self.most > self.least)[:, None]
        least = np.where(is_scaled, self.least[:, None], 0.0)
        span = np.where(is_scaled, self.most[:, None] - least, np.inf)
        scaled = (self.total[at] / np.maximum(visits, 1) - least) / span
        return np.where(prior > 0, explored + np.where(visits > 0, scaled, 0.0), -np.inf)  # not what may not be done

    def descend(self, options: SearchOptions) -> Path:
        """One path of each tree, until an act without child or an end."""
        node, steps = np.zeros_like(self.rows), []
        parent, last, goes_on = node, node, np.ones_like(self.rows, dtype=bool)
        while True:
            act = self.scores(node, options).argmax(-1)
            steps.append((node, act, goes_on))
            parent, last = np.where(goes_on, node, parent), np.where(goes_on, act, last)
            child = self.child[self.rows, node, act]
            goes_on = goes_on & (child >= 0) & ~self.is_end[self.rows, child]
            if not goes_on.any():
                return Path(steps, parent, last)
            node = np.where(goes_on, child, node)

    def back_up(self, path: Path, value: np.ndarray, discount: float) -> None:
        """Add the return of a path to all its acts: value (B) of where it ended."""
        returns = value
        for node, act, goes_on in reversed(path.steps):
            at = self.rows, node, act
            returns = np.where(goes_on, self.reward[at] + discount * returns, returns)
            self.visits[at] += goes_on
            self.total[at] += returns * goes_on
            mean = self.total[at] / np.maximum(self.visits[at], 1)
            self.least = np.where(goes_on, np.minimum(self.least, mean), self.least)
            self.most = np.where(goes_on, np.maximum(self.most, mean), self.most)


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
    tree = Tree(options.simulations + 1, root, states)
    if options.noise:
        prior = tree.prior[:, 0]
        draws = _array(dirichlet(torch.from_numpy(prior > 0), options.concentration, generator))
        tree.prior[:, 0] = (1 - options.noise) * prior + options.noise * draws
    put = lambda x: torch.from_numpy(x).to(states.device)  # noqa: E731
    rows = put(tree.rows)
    for node in range(1, options.simulations + 1):
        path = tree.descend(options)
        end = tree.rows, path.parent, path.act
        step = model.step(tree.states[put(path.parent), rows], put(path.act))
        done = _array(step.done)
        is_new = tree.child[end] < 0
        tree.add(node, step.state, step.judged, done)
        tree.reward[end] = np.where(is_new, _array(step.reward), tree.reward[end])
        tree.child[end] = np.where(is_new, node, tree.child[end])
        # An old child is where a path ends only if it is the end, after which nothing comes
        tree.back_up(path, np.where(is_new & ~done, _array(step.judged.value), 0.0), options.discount)
    visits, total = (torch.from_numpy(x[:, 0]).float().to(root.value.device) for x in (tree.visits, tree.total))
    value = total.sum(-1) / visits.sum(-1).clamp_min(1)
    return Searched(visits, total / visits.clamp_min(1), value, visit_policy(visits, options.temperature))


def _array(x: Tensor) -> np.ndarray:
    return (x.float() if x.is_floating_point() else x).cpu().numpy()


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
