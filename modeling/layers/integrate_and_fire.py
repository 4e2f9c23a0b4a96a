"""Continuous integrate-and-fire: as many tokens as there is weight in a row of frames.

Dong and Xu 2019, https://arxiv.org/abs/1905.11235, section 3.1. Weights add up frame by frame; where the sum passes a
multiple of beta a token is fired, and the frame in which it does is shared by both sides. So token u is the integral
of the frames over the u-th stretch of length beta of the accumulated weight A_t = a_1 + ... + a_t:

    w_ut = |[A_(t-1), A_t] and [u beta, (u + 1) beta]|,   c_u = sum_t w_ut h_t

which needs no step after the other.

Shapes: B rows, T frames, U tokens, D hidden size.
"""

import torch
from torch import Tensor

_TOLERANCE = 1e-4  # of sums that should be whole


def fired_tokens(weights: Tensor, threshold: float = 1.0, least_tail: float = 0.5) -> Tensor:
    """How many tokens (B) the weights (B, T) fire, at least one.

    Args:
        weights: not negative.
        threshold: beta.
        least_tail: share of beta that must be left after the last whole token to fire one more; 1 for none.
    """
    quantity = weights.sum(-1) / threshold
    return (quantity + (1 - least_tail) + _TOLERANCE).floor().long().clamp_min(1)


def integrate_and_fire(states: Tensor, weights: Tensor, num_tokens: int, threshold: float = 1.0) -> Tensor:
    """Tokens (B, U, D); those for which no weight is left are zero.

    Args:
        states: (B, T, D).
        weights: (B, T), not negative, zero on padding; summed in float32 at least.
        num_tokens: U.
        threshold: beta.
    """
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    ends = weights.cumsum(-1)[:, None]  # (B, 1, T)
    starts = ends - weights[:, None]
    edges = torch.arange(num_tokens + 1, device=weights.device, dtype=weights.dtype)[:, None] * threshold
    shared = torch.minimum(ends, edges[1:]) - torch.maximum(starts, edges[:-1])  # (B, U, T)
    return shared.clamp_min(0).to(states.dtype) @ states


def scale_weights(weights: Tensor, num_tokens: Tensor, threshold: float = 1.0) -> Tensor:
    """Weights (B, T) with a sum of num_tokens (B) times beta, as in training, where labels tell how many there are."""
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    return weights * (num_tokens * threshold / weights.sum(-1).clamp_min(1e-6))[:, None]
