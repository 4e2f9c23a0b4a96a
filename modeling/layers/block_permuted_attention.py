"""Attention of each block of a text to one block for every head, which a permutation of blocks names.

Qiu et al. 2019, "Blockwise Self-Attention for Long Document Understanding" (BlockBERT),
https://arxiv.org/abs/1911.02972. A text of T tokens is cut into n blocks, and queries of block i see in head h

    the keys of block π_h(i) = (i + s_h) mod n alone

Heads with s = 0 see their own block, the others reach across: T^2 / n scores a head in place of T^2, and no mask of
T x T. Blocks are those of the text itself, whose sizes differ by one token at most where n does not divide T; a text
of fewer than n tokens has as many blocks as tokens. It is for encoders: where a block ends is known only when the text
has ended.

Shapes: B batch, T tokens, H heads, K head size, M documents, L longest document, n blocks, b tokens of the largest.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .attention import Attention, exact_attention
from .documents import Documents


def default_shifts(num_heads: int, num_blocks: int) -> list[int]:
    """s_h of each head: a sixth of them for each shift and the rest unshifted, 10:2 and 8:2:2 of 12 as published."""
    share = max(1, num_heads // 6)
    unshifted = max(1, num_heads - share * (num_blocks - 1))
    return [0 if h < unshifted else 1 + (h - unshifted) // share for h in range(num_heads)]


class BlockedRows:
    """Where the blocks of a batch stand; made once for all layers.

    Args:
        shape: (B, T).
        device: of the batch.
        num_blocks: n.
        documents: where the texts stand; None where each row is one, without padding.
    """

    def __init__(
        self, shape: tuple[int, int], device: torch.device, num_blocks: int, documents: Documents | None = None
    ) -> None:
        self.documents = documents
        self.longest = shape[1] if documents is None else documents.longest
        self.num_blocks = num_blocks
        self.size = -(-self.longest // self.num_blocks)
        self.is_even = documents is None and self.longest == self.num_blocks * self.size  # so no block is filled up
        lengths = torch.tensor([shape[1]], device=device) if documents is None else documents.lengths.clamp_min(1)
        self.counts = lengths.clamp_max(self.num_blocks)[:, None]  # (M, 1), blocks of each text
        bounds = torch.arange(self.num_blocks + 1, device=device).minimum(self.counts)
        bounds = (bounds * lengths[:, None] + self.counts - 1) // self.counts  # (M, n + 1)
        tokens = bounds[:, :-1, None] + torch.arange(self.size, device=device)
        self.is_real = tokens < bounds[:, 1:, None]  # (M, n, b)
        self.tokens = tokens.clamp_max(self.longest - 1)
        token = torch.arange(self.longest, device=device).expand(len(lengths), -1).minimum(lengths[:, None] - 1)
        block = token * self.counts // lengths[:, None]
        self.places = block * self.size + token - bounds.gather(1, block)  # (M, L), where each token is in its blocks

    def seen(self, shifts: Tensor) -> Tensor:
        """Which block each block sees in each head -> (M, H, n), shifts (H)."""
        return (torch.arange(self.num_blocks, device=shifts.device) + shifts[:, None]) % self.counts[:, None]


def block_permuted_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shifts: Sequence[int],
    rows: BlockedRows,
    scaling: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of every block to the one that its head's shift leads to -> y (B, T, H, K), zeros on padding.

    Args:
        q, k, v: (B, H, T, K).
        shifts: s_h of each head.
        rows: where the blocks stand.
        scaling: factor on the scores, 1 / sqrt(K) by default.
        dropout: on the weights.
    """
    if rows.documents is not None:
        q, k, v = (rows.documents.split(z.transpose(1, 2)).transpose(1, 2) for z in (q, k, v))
    y = _attend(q, k, v, shifts, rows, scaling=scaling, dropout=dropout).transpose(1, 2)
    return y if rows.documents is None else rows.documents.join(y)


def _attend(q: Tensor, k: Tensor, v: Tensor, shifts: Sequence[int], rows: BlockedRows, **options: Any) -> Tensor:
    """Texts (M, H, L, K) to themselves; blocks smaller than the largest are filled up with what nobody sees."""
    num_texts, num_heads = q.shape[:2]
    seen = rows.seen(torch.tensor(shifts, device=q.device)).expand(num_texts, -1, -1)[..., None]  # (M, H, n, 1)
    tokens, is_real = (
        z[:, None].expand(num_texts, num_heads, -1, -1) for z in (rows.tokens, rows.is_real)
    )  # (M, H, n, b)
    keys = tokens.gather(2, seen.expand_as(tokens)).flatten(2)
    mask = None
    if not rows.is_even:
        mask = is_real.gather(2, seen.expand_as(is_real)).flatten(1, 2)[:, :, None]  # (M, H n, 1, b)
    q, k, v = (
        z.gather(2, at[..., None].expand(-1, -1, -1, z.shape[-1])).unflatten(2, (rows.num_blocks, -1)).flatten(1, 2)
        for z, at in ((q, tokens.flatten(2)), (k, keys), (v, keys))
    )  # (M, H n, b, K)
    y = exact_attention(q, k, v, mask, **options).unflatten(1, (num_heads, -1)).flatten(2, 3)
    places = rows.places.expand(num_texts, -1)[:, None, :, None]
    return y.gather(2, places.expand(-1, num_heads, -1, y.shape[-1]))


class BlockPermutedAttention(Attention):
    """Multi-head attention to one block a head; `mask` is a `BlockedRows`, whatever backend is set."""

    def __init__(self, *args: Any, shifts: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shifts = list(shifts)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: BlockedRows, **_: Any) -> tuple[Tensor, None]:
        """q, k, v (B, H, T, K) -> o (B, T, H, K) and no weights, which are never all there."""
        dropout = self.dropout if self.training else 0.0
        return block_permuted_attention(q, k, v, self.shifts, mask, self.scaling, dropout), None
