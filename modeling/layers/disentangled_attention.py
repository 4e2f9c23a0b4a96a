"""Attention that keeps content and relative position apart: a token has a vector of its own, a distance has another.

He et al. 2020, https://arxiv.org/abs/2006.03654, section 3.1:

    A_ij = Qc_i · Kc_j + Qc_i · Kr_δ(i,j) + Kc_j · Qr_δ(j,i),   y_i = Σ_j softmax_j(A_ij / sqrt(3 K)) Vc_j
    δ(i, j) = clamp(i - j + k, 0, 2k - 1)

The authors' code, and with it every published weight, looks Qr up at δ(i, j) too. Version 2 puts log_bucket(i - j) in
the place of i - j.

The scores of positions depend on i - j, so nothing is gathered from them: the rows of Kr are put in the order of
distance first, and what a matrix product makes of them is read along its diagonals. N blocks of b tokens share a
product, which is N / 2 times less work than one over all 2T - 1 distances. The sum of both terms is a bias of
attention, (B, H, T, T).

Shapes: B batch, T tokens, D hidden size, H heads, K head size, R rows of the table in use, N blocks, b tokens of a
block, W distances that a block sees.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import PreTrainedConfig

from .attention import Attention
from .dropout import dropped_softmax

BLOCK = 64  # tokens that share a product at most: more of them compute scores that nobody reads


class RelativeRows(NamedTuple):
    """Where blocks of tokens find the scores of every distance that they see, for one length of text.

    Args:
        block_size: b.
        c2p, p2c: (N W) rows of the table, for queries and for keys.
    """

    block_size: int
    c2p: Tensor
    p2c: Tensor


def log_bucket(distance: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """Distances whose size is at most num_buckets / 2 as they are, larger ones in steps that grow with them.

    sign(d) (ceil(log(|d| / m) / log((max_distance - 1) / m) (m - 1)) + m) for |d| > m = num_buckets / 2; odd in d.
    """
    middle = num_buckets // 2
    size = distance.abs()
    scale = torch.log(torch.tensor((max_distance - 1) / middle, dtype=torch.float32, device=distance.device))
    steps = torch.log(size.clamp_min(middle).float() / middle) / scale * (middle - 1)
    return torch.where(size <= middle, distance, distance.sign() * (steps.ceil().long() + middle))


class RelativePositions(nn.Module):
    """The table of relative positions, which all layers share, and which of its rows belong to which distance.

    Args:
        hidden_size: D.
        max_distance: distances beyond it are as one.
        num_buckets: k of the table's 2k rows where distances share them; 0 where each has one, and k is max_distance.
        p2c_index: "code" looks up i - j for keys too, "paper" j - i.
        norm: of the rows before use.
    """

    def __init__(
        self,
        hidden_size: int,
        max_distance: int,
        num_buckets: int = 0,
        p2c_index: str = "code",
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.max_distance, self.num_buckets = max_distance, num_buckets
        self.span = num_buckets or max_distance
        self.p2c_sign = 1 if p2c_index == "paper" else -1
        self.embedding = nn.Embedding(2 * self.span, hidden_size)
        self.norm = norm

    def index(self, distance: Tensor) -> Tensor:
        """δ of distances i - j, any shape."""
        if self.num_buckets:
            distance = log_bucket(distance, self.num_buckets, self.max_distance)
        return (distance + self.span).clamp(0, 2 * self.span - 1)

    def forward(self, num_tokens: int) -> tuple[Tensor, RelativeRows]:
        """The rows (R, D) that so many tokens can use, and where in them the distances of each block stand."""
        reach = min(num_tokens - 1, self.span)  # no bucket is farther than the distance itself
        first, last = self.span - reach, min(self.span + reach, 2 * self.span - 1)
        rows = self.embedding.weight[first : last + 1]
        num_blocks = max(1, math.ceil(num_tokens / BLOCK))
        size = max(1, math.ceil(num_tokens / num_blocks))
        device = rows.device
        starts = torch.arange(num_blocks, device=device)[:, None] * size
        # From the last token of a block to the first of the text, and on; an even width is faster to multiply
        ahead = starts + size - 1 - torch.arange((num_blocks + 1) * size, device=device)
        c2p, p2c = (self.index(d).clamp(first, last).flatten() - first for d in (ahead, self.p2c_sign * ahead))
        return rows if self.norm is None else self.norm(rows), RelativeRows(size, c2p, p2c)


def diagonal_scores(x: Tensor, table: Tensor, rows: Tensor, block_size: int) -> Tensor:
    """Scores of every token with the distances to all others.

    Args:
        x: (B, T, H, K), queries or keys.
        table: (H, R, K), what distances are projected to.
        rows: (N W) of the table, from `RelativeRows`.
        block_size: b.

    Returns:
        (B, H, N, b, N b), at the end the other token; a view of the product (H N, B b, W). Tokens from T on mean
        nothing.
    """
    B, T, H, K = x.shape
    num_blocks = -(-T // block_size)
    width = (num_blocks + 1) * block_size
    if num_blocks * block_size > T:
        x = F.pad(x, (0, 0, 0, 0, 0, num_blocks * block_size - T))
    x = x.unflatten(1, (num_blocks, block_size)).permute(3, 1, 0, 2, 4).reshape(H * num_blocks, B * block_size, K)
    table = table.index_select(1, rows).view(H * num_blocks, width, K)
    scores = torch.bmm(x, table.mT)
    band = _Band.apply(scores.view(H, num_blocks, B, block_size, width))
    return band.permute(2, 0, 1, 3, 4)


class _Band(torch.autograd.Function):
    """Of rows r = 0 .. b - 1 the columns from b - 1 - r on: (..., b, W) -> (..., b, W - b), a view.

    Token r of a block finds the first of the text at column b - 1 - r: one step back for each r is a stride less. The
    gradient of `as_strided` would be filled with zeros as a whole before the band is written to it.
    """

    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        return _diagonals(x, x.shape[-2], x.shape[-2] - 1, x.shape[-1] - x.shape[-2])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x = grad.new_empty(ctx.shape)
        size, width = ctx.shape[-2:]
        _diagonals(x, size, size - 1, width - size).copy_(grad)
        _diagonals(x, size - 1, width - 1, size - 1).zero_()  # between the band of a row and that of the next
        x[..., 0, : size - 1].zero_()
        x[..., -1, width - size :].zero_()
        return x


def _diagonals(x: Tensor, num_rows: int, first: int, count: int) -> Tensor:
    """Of a contiguous x (..., b, W) the columns first - r, first - r + 1, ... of row r -> (..., num_rows, count)."""
    return x.as_strided((*x.shape[:-2], num_rows, count), (*x.stride()[:-2], x.shape[-1] - 1, 1), first)


class DisentangledAttention(Attention):
    """Attention to content and to relative positions; without `terms` to content alone.

    Args:
        config, layer_idx: for the backend, see `DispatchedAttention`.
        hidden_size: D.
        num_heads: H.
        terms: "c2p" and "p2c", either or none.
        share_projections: whether positions are projected as content is; if not, by weights of their own.
        key_bias: whether projections to keys have a bias, as all others do.
        dropout: of attention weights.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        layer_idx: int,
        hidden_size: int,
        num_heads: int,
        terms: Sequence[str] = ("c2p", "p2c"),
        share_projections: bool = True,
        key_bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        head_dim = hidden_size // num_heads
        scaling = (head_dim * (1 + len(terms))) ** -0.5
        super().__init__(
            *(config, layer_idx, hidden_size, num_heads, num_heads, head_dim),
            bias=True,
            dropout=dropout,
            scaling=scaling,
            is_causal=False,
        )
        self.terms = tuple(terms)
        if not key_bias:
            self.k_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        if not share_projections:
            if "c2p" in terms:
                self.pos_k_proj = nn.Linear(hidden_size, hidden_size, bias=key_bias)
            if "p2c" in terms:
                self.pos_q_proj = nn.Linear(hidden_size, hidden_size)
        self.shares_projections = share_projections

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        rows: RelativeRows | None = None,
        query: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, T, D), mask as the backend wants it -> y (B, T, D) and, from eager, the weights (B, H, T, T).

        Args:
            positions, rows: from `RelativePositions`, for T tokens; not needed without terms.
            query: (B, T, D), what queries are made of, if not of x.
        """
        q = self.q_proj(x if query is None else query).unflatten(-1, (-1, self.head_dim))  # (B, T, H, K)
        k, v = (proj(x).unflatten(-1, (-1, self.head_dim)) for proj in (self.k_proj, self.v_proj))
        bias = self.position_bias(q, k, positions, rows) if self.terms and x.numel() else None
        q, k, v = (z.transpose(1, 2) for z in (q, k, v))
        if bias is None:
            y, weights = self.attend(q, k, v, mask, **kwargs)
        elif self.config._attn_implementation == "sdpa":
            y, weights = self._attend_with_bias(q, k, v, mask, bias, **kwargs), None
        else:
            y, weights = self.attend(q, k, v, mask, position_bias=bias, **kwargs)
        return self.o_proj(y.flatten(2)), weights

    def position_bias(self, q: Tensor, k: Tensor, positions: Tensor, rows: RelativeRows) -> Tensor:
        """q and k (B, T, H, K), positions (R, D) -> (B, H, T, T), what positions add to scaled scores."""
        B, T, H, _ = q.shape
        bias = None
        if "c2p" in self.terms:
            proj = self.k_proj if self.shares_projections else self.pos_k_proj
            scores = diagonal_scores(q, self._table(proj, positions), rows.c2p, rows.block_size)
            bias = scores.flatten(2, 3)  # (B, H, N, b, N b) -> (B, H, N b, N b)
        if "p2c" in self.terms:
            proj = self.q_proj if self.shares_projections else self.pos_q_proj
            scores = diagonal_scores(k, self._table(proj, positions), rows.p2c, rows.block_size)
            scores = scores.permute(0, 1, 4, 2, 3)  # keys last
            if bias is not None:
                scores = bias.unflatten(-1, scores.shape[-2:]) + scores
            bias = scores.flatten(3)
        # Even a cut that takes all has a gradient that is copied
        return bias if bias.shape[-1] == T else bias[..., :T, :T]

    def _table(self, proj: nn.Module, positions: Tensor) -> Tensor:
        """Rows (R, D) projected, scaled and taken apart into heads: (H, R, K)."""
        return (proj(positions) * self.scaling).unflatten(-1, (-1, self.head_dim)).transpose(0, 1)

    def _attend_with_bias(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor, **kwargs: Any
    ) -> Tensor:
        """q, k, v (B, H, T, K), a mask and bias (B, H, T, T) -> (B, T, H, K), by few passes over (T, T).

        The mask is written into the bias, and that is all the kernel sees. Kernels for CPUs have no gradient of a
        bias, so where one is wanted it is what the product of queries and keys is added to; in training always, for
        checkpointing runs the same step with gradients and without.
        """
        if mask is not None:
            is_boolean = mask.dtype == torch.bool
            bias = bias.masked_fill(~mask, torch.finfo(bias.dtype).min) if is_boolean else bias + mask
        if bias.device.type != "cpu" or not (self.training or bias.requires_grad):
            return self.attend(q, k, v, bias, **kwargs)[0]
        num_heads = q.shape[1]
        q, k, v, bias = (z.reshape(-1, *z.shape[2:]) for z in (q, k, v, bias))
        scores = torch.baddbmm(bias, q, k.mT, alpha=self.scaling)
        weights, factor = dropped_softmax(scores, self.dropout if self.training else 0.0)
        y = torch.bmm(weights, v * factor)
        return y.unflatten(0, (-1, num_heads)).transpose(1, 2)
