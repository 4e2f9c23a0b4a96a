"""Routers: which experts a token passes through, and with what weights. One class a method.

With r = x W^T, in float32 whatever the model's dtype, and p = softmax(r):

    Switch         e = argmax p, weight p_e                              Fedus et al. 2021, arXiv:2101.03961
    GShard         the two largest p, renormalised; the second at random Lepikhin et al. 2020, arXiv:2006.16668
    Mixtral        the k largest p, renormalised                         Jiang et al. 2024, arXiv:2401.04088
    expert choice  each expert takes the N c / E tokens of largest p_te  Zhou et al. 2022, arXiv:2202.09368
    DeepSeek       the k largest p of the best groups, times a factor    Dai et al. 2024, arXiv:2401.06066, 2405.04434
    DeepSeek-V3    s = sigmoid(r); the k largest s + b; weights s / sum sWang et al. 2024, arXiv:2408.15664, 2412.19437
    hierarchical   softmax over the best groups, times softmax over the  Shazeer et al. 2017, arXiv:1701.06538, App. B
                   best experts of each

What a routing is, its losses and its capacity: layers/routing.py.

Shapes: N tokens, D hidden size, E experts, k experts a token, S pairs of a token and an expert, R rows of T tokens.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .routing import Routing, balance_loss, count_load, linear_in_float32, within_capacity


class Router(nn.Module, ABC):
    """What all routers share: the gate's weight and jitter.

    Args:
        top_k: experts a token.
        jitter: in training the router's input, and nothing else, is multiplied by a number from U(1 - j, 1 + j).
    """

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, jitter: float = 0.0) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.top_k = top_k
        self.jitter = jitter
        self.weight = nn.Parameter(torch.empty(num_experts, hidden_size))

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Routing:
        """x (N, D), mask (N) with 1 on real tokens -> the routing of N tokens."""

    @abstractmethod
    def balance_loss(self, routing: Routing, mask: Tensor | None, num_rows: int) -> Tensor:
        """The method's loss for unequal load, of N = `num_rows` T tokens, mask (N) with 1 on real ones."""

    def score(self, x: Tensor) -> Tensor:
        """r = x W^T, x (N, D) -> (N, E) in float32, with jitter in training."""
        if self.training and self.jitter:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        return linear_in_float32(x, self.weight)

    def start(self, std: float) -> None:
        """Fresh weights from N(0, std^2)."""
        for parameter in self.parameters():
            init.normal_(parameter, std=std)

    def observation(self, routing: Routing) -> Tensor | None:
        """What `observe` is to be told of a training pass (E); None for a router without memory."""
        return None

    def observe(self, observation: Tensor) -> None:
        """Remember a training pass. The model calls it once a pass, however often a checkpoint recomputes it."""

    def extra_repr(self) -> str:
        """Sizes, for printing a model."""
        return f"{self.top_k} of {self.num_experts} experts"


class TokenChoiceRouter(Router):
    """A router whose tokens choose experts, which may refuse what is beyond their capacity.

    Args:
        capacity_factor: c above; None where nothing is ever refused.
    """

    top_choices: int | None = None  # how many of the k choices the balance loss counts; all without it

    def __init__(
        self,
        hidden_size: int,
        num_experts: int,
        top_k: int,
        jitter: float = 0.0,
        capacity_factor: float | None = None,
    ) -> None:
        super().__init__(hidden_size, num_experts, top_k, jitter)
        self.capacity_factor = capacity_factor

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Routing:
        """x (N, D), mask (N) with 1 on real tokens -> the routing of N tokens."""
        logits = self.score(x)
        probabilities, experts, weights = self.choose(logits)
        if not self.training:
            return Routing(logits, probabilities, experts, weights)
        taken = asked = self.wanted(weights)
        if mask is not None:
            real = mask.bool()[:, None].expand_as(experts)
            asked = real if asked is None else asked & real
        num_dropped = None
        if self.capacity_factor is not None:
            num_tokens = len(x) if mask is None else mask.sum()
            capacity = self.capacity_factor * self.top_k * num_tokens / self.num_experts
            capacity = math.ceil(capacity) if mask is None else capacity.ceil()
            taken = within_capacity(experts, asked, self.num_experts, capacity)
            num_dropped = (~taken if asked is None else asked & ~taken).sum()
        if taken is not None:
            weights = weights * taken
        load = count_load(experts[None], self.num_experts, None if mask is None else mask[None])[0]
        return Routing(logits, probabilities, experts, weights, None, load, num_dropped)

    @abstractmethod
    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits (N, E) -> probabilities (N, E), experts (N, k), weights (N, k)."""

    def wanted(self, weights: Tensor) -> Tensor | None:
        """In training, which of the pairs (N, k) are asked for at all; None for all."""
        return None

    def balance_loss(self, routing: Routing, mask: Tensor | None, num_rows: int) -> Tensor:
        """The method's loss for unequal load, of N = `num_rows` T tokens, mask (N) with 1 on real ones."""
        experts = routing.experts[:, : self.top_choices]
        return balance_loss(routing.probabilities[None], experts[None], None if mask is None else mask[None])


class SwitchRouter(TokenChoiceRouter):
    """The most probable expert, weighted by its probability, through which the router learns."""

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits (N, E) -> probabilities (N, E), experts (N, k), weights (N, k)."""
        probabilities = logits.softmax(-1)
        weights, experts = probabilities.topk(self.top_k, dim=-1)
        return probabilities, experts, weights


class MixtralRouter(TokenChoiceRouter):
    """The k most probable experts, their weights renormalised: the softmax over the k largest logits."""

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits (N, E) -> probabilities (N, E), experts (N, k), weights (N, k)."""
        probabilities = logits.softmax(-1)
        weights, experts = probabilities.topk(self.top_k, dim=-1)
        return probabilities, experts, weights / weights.sum(-1, keepdim=True)


class GShardRouter(MixtralRouter):
    """Two experts; in training the second takes part with a probability of twice its weight.

    The balance loss counts first choices; the paper's is this one divided by E^2.
    """

    top_choices = 1

    def wanted(self, weights: Tensor) -> Tensor | None:
        """The first always, the others if 2 g > U(0, 1)."""
        chance = torch.rand_like(weights)
        chance[:, 0] = 0
        return 2 * weights > chance


class ExpertChoiceRouter(Router):
    """Each expert takes the tokens that score highest with it: equal load without a loss.

    A token's choice depends on the whole batch, on later tokens too, which a language model may not do when it
    generates. There an expert takes every token that scores at least as high as the last one that it took in
    training, on average, which depends on the token alone. `top_k` is the mean number of experts a token (c).
    """

    momentum = 0.1

    def __init__(self, hidden_size: int, num_experts: int, top_k: int, jitter: float = 0.0) -> None:
        super().__init__(hidden_size, num_experts, top_k, jitter)
        self.register_buffer("threshold", torch.full((num_experts,), 1 / num_experts))

    def initialise(self) -> None:
        """The threshold of a router that prefers nothing."""
        init.constant_(self.threshold, 1 / self.num_experts)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Routing:
        """x (N, D), mask (N) with 1 on real tokens -> the routing of S pairs."""
        logits = self.score(x)
        scores = logits.softmax(-1)
        if not self.training:
            tokens, experts = (scores >= self.threshold).nonzero(as_tuple=True)
            return Routing(logits, scores, experts[:, None], scores[tokens, experts, None], tokens)
        num_real = len(x) if mask is None else int(mask.sum())
        num_taken = max(1, math.ceil(num_real * self.top_k / self.num_experts))
        ranked = scores if mask is None else scores.masked_fill(~mask.bool()[:, None], -1.0)
        weights, tokens = (y.T.reshape(-1) for y in ranked.topk(num_taken, dim=0))  # expert by expert
        experts = torch.arange(self.num_experts, device=x.device).repeat_interleave(num_taken)
        load = torch.full((self.num_experts,), float(num_taken), device=x.device)
        taken = torch.zeros(len(x), dtype=torch.bool, device=x.device).index_fill(0, tokens, True)
        dropped = (~taken if mask is None else mask.bool() & ~taken).sum()
        return Routing(logits, scores, experts[:, None], weights[:, None], tokens, load, dropped)

    def balance_loss(self, routing: Routing, mask: Tensor | None, num_rows: int) -> Tensor:
        """0: the load is equal by construction."""
        return routing.logits.new_zeros(())

    def observation(self, routing: Routing) -> Tensor | None:
        """The lowest score that each expert took (E)."""
        return routing.weights.view(self.num_experts, -1)[:, -1].detach()

    @torch.no_grad()
    def observe(self, observation: Tensor) -> None:
        """Move the thresholds towards those of this pass."""
        self.threshold.lerp_(observation.to(self.threshold.dtype), self.momentum)


def best_groups(scores: Tensor, num_groups: int, num_kept: int, num_summed: int) -> Tensor:
    """Where experts of the best groups stand: scores (N, E) -> (N, E) of booleans.

    Args:
        num_groups: E is split into so many.
        num_kept: how many a token may use.
        num_summed: a group's score is the sum of so many of its largest.
    """
    grouped = scores.unflatten(-1, (num_groups, -1))
    kept = grouped.topk(num_summed, dim=-1).values.sum(-1).topk(num_kept, dim=-1).indices
    mask = torch.zeros(grouped.shape[:-1], dtype=torch.bool, device=scores.device).scatter(-1, kept, True)
    return mask[..., None].expand_as(grouped).flatten(-2)


class DeepSeekRouter(TokenChoiceRouter):
    """DeepSeekMoE and DeepSeek-V2: the k largest p, not renormalised, of the groups with the largest p.

    Args:
        num_groups, topk_group: experts are in so many groups, of which a token may use the best.
        scaling: factor on the weights.
        norm_topk_prob: whether the weights are renormalised first.
        per_sequence: whether the load is balanced in each row, rather than in the batch.
    """

    group_score = 1  # experts whose scores make a group's

    def __init__(
        self,
        hidden_size: int,
        num_experts: int,
        top_k: int,
        num_groups: int = 1,
        topk_group: int = 1,
        scaling: float = 1.0,
        norm_topk_prob: bool = False,
        per_sequence: bool = False,
    ) -> None:
        super().__init__(hidden_size, num_experts, top_k)
        self.num_groups = num_groups
        self.topk_group = topk_group
        self.scaling = scaling
        self.norm_topk_prob = norm_topk_prob
        self.per_sequence = per_sequence

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits (N, E) -> probabilities (N, E), experts (N, k), weights (N, k)."""
        probabilities = logits.softmax(-1)
        weights, experts = self.limit(probabilities, 0.0).topk(self.top_k, dim=-1)
        return probabilities, experts, self.scale(weights)

    def limit(self, scores: Tensor, fill: float) -> Tensor:
        """scores (N, E) with `fill` outside the groups that a token may use."""
        if self.topk_group == self.num_groups:
            return scores
        allowed = best_groups(scores, self.num_groups, self.topk_group, self.group_score)
        return scores.masked_fill(~allowed, fill)

    def scale(self, weights: Tensor) -> Tensor:
        """Weights (N, k), renormalised if asked for, times the factor."""
        if self.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights if self.scaling == 1.0 else weights * self.scaling

    def balance_loss(self, routing: Routing, mask: Tensor | None, num_rows: int) -> Tensor:
        """Divided by k, as in the paper: 1 if uniform."""
        rows = num_rows if self.per_sequence else 1
        probabilities, experts = (y.view(rows, -1, y.shape[-1]) for y in (routing.probabilities, routing.experts))
        return balance_loss(probabilities, experts, None if mask is None else mask.view(rows, -1)) / self.top_k


class BiasBalancedRouter(DeepSeekRouter):
    """DeepSeek-V3: a bias b steers the choice, and not the weights, towards experts with little load.

        b_e <- b_e + gamma sign(mean load - load_e)    after each optimizer step

    `observe` adds up the load of the training passes of a step, and `update_bias` moves b and starts anew; who trains
    calls it after `optimizer.step()`, as the Trainer callback of the package does. A router that is frozen keeps b.
    """

    group_score = 2

    def __init__(self, *args, bias_update_speed: float = 0.001, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.bias_update_speed = bias_update_speed
        self.register_buffer("e_score_correction_bias", torch.zeros(self.num_experts))
        self.register_buffer("pending_load", torch.zeros(self.num_experts), persistent=False)

    def initialise(self) -> None:
        """No preference."""
        init.zeros_(self.e_score_correction_bias)
        init.zeros_(self.pending_load)

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits (N, E) -> shares of the scores (N, E), experts (N, k), weights (N, k)."""
        scores = logits.sigmoid()
        experts = self.limit(scores + self.e_score_correction_bias, -torch.inf).topk(self.top_k, dim=-1).indices
        return scores / (scores.sum(-1, keepdim=True) + 1e-20), experts, self.scale(scores.gather(-1, experts))

    def observation(self, routing: Routing) -> Tensor | None:
        """The load (E)."""
        return routing.load

    @torch.no_grad()
    def observe(self, observation: Tensor) -> None:
        """Add the load of one training pass."""
        self.pending_load += observation

    @torch.no_grad()
    def update_bias(self) -> None:
        """One step of b, from the load since the last one."""
        if self.weight.requires_grad:
            step = torch.sign(self.pending_load.mean() - self.pending_load)
            self.e_score_correction_bias += self.bias_update_speed * step
        self.pending_load.zero_()


class HierarchicalRouter(TokenChoiceRouter):
    """A gate for groups of experts, and one for the experts of each group.

        weight of expert e in group g = softmax(u)_g softmax(v)_e,  u = x U^T over the chosen groups,
                                                                    v = x W^T over the chosen experts of g

    The probability of an expert, which the balance loss sees, is that of its group times its own in the group; the
    logits that are reported have it as their softmax. The z-loss is that of u.

    Args:
        num_groups: E is split into so many.
        topk_group: groups a token; each gives k / topk_group experts.
    """

    def __init__(
        self,
        hidden_size: int,
        num_experts: int,
        top_k: int,
        num_groups: int,
        topk_group: int,
        jitter: float = 0.0,
        capacity_factor: float | None = None,
    ) -> None:
        super().__init__(hidden_size, num_experts, top_k, jitter, capacity_factor)
        self.num_groups = num_groups
        self.topk_group = topk_group
        self.group_weight = nn.Parameter(torch.empty(num_groups, hidden_size))

    def score(self, x: Tensor) -> Tensor:
        """x (N, D) -> u_g + log softmax(v in g)_e (N, E) in float32, with jitter in training."""
        if self.training and self.jitter:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        group = linear_in_float32(x, self.group_weight)  # (N, G)
        inside = linear_in_float32(x, self.weight).unflatten(-1, (self.num_groups, -1)).log_softmax(-1)
        return (group[..., None] + inside).flatten(-2)

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits (N, E) -> probabilities (N, E), experts (N, k), weights (N, k)."""
        grouped = logits.unflatten(-1, (self.num_groups, -1))  # (N, G, M)
        group_size = grouped.shape[-1]
        u, groups = grouped.logsumexp(-1).topk(self.topk_group, dim=-1)
        candidates = grouped.gather(1, groups[..., None].expand(-1, -1, group_size))
        v, inside = candidates.topk(self.top_k // self.topk_group, dim=-1)  # (N, topk_group, k / topk_group)
        experts = (groups[..., None] * group_size + inside).flatten(-2)
        return logits.softmax(-1), experts, (u.softmax(-1)[..., None] * v.softmax(-1)).flatten(-2)

    def balance_loss(self, routing: Routing, mask: Tensor | None, num_rows: int) -> Tensor:
        """Divided by k: 1 if uniform."""
        return super().balance_loss(routing, mask, num_rows) / self.top_k
