"""Attention of blocks of tokens to their neighbours, to random blocks, and to global tokens beside the text.

Zaheer et al. 2020, "Big Bird", https://arxiv.org/abs/2007.14062, section 2, the extended construction (ETC). Every
text has g global tokens of its own, which see all of it and each other and are seen by all of it. Of a text of n
blocks, block i sees beside them

    {i - 1, i, i + 1} | R_h(i),   R_h(i): r blocks of none of these, drawn for each layer and head

so no block is global, and T (3 b + r b + g) scores are made. The draw is a function of a seed, the number of blocks
and the layer; a text of at most 3 + 2 r blocks sees all of itself.

Shapes: B batch, T tokens, D hidden size, H heads, K head size, M documents, L tokens of the longest, n blocks of it,
b tokens a block, S blocks that a block sees, g global tokens of a document.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .attention import exact_attention
from .documents import Documents
from .random_block_attention import RandomBlockAttention


@lru_cache(maxsize=1024)
def near_and_random_blocks(num_blocks: int, num_heads: int, num_random: int, seed: int) -> Tensor:
    """The blocks that each block sees -> (H, n, 3 + r); -1 and n are those beyond the ends, which are not there.

    Args:
        num_blocks: n, at least 3 + r.
        num_heads: H.
        num_random: r, without repetition, in order.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + num_blocks)
    i, j = torch.arange(num_blocks)[:, None], torch.arange(num_blocks)
    draw = torch.rand((num_heads, num_blocks, num_blocks), generator=generator)
    drawn = draw.masked_fill((i - j).abs() <= 1, -1.0).topk(num_random, dim=-1).indices.sort(dim=-1).values
    near = i + torch.arange(-1, 2)
    return torch.cat((near.expand(num_heads, -1, -1), drawn), dim=-1)


class TextBesideGlobals:
    """What the attention needs to know of a batch; made once for all layers.

    Args:
        shape: (B, T).
        device: of the batch.
        block_size: b.
        num_random: r.
        documents: where the texts stand; None where each row is one, without padding.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        device: torch.device,
        block_size: int,
        num_random: int,
        documents: Documents | None = None,
    ) -> None:
        self.shape, self.documents, self.block_size = shape, documents, block_size
        self.lengths = torch.full(shape[:1], shape[1], device=device) if documents is None else documents.lengths
        self.longest = shape[1] if documents is None else documents.longest
        self.longest_short = min(self.longest, (3 + 2 * num_random) * block_size)
        is_long = self.lengths > (3 + 2 * num_random) * block_size
        self.long, self.short = is_long.nonzero()[:, 0], (~is_long).nonzero()[:, 0]
        self.counts = (-(-self.lengths[self.long] // block_size)).tolist()

    def is_real(self, which: Tensor, num_tokens: int) -> Tensor:
        """(M, L), true on tokens of a text and not after its end."""
        return torch.arange(num_tokens, device=self.lengths.device) < self.lengths[which, None]

    def tables(self, num_heads: int, num_random: int, seed: int) -> Tensor:
        """`near_and_random_blocks` of every long text -> (M, H, n, S), -1 for blocks that are not there."""
        made = {n: near_and_random_blocks(n, num_heads, num_random, seed) for n in set(self.counts)}
        made = {n: table.masked_fill(table == n, -1) for n, table in made.items()}
        most = max(self.counts)
        whole = [F.pad(made[n], (0, 0, 0, most - n), value=-1) for n in self.counts]
        return torch.stack(whole).to(self.lengths.device)


def extra_global_attention(
    q: Tensor, k: Tensor, v: Tensor, globals_: tuple[Tensor, Tensor], tables: Tensor, is_real: Tensor, dropout: float
) -> Tensor:
    """Long texts to themselves and to their global tokens -> (M, H, n b, K).

    Args:
        q, k, v: (M, H, n b, K), filled up to whole blocks.
        globals_: keys and values (M, H, g, K) of the global tokens.
        tables: (M, H, n, S), the blocks that each block sees; -1 for none.
        is_real: (M, n b), true on tokens of the text.
        dropout: on the weights.
    """
    num_texts, num_heads, num_blocks, num_seen = tables.shape
    size, head_dim = q.shape[2] // num_blocks, q.shape[-1]
    first = torch.arange(num_texts * num_heads, device=q.device).view(num_texts, num_heads, 1, 1) * num_blocks
    places = first + tables.clamp_min(0)
    # A table of embeddings is what a block is looked up in: its gradient is summed faster than that of an index
    of_blocks = (
        F.embedding(places, z.reshape(-1, size * head_dim)).view(-1, num_blocks, num_seen * size, head_dim)
        for z in (k, v)
    )  # (M H, n, S b, K)
    of_globals = (z.flatten(0, 1)[:, None].expand(-1, num_blocks, -1, -1) for z in globals_)  # (M H, n, g, K)
    keys, values = (torch.cat(pair, dim=2) for pair in zip(of_globals, of_blocks, strict=True))
    of_text = torch.arange(num_texts, device=q.device)[:, None, None, None]
    seen = is_real.unflatten(1, (-1, size))[of_text, tables.clamp_min(0)] & (tables >= 0)[..., None]
    seen = F.pad(seen.flatten(-2), (globals_[0].shape[2], 0), value=True).flatten(0, 1)  # (M H, n, g + S b)
    q = q.unflatten(2, (num_blocks, size)).flatten(0, 1)  # (M H, n, b, K)
    y = exact_attention(q, keys, values, seen[:, :, None].expand(-1, -1, size, -1), dropout)
    return y.unflatten(0, (num_texts, num_heads)).flatten(2, 3)


class ExtraGlobalAttention(RandomBlockAttention):
    """Multi-head attention of texts and of the global tokens beside them.

    Args:
        num_globals: g.
        args, kwargs: as for `RandomBlockAttention`.
    """

    def __init__(self, *args: Any, num_globals: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_globals = num_globals

    def forward(self, x: Tensor, text: TextBesideGlobals, **_: Any) -> tuple[Tensor, None]:
        """x (1, M g + B T, D), the global tokens of all documents before all rows -> y alike, and no weights."""
        q, k, v = (p(x[0]).unflatten(-1, (self.num_heads, -1)) for p in (self.q_proj, self.k_proj, self.v_proj))
        num_globals = len(text.lengths) * self.num_globals
        beside = [z[:num_globals].unflatten(0, (-1, self.num_globals)).transpose(1, 2) for z in (q, k, v)]
        q, k, v = (z[num_globals:].unflatten(0, text.shape) for z in (q, k, v))
        if text.documents is not None:
            q, k, v = (text.documents.split(z) for z in (q, k, v))
        of_globals, y = self.attend_beside(beside, [z.transpose(1, 2) for z in (q, k, v)], text)
        y = y.transpose(1, 2)  # (M, L, H, K)
        if text.documents is not None:
            y = text.documents.join(y)
        y = torch.cat((of_globals.transpose(1, 2).flatten(0, 1), y.flatten(0, 1)))
        return self.o_proj(y.flatten(1))[None], None

    def attend_beside(
        self, beside: list[Tensor], of_text: list[Tensor], text: TextBesideGlobals
    ) -> tuple[Tensor, Tensor]:
        """Queries, keys and values (M, H, g, K) of global tokens, and (M, H, L, K) of texts -> of both alike."""
        dropout, (q, k, v) = self.dropout if self.training else 0.0, of_text
        everything = torch.arange(len(q), device=q.device)
        of_globals = self._see_all(beside[0], everything, text.longest, beside, of_text, text, dropout)
        y, num_tokens, end = torch.zeros_like(q), q.shape[2], text.longest_short
        if len(text.short):
            short = self._see_all(q[text.short, :, :end], text.short, end, beside, of_text, text, dropout)
            y = y.index_put((text.short,), F.pad(short, (0, 0, 0, num_tokens - end)))
        if len(text.long):
            whole = max(text.counts) * text.block_size
            filled = (F.pad(z[text.long], (0, 0, 0, whole - num_tokens)) for z in (q, k, v))
            tables = text.tables(self.num_heads, self.num_random, self.seed)
            globals_ = beside[1][text.long], beside[2][text.long]
            long = extra_global_attention(*filled, globals_, tables, text.is_real(text.long, whole), dropout)
            y = y.index_put((text.long,), long[:, :, :num_tokens])
        return of_globals, y

    @staticmethod
    def _see_all(
        q: Tensor,
        which: Tensor,
        num_tokens: int,
        beside: list[Tensor],
        of_text: list[Tensor],
        text: TextBesideGlobals,
        dropout: float,
    ) -> Tensor:
        """Queries of some documents to their global tokens and all of their first tokens -> as q."""
        k, v = (
            torch.cat((g[which], z[which, :, :num_tokens]), 2) for g, z in zip(beside[1:], of_text[1:], strict=True)
        )
        seen = F.pad(text.is_real(which, num_tokens), (beside[0].shape[2], 0), value=True)
        return exact_attention(q, k, v, seen[:, None, None], dropout)
