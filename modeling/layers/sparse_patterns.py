"""The patterns of factorised sparse attention: every token sees about sqrt(T) others, any two are two steps apart.

Child et al. 2019, "Generating Long Sequences with Sparse Transformers", https://arxiv.org/abs/1904.10509, section 4.2.
With a stride l near sqrt(T), token i sees those j <= i that are in a set:

    strided   A1: i - j <= l                      A2: (i - j) mod l = 0
    fixed     A1: the block of l tokens of i      A2: j mod l in one of the summary columns at the end of each block

One head may use A1 or A2, or their union under one softmax.

Shapes: B batch, T queries, S keys, H heads, K head size, N blocks, L stride, M keys a query may see.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class KeySet(ABC):
    """One of the sets of the paper, with L the stride: which keys a token sees, and how to multiply with them."""

    stride: int

    @abstractmethod
    def sees(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether token i sees token j <= i, by the formula."""

    @abstractmethod
    def near(self, i: Tensor, last: int) -> Tensor:
        """Positions (..., M) of all that tokens i (..., 1) may see, up to `last`; some may be negative or not seen."""

    @abstractmethod
    def in_blocks(self, num_blocks: int, device: torch.device) -> Tensor:
        """Positions of the keys of `scores`, (N or 1, L or 1, M)."""

    @abstractmethod
    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """q, k (B, H, N, L, K) -> (B, H, N, L, M)."""

    @abstractmethod
    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """weights (B, H, N, L, M), v (B, H, N, L, K) -> (B, H, N, L, K)."""


class SharedKeys(KeySet):
    """A set of which all queries of a block see the same keys."""

    @abstractmethod
    def keys(self, k: Tensor) -> Tensor:
        """k (B, H, N, L, K) -> those of each block (B, H, N or 1, M, K); of values alike."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """q, k (B, H, N, L, K) -> (B, H, N, L, M)."""
        return q @ self.keys(k).mT

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """weights (B, H, N, L, M), v (B, H, N, L, K) -> (B, H, N, L, K)."""
        return weights @ self.keys(v)


class Local(SharedKeys):
    """The last l tokens and the present one."""

    def sees(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether token i sees token j <= i."""
        return i - j <= self.stride

    def near(self, i: Tensor, last: int) -> Tensor:
        """Positions (..., M) of all that tokens i (..., 1) may see."""
        return i - torch.arange(self.stride + 1, device=i.device)

    def in_blocks(self, num_blocks: int, device: torch.device) -> Tensor:
        """Positions (N, 1, 2 L): the block before and the block itself."""
        first = torch.arange(-1, num_blocks - 1, device=device) * self.stride
        return first[:, None, None] + torch.arange(2 * self.stride, device=device)

    def keys(self, k: Tensor) -> Tensor:
        """k (B, H, N, L, K) -> those of each block (B, H, N or 1, M, K)."""
        return torch.cat((F.pad(k, (0, 0, 0, 0, 1, -1)), k), dim=-2)


class Strided(KeySet):
    """Every l-th token back from the present one: a column, if the text is written in rows of l."""

    def sees(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether token i sees token j <= i."""
        return (i - j) % self.stride == 0

    def near(self, i: Tensor, last: int) -> Tensor:
        """Positions (..., M) of all that tokens i (..., 1) may see."""
        return i - self.stride * torch.arange(last // self.stride + 1, device=i.device)

    def in_blocks(self, num_blocks: int, device: torch.device) -> Tensor:
        """Positions (1, L, N): the column of each query."""
        column = torch.arange(self.stride, device=device)[:, None]
        return (column + self.stride * torch.arange(num_blocks, device=device))[None]

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """q, k (B, H, N, L, K) -> (B, H, N, L, N)."""
        return (q.transpose(-2, -3) @ k.transpose(-2, -3).mT).transpose(-2, -3)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """weights (B, H, N, L, N), v (B, H, N, L, K) -> (B, H, N, L, K)."""
        return (weights.transpose(-2, -3) @ v.transpose(-2, -3)).transpose(-2, -3)


class Block(SharedKeys):
    """The tokens of the block that the present one is in."""

    def sees(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether token i sees token j <= i."""
        return i // self.stride == j // self.stride

    def near(self, i: Tensor, last: int) -> Tensor:
        """Positions (..., L) of all that tokens i (..., 1) may see."""
        return i // self.stride * self.stride + torch.arange(self.stride, device=i.device)

    def in_blocks(self, num_blocks: int, device: torch.device) -> Tensor:
        """Positions (N, 1, L)."""
        return torch.arange(num_blocks * self.stride, device=device).view(num_blocks, 1, self.stride)

    def keys(self, k: Tensor) -> Tensor:
        """k (B, H, N, L, K) -> those of each block (B, H, N or 1, M, K)."""
        return k


@dataclass(frozen=True)
class Summary(SharedKeys):
    """Some columns at the end of each block, which sum it up for later ones; group g counts them from the end."""

    size: int
    group: int = 0

    @property
    def columns(self) -> range:
        """Which tokens of a block."""
        end = self.stride - self.group * self.size
        return range(end - self.size, end)

    def sees(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether token i sees token j <= i."""
        column = j % self.stride
        return (column >= self.columns.start) & (column < self.columns.stop)

    def near(self, i: Tensor, last: int) -> Tensor:
        """Positions (..., M) of all that tokens i (..., 1) may see."""
        return self.in_blocks(last // self.stride + 1, i.device)[0, 0].expand(*i.shape[:-1], -1)

    def in_blocks(self, num_blocks: int, device: torch.device) -> Tensor:
        """Positions (1, 1, N size)."""
        first = torch.arange(num_blocks, device=device)[:, None] * self.stride
        return (first + torch.arange(self.columns.start, self.columns.stop, device=device)).view(1, 1, -1)

    def keys(self, k: Tensor) -> Tensor:
        """k (B, H, N, L, K) -> those of each block (B, H, N or 1, M, K)."""
        return k[..., self.columns.start : self.columns.stop, :].flatten(2, 3)[:, :, None]


class Itself(KeySet):
    """The present token, for a set that may not hold it."""

    def sees(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether token i sees token j <= i."""
        return i == j

    def near(self, i: Tensor, last: int) -> Tensor:
        """Positions (..., 1)."""
        return i

    def in_blocks(self, num_blocks: int, device: torch.device) -> Tensor:
        """Positions (N, L, 1)."""
        return torch.arange(num_blocks * self.stride, device=device).view(num_blocks, self.stride, 1)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """q, k (B, H, N, L, K) -> (B, H, N, L, 1)."""
        return (q * k).sum(-1, keepdim=True)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """weights (B, H, N, L, 1), v (B, H, N, L, K) -> (B, H, N, L, K)."""
        return weights * v


Union = tuple[KeySet, ...]  # the sets that a head sees under one softmax; a key in two of them counts once
Pattern = tuple[Union, ...]  # one for each head


def strided_pattern(stride: int, num_heads: int, heads: str = "merged", layer_idx: int = 0) -> Pattern:
    """Strided attention, for texts with a period, such as images and sound.

    Args:
        stride: l.
        num_heads: H.
        heads: "merged", all see both sets; "interleaved", all see the first in even layers and the second in odd
            ones; "split", the first half of them sees the first, the others the second.
        layer_idx: for "interleaved".
    """
    return _assign((Local(stride),), [(Strided(stride),)] * num_heads, heads, layer_idx)


def fixed_pattern(
    stride: int, summary_size: int, num_heads: int, heads: str = "merged", layer_idx: int = 0, num_groups: int = 1
) -> Pattern:
    """Fixed attention, for texts without a period.

    Args:
        stride: l.
        summary_size: c, columns of each block that later ones see.
        num_heads, heads, layer_idx: as for `strided_pattern`.
        num_groups: heads take turns in using this many groups of c columns.
    """
    summaries = [Summary(stride, summary_size, h % num_groups) for h in range(num_heads)]
    if heads == "merged":
        return tuple((Block(stride), summary) for summary in summaries)
    return _assign((Block(stride),), [(summary, Itself(stride)) for summary in summaries], heads, layer_idx)


def _assign(first: Union, second: Sequence[Union], heads: str, layer_idx: int) -> Pattern:
    num_heads = len(second)
    if heads == "merged":
        return tuple((*first, *union) for union in second)
    if heads == "interleaved":
        return tuple(second) if layer_idx % 2 else (first,) * num_heads
    half = (num_heads + 1) // 2
    return (*(first,) * half, *second[half:])


def union_sees(union: Union, i: Tensor, j: Tensor) -> Tensor:
    """Whether token i sees token j, which may be after it."""
    return reduce(torch.logical_or, (keys.sees(i, j) for keys in union)) & (j <= i)


def counted(union: Union, index: int, i: Tensor, j: Tensor) -> Tensor:
    """Whether set `index` is the first of the union through which token i sees token j."""
    seen = union[index].sees(i, j) & (j <= i) & (j >= 0)
    for before in union[:index]:
        seen &= ~before.sees(i, j)
    return seen
