"""Attention with a sparse pattern: block by block for a text, and by gathering for a token that comes after one.

Child et al. 2019, "Generating Long Sequences with Sparse Transformers", https://arxiv.org/abs/1904.10509; the patterns
are in sparse_patterns.py. Scores are computed for the tokens that a set can hold and for no others, O(T (l + T / l))
in time and memory; nothing of T x T is ever made. In decoding, only the keys that a token sees are read.

Shapes: B batch, T queries, S keys, D hidden size, H heads, K head size, N blocks, L stride, M keys a query may see.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .documents import Documents
from .dropout import dropped_softmax
from .sparse_patterns import Pattern, Union, counted

Remembered = tuple[Tensor, Tensor, Callable[[Tensor], Tensor] | None]  # keys, values, and where each position is


def _by_union(pattern: Pattern) -> list[tuple[Union, list[int]]]:
    """Heads that see the same are computed together."""
    groups: dict[Union, list[int]] = {}
    for head, union in enumerate(pattern):
        groups.setdefault(union, []).append(head)
    return list(groups.items())


def _softmax_mix(scores: list[Tensor], seen: list[Tensor], dropout: float) -> tuple[Tensor, ...]:
    """Weights for each set from one softmax over all of them, in float32; every token sees itself at least."""
    joint = torch.cat([s.masked_fill(~m, -torch.inf) for s, m in zip(scores, seen, strict=True)], dim=-1)
    weights, factor = dropped_softmax(joint, dropout)
    weights = weights * factor if factor != 1.0 else weights
    return weights.split([s.shape[-1] for s in scores], dim=-1)


def block_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, scaling: float, dropout: float = 0.0
) -> Tensor:
    """Attention of a text to itself, from position 0 on -> (B, H, T, K).

    Padding may only stand at the end, where no real token sees it.

    Args:
        q, k, v: (B, H, T, K).
        pattern: what each head sees; one stride for all.
        scaling: factor on the scores.
        dropout: on the weights.
    """
    stride, T = pattern[0][0].stride, q.shape[2]
    fill = (0, 0, 0, -T % stride)
    q, k, v = (F.pad(z, fill).unflatten(2, (-1, stride)) for z in (q * scaling, k, v))  # (B, H, N, L, K)
    num_blocks = q.shape[2]
    i = torch.arange(num_blocks * stride, device=q.device).view(num_blocks, stride, 1)
    groups, results = _by_union(pattern), []
    for union, heads in groups:
        own_q, own_k, own_v = (z if len(groups) == 1 else z[:, heads] for z in (q, k, v))
        seen = [counted(union, n, i, keys.in_blocks(num_blocks, q.device)) for n, keys in enumerate(union)]
        weights = _softmax_mix([keys.scores(own_q, own_k) for keys in union], seen, dropout)
        results.append(sum(keys.mix(w, own_v) for keys, w in zip(union, weights, strict=True)))
    return _in_order(results, groups).flatten(2, 3)[:, :, :T]


def gathered_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    positions: Tensor,
    find: Callable[[Tensor], Tensor] | None,
    scaling: float,
) -> Tensor:
    """Attention of a few tokens to what is remembered, of which only the keys that they see are read -> (B, H, T, K).

    Args:
        q: (B, H, T, K).
        k, v: (B, H, S, K).
        pattern: what each head sees.
        positions: (B, T), where the tokens stand in their rows.
        find: positions (B, T, M) -> where their keys are among the S; None where position p is at p.
        scaling: factor on the scores.
    """
    if not len(positions):
        return q.new_zeros(*q.shape[:3], v.shape[-1])
    last = int(positions.max())
    reads = sum(keys.near(positions[:1, :1, None], last).shape[-1] for keys in pattern[0])
    few = max(1, 2**14 // reads)  # queries at a time, so that what is gathered stays small
    parts = zip((q * scaling).split(few, dim=2), positions.split(few, dim=1), strict=True)
    return torch.cat([_gather_and_attend(q, k, v, pattern, p[..., None], find, last) for q, p in parts], dim=2)


def _gather_and_attend(q, k, v, pattern, i, find, last):
    row = torch.arange(len(q), device=q.device)[:, None, None]
    groups, results = _by_union(pattern), []
    for union, heads in groups:
        near = [keys.near(i, last) for keys in union]
        seen = torch.cat([counted(union, n, i, j) for n, j in enumerate(near)], dim=-1)  # (B, T, M)
        place = torch.cat(near, dim=-1).clamp(0, last)
        place = place if find is None else find(place)
        own_q, own_k, own_v = (z if len(groups) == 1 else z[:, heads] for z in (q, k, v))
        own_k, own_v = (z.transpose(1, 2)[row, place].permute(0, 3, 1, 2, 4) for z in (own_k, own_v))
        scores = (own_q[..., None, :] @ own_k.mT)[..., 0, :]  # keys (B, H, T, M, K)
        (weights,) = _softmax_mix([scores], [seen[:, None]], dropout=0.0)
        results.append((weights[..., None, :] @ own_v)[..., 0, :])
    return _in_order(results, groups)


def _in_order(results: list[Tensor], groups: list[tuple[Union, list[int]]]) -> Tensor:
    """Results of groups of heads -> all heads in their order."""
    if len(groups) == 1:
        return results[0]
    heads = torch.tensor([head for _, own in groups for head in own], device=results[0].device)
    return torch.cat(results, dim=1)[:, heads.argsort()]


def text_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    mask: Tensor | None,
    position_ids: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of a text to itself, wherever padding and packed documents stand -> (B, H, T, K).

    Args:
        q, k, v: (B, H, T, K).
        pattern: what each head sees, in positions that count real tokens of a document.
        mask: (B, T) with 1 on real tokens; None where all are.
        position_ids: (B, T) where rows hold several documents; None elsewhere.
        scaling: factor on the scores.
        dropout: on the weights.
    """
    if mask is None and position_ids is None:
        return block_sparse_attention(q, k, v, pattern, scaling, dropout)
    documents = Documents(mask, position_ids, (q.shape[0], q.shape[2]))
    q, k, v = (documents.split(z.transpose(1, 2)).transpose(1, 2) for z in (q, k, v))
    y = block_sparse_attention(q, k, v, pattern, scaling, dropout)
    return documents.join(y.transpose(1, 2)).transpose(1, 2)


def find_real(mask: Tensor | None) -> Callable[[Tensor], Tensor] | None:
    """Where among S remembered keys each position is, if a mask (B, S) has 1 on real tokens."""
    if mask is None:
        return None
    count = mask.long().cumsum(-1)
    index = torch.searchsorted(count, torch.arange(1, mask.shape[1] + 1, device=mask.device).expand_as(count))
    index = index.clamp_max(mask.shape[1] - 1)  # positions that are not there yet
    return lambda positions: index.gather(1, positions.flatten(1)).view_as(positions)


class SparseAttention(nn.Module):
    """Multi-head attention with a sparse pattern; queries and keys may be smaller than values.

    Args:
        hidden_size: D.
        pattern: what each of the heads sees.
        qk_head_dim: K of queries and keys.
        v_head_dim: of values.
        bias: whether the projections have one.
        dropout: on the weights.
    """

    def __init__(
        self,
        hidden_size: int,
        pattern: Pattern,
        qk_head_dim: int,
        v_head_dim: int,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        num_heads = len(pattern)
        self.pattern, self.dropout, self.scaling = pattern, dropout, qk_head_dim**-0.5
        self.q_proj = nn.Linear(hidden_size, num_heads * qk_head_dim, bias=bias)
        self.k_proj = nn.Linear(hidden_size, num_heads * qk_head_dim, bias=bias)
        self.v_proj = nn.Linear(hidden_size, num_heads * v_head_dim, bias=bias)
        self.o_proj = nn.Linear(num_heads * v_head_dim, hidden_size, bias=bias)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        remember: Callable[[Tensor, Tensor], Remembered | None] | None = None,
        positions: Tensor | None = None,
        packed_positions: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, D) -> y (B, T, D).

        Args:
            mask: (B, T) with 1 on real tokens, for a text without a past.
            remember: takes the new keys and values (B, H, T, K), returns all of them and where each position is, or
                None if there were none before.
            positions: (B, T), where the tokens stand; needed after a past.
            packed_positions: (B, T) where rows hold several documents.
        """
        num_heads = len(self.pattern)
        q, k, v = (
            p(x).unflatten(-1, (num_heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        past = None if remember is None else remember(k, v)
        if past is None:
            dropout = self.dropout if self.training else 0.0
            y = text_sparse_attention(q, k, v, self.pattern, mask, packed_positions, self.scaling, dropout)
        else:
            k, v, find = past
            y = gathered_sparse_attention(q, k, v, self.pattern, positions, find, self.scaling)
        return self.o_proj(y.transpose(1, 2).flatten(2))
