"""Attention of blocks of tokens to global, neighbouring and random blocks: time and memory grow with T.

Zaheer et al. 2020, "Big Bird", https://arxiv.org/abs/2007.14062, sections 2 and appendix D, internal global tokens. A
text of n blocks of b tokens: the first and the last block see all and are seen by all, and block i of the others sees

    {0, n - 1} | {i - 1, i, i + 1} | R_h(i),   R_h(i): r blocks of none of these, drawn for each layer and head

The draw is a function of a seed, the number of blocks and the layer: the same in training and in evaluation, in every
process, and after loading. A text of at most 5 + 2 r blocks sees all of itself.

Shapes: B batch, T tokens, D hidden size, H heads, K head size, M documents, L tokens of the longest, n blocks of it,
b tokens a block, S blocks that a block sees.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from .attention import exact_attention
from .documents import Documents
from .flex import block_mask, flex_attention


@lru_cache(maxsize=1024)
def random_blocks(num_blocks: int, num_heads: int, num_random: int, seed: int) -> Tensor:
    """R_h(i) for the blocks between the first and the last -> (H, n - 2, r), without repetition, in order.

    Args:
        num_blocks: n, at least 5 + r.
        num_heads: H.
        num_random: r.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + num_blocks)
    i, j = torch.arange(1, num_blocks - 1)[:, None], torch.arange(num_blocks)
    is_seen_anyhow = ((i - j).abs() <= 1) | (j == 0) | (j == num_blocks - 1)
    draw = torch.rand((num_heads, *is_seen_anyhow.shape), generator=generator)
    return draw.masked_fill(is_seen_anyhow, -1.0).topk(num_random, dim=-1).indices.sort(dim=-1).values


@lru_cache(maxsize=1024)
def seen_blocks(num_blocks: int, num_heads: int, num_random: int, seed: int) -> Tensor:
    """The blocks that each of those between the first and the last sees -> (H, n - 2, 5 + r); see `random_blocks`.

    The second block names the first one twice, and the last but one the last: `is_repeated` says which not to count.
    """
    i = torch.arange(1, num_blocks - 1)
    always = torch.stack((torch.zeros_like(i), torch.full_like(i, num_blocks - 1), i - 1, i, i + 1), dim=-1)
    drawn = random_blocks(num_blocks, num_heads, num_random, seed)
    return torch.cat((always.expand(num_heads, -1, -1), drawn), dim=-1)


def is_repeated(num_blocks: int, num_random: int) -> Tensor:
    """Which of `seen_blocks` are named a second time -> (n - 2, 5 + r)."""
    repeated = torch.zeros((num_blocks - 2, 5 + num_random), dtype=torch.bool)
    repeated[0, 2] = repeated[-1, 4] = True
    return repeated


class BlockedText:
    """What attention between blocks needs to know of a batch; made once for all layers.

    Args:
        shape: (B, T).
        device: of the batch.
        block_size: b.
        num_random: r.
        documents: where the texts stand; None where each row is one, without padding.
        use_flex: whether FlexAttention is to read the pattern, in place of blocks of torch's own attention.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        device: torch.device,
        block_size: int,
        num_random: int,
        documents: Documents | None = None,
        use_flex: bool = False,
    ) -> None:
        self.documents, self.block_size, self.use_flex = documents, block_size, use_flex
        self.lengths = torch.full(shape[:1], shape[1], device=device) if documents is None else documents.lengths
        self.longest = shape[1] if documents is None else documents.longest
        is_long = self.lengths > (5 + 2 * num_random) * block_size
        self.long, self.short = is_long.nonzero()[:, 0], (~is_long).nonzero()[:, 0]
        self.num_blocks = -(-self.lengths[self.long] // block_size)  # (M,) of the long ones
        self.counts = self.num_blocks.tolist()
        most = max(self.counts, default=0)
        self.is_real = self._real(self.long, most * block_size)
        self.is_real_in_short = self._real(self.short, min(self.longest, (5 + 2 * num_random) * block_size))
        if most:
            self.is_repeated = torch.stack([self._filled(is_repeated(n, num_random), most) for n in self.counts])
            self.is_repeated = self.is_repeated.to(device)[:, None]  # (M, 1, n - 2, S)

    def _real(self, which: Tensor, num_tokens: int) -> Tensor | None:
        """(M, L), true on tokens of a text and not after its end; None where no text ends before."""
        lengths = self.lengths[which, None]
        is_real = torch.arange(num_tokens, device=lengths.device) < lengths
        return None if bool(is_real.all()) else is_real

    @staticmethod
    def _filled(table: Tensor, num_blocks: int) -> Tensor:
        """(..., n_m - 2, S) -> (..., n - 2, S), with zeros for blocks that a shorter text does not have."""
        return F.pad(table, (0, 0, 0, num_blocks - 2 - table.shape[-2]))

    def tables(self, num_heads: int, num_random: int, seed: int) -> Tensor:
        """`seen_blocks` of every long text -> (M, H, n - 2, S)."""
        most = max(self.counts)
        made = {n: self._filled(seen_blocks(n, num_heads, num_random, seed), most) for n in set(self.counts)}
        return torch.stack([made[n] for n in self.counts]).to(self.lengths.device)

    def block_mask(self, num_heads: int, num_random: int, seed: int) -> BlockMask:
        """The pattern of all heads for FlexAttention, short texts seeing all of themselves."""
        size, device, lengths = self.block_size, self.lengths.device, self.lengths
        num_blocks = -(-self.longest // size)
        visible = torch.ones((len(lengths), num_heads, num_blocks, num_blocks), dtype=torch.bool)
        for text, count in zip(self.long.tolist(), self.counts, strict=True):
            seen = seen_blocks(count, num_heads, num_random, seed)
            inner = torch.zeros((num_heads, count - 2, num_blocks), dtype=torch.bool).scatter_(-1, seen, True)
            visible[text, :, 1 : count - 1] = inner
        visible = visible.to(device)

        def sees(text: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            is_real = (j < lengths[text]) | (i == j)  # what comes after a text sees itself, or it would see nothing
            return visible[text, head, i // size, j // size] & is_real

        return block_mask(sees, (len(lengths), num_heads, self.longest), device)


def random_block_attention(
    q: Tensor, k: Tensor, v: Tensor, tables: Tensor, text: BlockedText, dropout: float = 0.0
) -> Tensor:
    """Long texts to themselves -> (M, H, n b, K).

    Args:
        q, k, v: (M, H, n b, K), filled up to whole blocks.
        tables: (M, H, n - 2, S), the blocks that each block between the first and the last sees.
        text: its blocks.
        dropout: on the weights.
    """
    num_texts, num_heads, _, head_dim = q.shape
    size, num_inner, num_seen = text.block_size, *tables.shape[2:]
    q = q.unflatten(2, (-1, size))  # (M, H, n, b, K)
    first = torch.arange(num_texts * num_heads, device=q.device).view(num_texts, num_heads, 1, 1) * (num_inner + 2)
    # A table of embeddings is what a block is looked up in: its gradient is summed faster than that of an index
    keys, values = (
        F.embedding(first + tables, z.reshape(-1, size * head_dim)).view(-1, num_inner, num_seen * size, head_dim)
        for z in (k, v)
    )  # (M H, n - 2, S b, K)
    hidden = text.is_repeated[..., None].expand(-1, num_heads, -1, -1, size)  # (M, H, n - 2, S, b)
    if text.is_real is not None:
        of_text = torch.arange(num_texts, device=q.device)[:, None, None, None]
        hidden = hidden | ~text.is_real.unflatten(1, (-1, size))[of_text, tables]
    mask = torch.zeros((), dtype=q.dtype, device=q.device).masked_fill(hidden, -torch.inf)
    mask = mask.reshape(-1, num_inner, 1, num_seen * size)
    mask = mask.expand(-1, -1, size, -1)
    inner = exact_attention(q[:, :, 1:-1].flatten(0, 1), keys, values, mask, dropout).unflatten(
        0, (num_texts, num_heads)
    )

    row, last = torch.arange(num_texts, device=q.device), text.num_blocks - 1
    ends = torch.cat((q[:, :, 0], q[row, :, last]), dim=2)  # (M, H, 2 b, K)
    mask = None if text.is_real is None else text.is_real[:, None, None]
    of_first, of_last = exact_attention(ends, k, v, mask, dropout).split(size, dim=2)
    y = torch.cat((of_first[:, :, None], inner, torch.zeros_like(of_first)[:, :, None]), dim=2)
    return y.transpose(1, 2).index_put((row, last), of_last).transpose(1, 2).flatten(2, 3)


class RandomBlockAttention(nn.Module):
    """Multi-head attention to global, neighbouring and random blocks.

    Args:
        hidden_size: D.
        num_heads: H.
        num_random: r.
        seed: of the draw of random blocks.
        dropout: on the weights.
    """

    def __init__(self, hidden_size: int, num_heads: int, num_random: int, seed: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.num_random, self.seed, self.dropout = num_heads, num_random, seed, dropout
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(hidden_size, hidden_size) for _ in range(3))
        self.o_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, text: BlockedText, **_: Any) -> tuple[Tensor, None]:
        """x (B, T, D) -> y (B, T, D) and no weights, which are never all there."""
        q, k, v = (p(x).unflatten(-1, (self.num_heads, -1)) for p in (self.q_proj, self.k_proj, self.v_proj))
        if text.documents is not None:
            q, k, v = (text.documents.split(z) for z in (q, k, v))
        y = self.attend(*(z.transpose(1, 2) for z in (q, k, v)), text).transpose(1, 2)  # (M, L, H, K)
        if text.documents is not None:
            y = text.documents.join(y)
        return self.o_proj(y.flatten(2)), None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, text: BlockedText) -> Tensor:
        """Texts to themselves, the short ones as a whole: q, k, v (M, H, L, K) -> (M, H, L, K)."""
        dropout = self.dropout if self.training else 0.0
        if text.use_flex:
            mask = text.block_mask(self.num_heads, self.num_random, self.seed)
            return flex_attention(self, q, k, v, mask, dropout).transpose(1, 2)
        if not text.counts:
            mask = None if text.is_real_in_short is None else text.is_real_in_short[:, None, None]
            return exact_attention(q, k, v, mask, dropout)
        tables = text.tables(self.num_heads, self.num_random, self.seed)
        num_tokens, whole = q.shape[2], max(text.counts) * text.block_size
        of_long = (F.pad(z[text.long], (0, 0, 0, whole - num_tokens)) for z in (q, k, v))
        of_long = random_block_attention(*of_long, tables, text, dropout)[:, :, :num_tokens]
        if not len(text.short):
            return of_long
        end = min(num_tokens, (5 + 2 * self.num_random) * text.block_size)
        mask = None if text.is_real_in_short is None else text.is_real_in_short[:, None, None]
        of_short = exact_attention(*(z[text.short, :, :end] for z in (q, k, v)), mask, dropout)
        y = torch.zeros_like(q).index_put((text.long,), of_long)
        return y.index_put((text.short,), F.pad(of_short, (0, 0, 0, num_tokens - end)))
