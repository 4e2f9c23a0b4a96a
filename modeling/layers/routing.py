"""What routers decide, what unequal load costs, and who finds room.

Balance loss, f_e the share of tokens sent to e and P_e the mean of p_e over tokens, without padding:

    E sum over e of  f_e P_e                                               Fedus et al. 2021, Eq. (4); 1 if uniform
    z-loss  mean over t of (log sum over e of exp r_te)^2                  Zoph et al. 2022, arXiv:2202.08906, Eq. (5)

Capacity: an expert takes ceil(c k N / E) tokens in training and refuses the rest, which the residual carries on. In
evaluation nothing is refused, or a token's answer would depend on what else is in the batch.

Shapes: N tokens, D hidden size, E experts, k experts a token, S pairs of a token and an expert, R rows of T tokens.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import without_autocast


class Routing(NamedTuple):
    """What a router decides. Line i of `experts` and `weights` is about token i, or about token `tokens[i]`.

    Args:
        logits: (N, E), float32.
        probabilities: (N, E), what the balance loss sees.
        experts, weights: (N, k), or (S, 1) with `tokens`.
        tokens: (S), where experts choose.
        load: (E), in training: how many real tokens asked for each expert.
        num_dropped: in training: how many pairs were refused for want of capacity; where experts choose, how many
            tokens nobody took.
    """

    logits: Tensor
    probabilities: Tensor
    experts: Tensor
    weights: Tensor
    tokens: Tensor | None = None
    load: Tensor | None = None
    num_dropped: Tensor | None = None


def linear_in_float32(x: Tensor, weight: Tensor) -> Tensor:
    """x (N, D), weight (E, D) -> x W^T (N, E) in at least float32, under autocast too."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if not torch.is_autocast_enabled(x.device.type):
        return F.linear(x.to(dtype), weight.to(dtype))
    with without_autocast(x):
        return F.linear(x.to(dtype), weight.to(dtype))


def count_load(experts: Tensor, num_experts: int, mask: Tensor | None) -> Tensor:
    """Tokens that ask for each expert: experts (R, T, k), mask (R, T) with 1 on real tokens -> (R, E) in float32."""
    ones = torch.ones(experts.shape, device=experts.device) if mask is None else mask[..., None].expand_as(experts)
    zeros = torch.zeros(len(experts), num_experts, device=experts.device)
    return zeros.scatter_add(1, experts.flatten(1), ones.flatten(1).float())


def balance_loss(probabilities: Tensor, experts: Tensor, mask: Tensor | None = None) -> Tensor:
    """E sum f_e P_e, the mean over rows; k if the choice is uniform, E if all tokens go where all probability is.

    Args:
        probabilities: (R, T, E).
        experts: (R, T, k); no gradient passes through the choice.
        mask: (R, T) with 1 on real tokens.
    """
    num_experts = probabilities.shape[-1]
    load = count_load(experts, num_experts, mask)
    if mask is None:
        return num_experts * (load / experts.shape[1] * probabilities.mean(1)).sum(-1).mean()
    num_real = mask.sum(-1, keepdim=True).clamp_min(1)
    mean = (probabilities * mask[..., None]).sum(1) / num_real
    per_row = num_experts * (load / num_real * mean).sum(-1)
    has_tokens = mask.any(-1)
    return (per_row * has_tokens).sum() / has_tokens.sum().clamp_min(1)


def router_z_loss(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean square of the log-normaliser of logits (N, E) over tokens whose mask (N) is 1."""
    square = torch.logsumexp(logits, dim=-1).square()
    return square.mean() if mask is None else (square * mask).sum() / mask.sum().clamp_min(1)


def within_capacity(experts: Tensor, wanted: Tensor | None, num_experts: int, capacity: Tensor | float) -> Tensor:
    """Which pairs find room, tokens coming in order: all first choices before any second -> (N, k) of booleans.

    Args:
        experts: (N, k).
        wanted: (N, k), False on pairs that take no room and get none: padding, second experts that chance left out.
        capacity: most pairs an expert takes.
    """
    asks = F.one_hot(experts.T.reshape(-1), num_experts)  # (k N, E)
    if wanted is not None:
        asks = asks * wanted.T.reshape(-1, 1)
    place = (asks.cumsum(0) * asks).sum(-1)  # counted from 1; 0 for what is not wanted
    return ((place > 0) & (place <= capacity)).view(experts.shape[1], -1).T
