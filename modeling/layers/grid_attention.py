"""Attention on a grid of patches, whole or in windows, with relative positions that are decomposed by axis.

Li et al. 2021, "Improved Multiscale Vision Transformers", https://arxiv.org/abs/2112.01526, section 4.1, in windows as
in Li et al. 2022, https://arxiv.org/abs/2203.16527. For a query at (i, j) and a key at (i', j') of a grid of S x S:

    score = q k^T / sqrt(K) + q R_h[i - i'] + q R_w[j - j'],      R_h, R_w (2 S - 1, K)

The last two terms are a product of longer queries and keys, which no backend needs to be told about:

    q' = [q / sqrt(K), (q R_h[i - m])_m, (q R_w[j - m])_m],   k' = [k, onehot(i'), onehot(j')]

That never makes a matrix of S^2 x S^2; on a CPU, where no gradient is asked for, the terms are added a few rows of the
grid at a time, in memory that stays in the cache.

Shapes: B images or windows, H heads, S side of a grid, T = S^2 patches, K head size, D hidden size.
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers import initialization as init

from .attention import DispatchedAttention

_BLOCK = 1 << 21  # scores that are biased at once: as many as a cache holds


def relative_rows(table: Tensor) -> Tensor:
    """table (2 S - 1, K) -> (S, S, K): for a query's place and a key's, the row of their distance."""
    place = torch.arange(len(table) // 2 + 1, device=table.device)
    return table[place[:, None] - place + len(place) - 1]


def axis_terms(q: Tensor, table_h: Tensor, table_w: Tensor) -> tuple[Tensor, Tensor]:
    """What relative positions add to the scores, for the row and for the column of the key.

    Args:
        q: (B, H, T, K), unscaled.
        table_h, table_w: (2 S - 1, K).

    Returns:
        two of (B, H, S, S, S): query's row, query's column, key's row or column.
    """
    rows_h, rows_w = relative_rows(table_h), relative_rows(table_w)
    grid = q.unflatten(2, (len(rows_h), -1))
    return torch.einsum("bnijk,imk->bnijm", grid, rows_h), torch.einsum("bnijk,jmk->bnijm", grid, rows_w)


def extended(q: Tensor, k: Tensor, v: Tensor, terms: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, H, T, K + 2 S) whose plain products are the scores; values end with zeros.

    Args:
        q, k, v: (B, H, T, K).
        terms: from `axis_terms`.
    """
    side = terms[0].shape[-1]
    q = torch.cat((q * q.shape[-1] ** -0.5, *(term.flatten(2, 3) for term in terms)), dim=-1)
    one = torch.eye(side, dtype=k.dtype, device=k.device)
    places = torch.cat((one.repeat_interleave(side, 0), one.repeat(side, 1)), dim=-1)
    k = torch.cat((k, places.expand(*k.shape[:2], -1, -1)), dim=-1)
    return q, k, F.pad(v, (0, 2 * side))


def attention_by_rows(
    q: Tensor, k: Tensor, v: Tensor, terms: tuple[Tensor, Tensor], groups: list[tuple[int, int]] | None = None
) -> Tensor:
    """The same attention (B, T, H, K), with the terms added for some rows of some windows at a time; no gradient.

    Args:
        q, k, v: (B, H, T, K).
        terms: from `axis_terms`.
        groups: how many windows follow each other, and of how many of their rows the outputs are wanted; the others
            are left unwritten. All of all without it.
    """
    batch, heads, length, size = q.shape
    side = terms[0].shape[-1]
    row = side * length  # scores of the queries of one row of the grid
    num_rows = min(max(_BLOCK // row, 1), side)
    num_heads = min(max(_BLOCK // (num_rows * row), 1), heads)
    num_grids = min(max(_BLOCK // (num_heads * num_rows * row), 1), batch)
    bias = q.new_empty(num_grids * num_heads * num_rows * row)
    start = 0
    y = q.new_empty(batch, length, heads, size)
    out = y.transpose(1, 2)
    by_row, by_column = terms
    for number, wanted in groups or [(batch, side)]:
        stop = start + number
        for b, h in product(range(start, stop, num_grids), range(0, heads, num_heads)):
            part = (slice(b, min(b + num_grids, stop)), slice(h, h + num_heads))
            for i in range(0, wanted, num_rows):
                rows = slice(i, min(i + num_rows, wanted))
                down, along = by_row[part][:, :, rows], by_column[part][:, :, rows]
                block = bias[: down.numel() * side].view(*down.shape, side)
                torch.add(down[..., None], along[..., None, :], out=block)
                queries = (*part, slice(i * side, rows.stop * side))
                block = block.view(*down.shape[:2], -1, length)
                out[queries] = F.scaled_dot_product_attention(q[queries], k[part], v[part], block)
        start = stop
    return y


def cut_windows(x: Tensor, window: int) -> Tensor:
    """x (B, h, w, ...), h and w multiples of the window -> (B windows, window, window, ...)."""
    height, width = x.shape[1] // window, x.shape[2] // window
    x = x.unflatten(2, (width, window)).unflatten(1, (height, window))
    return x.transpose(2, 3).flatten(0, 2)


def join_windows(x: Tensor, height: int, width: int) -> Tensor:
    """x (B windows, window, window, ...) -> (B, height, width, ...), without what lies beyond."""
    window = x.shape[1]
    rows, columns = -(-height // window), -(-width // window)
    x = x.unflatten(0, (len(x) // (rows * columns), rows, columns)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]


class GridAttention(DispatchedAttention):
    """Attention of all patches to all, or inside windows.

    A grid that is no multiple of the window is filled up on the right and below with empty patches, which are seen
    like others, as in the published model; they cost nothing before the scores.

    Args:
        config, layer_idx: see `DispatchedAttention`.
        grid_size: S of the images, in patches.
        window_size: S of a window; 0 for attention of all patches to all.
        bias: of the projection to queries, keys and values.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        layer_idx: int,
        hidden_size: int,
        num_heads: int,
        grid_size: int,
        window_size: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(config, layer_idx, 1, scaling=1.0, is_causal=False)  # queries come scaled
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        self.window_size = window_size
        side = window_size or grid_size
        self.qkv_proj = nn.Linear(hidden_size, 3 * hidden_size, bias=bias)
        self.o_proj = nn.Linear(hidden_size, hidden_size)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, self.head_size))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, self.head_size))

    def initialise(self) -> None:
        """Relative positions start without effect."""
        init.zeros_(self.rel_pos_h)
        init.zeros_(self.rel_pos_w)

    def forward(self, x: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """x (B, S, S, D) -> y (B, S, S, D), and from eager the weights (B windows, H, T, T)."""
        height, width = x.shape[1:3]
        qkv = self.qkv_proj(x.flatten(1, 2)).unflatten(1, (height, width))  # peft takes four axes for a convolution's
        window = self.window_size
        beyond = [-size % window if window else 0 for size in (height, width)]
        if any(beyond):
            full = qkv.new_empty(len(x), height + beyond[0], width + beyond[1], qkv.shape[-1])
            full[:, :height, :width] = qkv
            full[:, height:] = full[:, :, width:] = self.qkv_proj(x.new_zeros(1, 1, x.shape[-1]))
            qkv = full
        if window:
            qkv = cut_windows(qkv, window)
        side = qkv.shape[1]
        # (B, S, S, 3 D) -> three of (B, H, T, K)
        q, k, v = qkv.flatten(1, 2).unflatten(-1, (3, self.num_heads, self.head_size)).permute(2, 0, 3, 1, 4).unbind()
        groups = None
        if beyond[0]:  # the lowest windows of each image have rows that nobody will read
            rows, columns = -(-height // window), -(-width // window)
            groups = [((rows - 1) * columns, window), (columns, window - beyond[0])] * len(x)
        y, weights = self.mix(q, k, v, groups, **kwargs)
        y = y.flatten(2)  # (B, T, H, K) -> (B, T, D)
        if window:
            y = join_windows(y.unflatten(1, (side, side)), height, width).flatten(1, 2)
        return self.o_proj(y).unflatten(1, (height, width)), weights

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, groups: list[tuple[int, int]] | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """q, k, v (B, H, T, K) -> y (B, T, H, K), and weights or None; groups as for `attention_by_rows`."""
        terms = axis_terms(q, self.rel_pos_h, self.rel_pos_w)
        by_rows = q.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if by_rows and self.config._attn_implementation == "sdpa" and q.numel():
            return attention_by_rows(q, k, v, terms, groups), None
        y, weights = self.attend(*extended(q, k, v, terms), None, **kwargs)
        return y[..., : v.shape[-1]], weights
