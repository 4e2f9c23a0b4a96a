"""Learned biases on attention scores by how far apart two tokens stand, in buckets that widen with the distance.

Raffel et al. 2019, https://arxiv.org/abs/1910.10683, section 2.1, as released. With r = key - query, N buckets in all:

    both sides   n = |r|, N' = N / 2, and the upper half of the table where r > 0
    causal       n = max(-r, 0), N' = N
    bucket       n                                                           n < N' / 2
                 N' / 2 + floor(ln(2 n / N') / ln(2 M / N') N' / 2)          up to N' - 1, reached at n = M

    score(query, key, head) + table[bucket(r), head]

Shapes: T queries, S keys, H heads, N buckets.
"""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init


def relative_buckets(distance: Tensor, num_buckets: int, max_distance: int, is_causal: bool) -> Tensor:
    """Rows of the table for distances key - query of any shape -> the same shape, from 0 to num_buckets - 1."""
    if is_causal:
        offset, n = 0, (-distance).clamp_min(0)
    else:
        num_buckets //= 2
        offset, n = (distance > 0) * num_buckets, distance.abs()
    exact = num_buckets // 2
    # in float32 and in this order, since published tables were trained with what that rounds to
    share = torch.log(n.clamp_min(1).float() / exact) / math.log(max_distance / exact)
    wide = (exact + (share * (num_buckets - exact)).long()).clamp_max(num_buckets - 1)
    return offset + torch.where(n < exact, n, wide)


class RelativePositionBias(nn.Embedding):
    """A table (N, H), read for all pairs of tokens at once.

    A bias depends on key - query alone, so the table is read once for each of the T + S - 1 distances, and rows of
    the result are windows of it, each shifted by one: neither T x S logarithms nor as many look-ups.

    Args:
        num_buckets: N.
        num_heads: H.
        max_distance: M, from which on all share a bucket.
        is_causal: whether keys stand to the left of their queries.
        initial_std: of the table.
    """

    def __init__(
        self, num_buckets: int, num_heads: int, max_distance: int, is_causal: bool, initial_std: float
    ) -> None:
        super().__init__(num_buckets, num_heads)
        self.max_distance = max_distance
        self.is_causal = is_causal
        self.initial_std = initial_std

    def initialise(self) -> None:
        """Draw the table."""
        init.normal_(self.weight, std=self.initial_std)

    def forward(self, num_queries: int, num_keys: int, num_seen: int | Tensor = 0) -> Tensor:
        """Biases (1, H, T, S) of queries that stand at num_seen, num_seen + 1, ... and keys that stand at 0, 1, ..."""
        steps = torch.arange(num_queries + num_keys - 1, device=self.weight.device)
        distance = steps - (num_queries - 1) - num_seen
        rows = relative_buckets(distance, self.num_embeddings, self.max_distance, self.is_causal)
        values = super().forward(rows).T  # (H, T + S - 1)
        if num_queries == 1:
            return values[None, :, None]
        return values.unfold(-1, num_keys, 1).flip(1)[None]  # the last query is nearest to the first window
