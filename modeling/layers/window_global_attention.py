"""Attention to a window on both sides and to a few global tokens, in blocks: time and memory grow with T (w + G).

Beltagy et al. 2020, "Longformer", https://arxiv.org/abs/2004.05150, section 3. Token i sees a window of r tokens to
each side, every d-th one under a dilation d, and the set G of global tokens; a token of G sees all, with projections
of its own:

    W(i) = {j : |i - j| <= d r, d divides i - j}
    y_i  = softmax_{j in W(i) | G}(q_i k_j^T / sqrt(K)) v_j              i not in G; each key counts once
    y_i  = softmax_j(q'_i k'_j^T / sqrt(K)) v'_j                         i in G

Queries are cut into blocks of C tokens, and a block looks at itself, at the m = ceil(r / C) blocks on each side and at
the global keys. Under a dilation the tokens of each residue mod d are a text of their own. Nothing of T x T is made.

Shapes: B batch, T tokens, D hidden size, H heads, K head size, G global tokens of a row, n blocks, C tokens a block,
S = (2 m + 1) C keys of a block.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from .attention import exact_attention
from .dropout import dropped_softmax
from .flex import block_mask, flex_attention

_MOST_QUERIES, _LEAST_QUERIES = 128, 16  # in a block


class WindowedText:
    """What windows and global tokens need to know of a batch; made once for all layers.

    Args:
        shape: (B, T).
        device: of the batch.
        documents: (B or 1, T) of numbers from 0, one for each packed document of a row and one for its padding; None
            where each row is one document without padding.
        is_global: (B, T), true on global tokens; None where there are none. Padding is never global.
        use_flex: whether FlexAttention is to read the pattern, in place of blocks of torch's own attention.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        device: torch.device,
        documents: Tensor | None = None,
        is_global: Tensor | None = None,
        use_flex: bool = False,
    ) -> None:
        self.use_flex = use_flex
        self.is_one_document = documents is None
        if documents is None:
            documents = torch.zeros((1, shape[1]), dtype=torch.long, device=device)
        self.documents = documents.expand(shape)
        self.index = self.is_filled = None  # (B, G): where the global tokens are, and which places hold one
        if is_global is not None and is_global.numel() and (most := int(is_global.sum(-1).max())):
            self.index = is_global.int().argsort(dim=-1, descending=True, stable=True)[:, :most]
            self.is_filled = is_global.gather(1, self.index)
            self.is_global = is_global
        self._masks: dict[tuple, Tensor | BlockMask] = {}

    def mask(self, one_side: int, dilation: int, block: int, dtype: torch.dtype) -> Tensor:
        """What is added to the scores of a block with its keys, the global ones first -> (B d n, 1, C, G + S).

        Args:
            one_side: r.
            dilation: d; a row is then d texts, each of every d-th token.
            block: C.
            dtype: of the scores.
        """
        key = (one_side, dilation, block, dtype)
        if key not in self._masks:
            seen = self._in_window(one_side, dilation, block)
            if self.index is not None:
                seen = torch.cat((self._global_elsewhere(one_side, dilation, block), seen), dim=-1)
            mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
            self._masks[key] = mask.flatten(0, 1)[:, None]
        return self._masks[key]

    def block_mask(self, one_side: int, dilations: tuple[int, ...]) -> BlockMask:
        """The pattern of all heads for FlexAttention.

        Args:
            one_side: r.
            dilations: d of each head.
        """
        key = (one_side, dilations)
        if key not in self._masks:
            step, documents = torch.tensor(dilations, device=self.documents.device), self.documents
            is_global = torch.zeros_like(documents, dtype=torch.bool) if self.index is None else self.is_global

            def sees(row: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
                in_window = ((i - j).abs() <= one_side * step[head]) & ((i - j) % step[head] == 0)
                return (in_window | is_global[row, j]) & (documents[row, i] == documents[row, j])

            heads = len(dilations) if len(set(dilations)) > 1 else None
            self._masks[key] = block_mask(sees, (len(documents), heads, documents.shape[1]), documents.device)
        return self._masks[key]

    def _in_window(self, one_side: int, dilation: int, block: int) -> Tensor:
        """(B d, n, C, S), true where a key is in the window and of the query's document."""
        asking = _blocks(_fold(self.documents, dilation, fill=-1), block, fill=-1)
        asked = torch.cat(_neighbours(asking, one_side, block, fill=-1), dim=-1)
        j = torch.arange(asked.shape[-1], device=asked.device)
        i = torch.arange(block, device=asked.device)[:, None] + (len(j) - block) // 2
        return ((i - j).abs() <= one_side) & (asking[..., :, None] == asked[..., None, :])

    def _global_elsewhere(self, one_side: int, dilation: int, block: int) -> Tensor:
        """(B d, n, C, G), true where a global token is of the query's document and not in its window anyhow."""
        num_rows, num_tokens = self.documents.shape
        position = torch.arange(num_tokens, device=self.documents.device).expand(num_rows, -1)
        i, of_i = (_blocks(_fold(z, dilation, fill=-1), block, fill=-1)[..., None] for z in (position, self.documents))
        g, of_g, is_filled = (
            z.repeat_interleave(dilation, dim=0)[:, None, None]
            for z in (self.index, self.documents.gather(1, self.index), self.is_filled)
        )
        in_window = ((i - g).abs() <= one_side * dilation) & ((i - g) % dilation == 0)
        return is_filled & (of_i == of_g) & ~in_window


def _fold(x: Tensor, dilation: int, fill: int = 0) -> Tensor:
    """(B, T, ...) -> (B d, T / d, ...): the tokens of each residue of their position, filled up."""
    if dilation == 1:
        return x
    x = _pad(x, 0, -x.shape[1] % dilation, fill)
    return x.unflatten(1, (-1, dilation)).transpose(1, 2).flatten(0, 1)


def _unfold(x: Tensor, dilation: int, num_tokens: int) -> Tensor:
    """The reverse of `_fold`, without what was filled up."""
    if dilation == 1:
        return x
    return x.unflatten(0, (-1, dilation)).transpose(1, 2).flatten(1, 2)[:, :num_tokens]


def _pad(x: Tensor, before: int, after: int, fill: int = 0) -> Tensor:
    """(B, T, ...) -> (B, before + T + after, ...)."""
    return F.pad(x, (*(0, 0) * (x.ndim - 2), before, after), value=fill) if before or after else x


def _blocks(x: Tensor, block: int, fill: int = 0) -> Tensor:
    """(B, T, ...) -> (B, n, C, ...), the last block filled up."""
    return _pad(x, 0, -x.shape[1] % block, fill).unflatten(1, (-1, block))


def _neighbours(x: Tensor, one_side: int, block: int, fill: int = 0) -> list[Tensor]:
    """x (B, n, ...) -> the blocks that hold r tokens to each side of a block and itself, each as x, from left to
    right. Shifts in place of `unfold`, whose gradient is slow on a CPU."""
    num_blocks, reach = x.shape[1], -(-one_side // block)
    x = _pad(x, reach, reach, fill)
    return [x[:, shift : shift + num_blocks] for shift in range(2 * reach + 1)]


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, one_side: int, dilation: int, text: WindowedText, dropout: float = 0.0
) -> Tensor:
    """Every token to its window and to the global tokens -> (B, T, H, K).

    Args:
        q, k, v: (B, T, H, K).
        one_side: r.
        dilation: d.
        text: the batch's documents and global tokens.
        dropout: on the weights.
    """
    num_tokens = q.shape[1]
    one_side = min(one_side, -(-num_tokens // dilation) - 1)
    block = max(_LEAST_QUERIES, min(_MOST_QUERIES, -(-one_side // 2)))
    q, *blocks = (_blocks(_fold(z, dilation), block).transpose(2, 3) for z in (q, k, v))  # (B d, n, H, C, K)
    seen = []
    for z, in_blocks in zip((k, v), blocks, strict=True):
        parts = _neighbours(in_blocks, one_side, block)
        if text.index is not None:
            row = torch.arange(len(z), device=z.device)[:, None]
            of_global = z[row, text.index].transpose(1, 2).repeat_interleave(dilation, dim=0)[:, None]
            parts = [of_global.expand(-1, q.shape[1], -1, -1, -1), *parts]
        seen.append(torch.cat(parts, dim=-2).flatten(0, 1))  # (B d n, H, G + S, K)
    mask = text.mask(one_side, dilation, block, q.dtype)
    y = exact_attention(q.flatten(0, 1), *seen, mask, dropout)
    y = y.unflatten(0, (-1, q.shape[1])).transpose(2, 3).flatten(1, 2)  # (B d, n C, H, K)
    return _unfold(y[:, : -(-num_tokens // dilation)], dilation, num_tokens)


def seen_by_global(text: WindowedText) -> Tensor | None:
    """(B, 1, G, T), true on the tokens of a global token's document; None where all are of one."""
    if text.is_one_document:
        return None
    of_global = text.documents.gather(1, text.index)
    return (of_global[:, :, None] == text.documents[:, None])[:, None]


def absorbed_attention(
    q: Tensor, x: Tensor, k_proj: nn.Linear, v_proj: nn.Linear, mask: Tensor | None, dropout: float = 0.0
) -> Tensor:
    """A few queries to all tokens, whose keys and values are never made -> (B, H, G, K).

    q (W x + b) = (q W) x + q b, and the mean of W x + b is W of that of x, plus b: per head D T multiplications
    for a query instead of D K T for all of them.

    Args:
        q: (B, H, G, K).
        x: (B, T, D).
        k_proj, v_proj: what would make keys and values.
        mask: (B, 1, G, T), true on tokens that are seen.
        dropout: on the weights.
    """
    num_heads, num_global, head_dim = q.shape[1:]
    q = q * head_dim**-0.5
    of_keys = (q @ k_proj.weight.unflatten(0, (num_heads, head_dim))).flatten(1, 2)  # (B, H G, D)
    scores = (of_keys @ x.mT).unflatten(1, (num_heads, num_global))
    # Adds the same to all scores of a query, which softmax does not see, but keeps the bias in the graph
    scores = scores + q @ k_proj.bias.view(num_heads, head_dim, 1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights, factor = dropped_softmax(scores, dropout)
    kept = weights * factor
    mean = (kept.flatten(1, 2) @ x).unflatten(1, (num_heads, num_global))  # (B, H, G, D)
    y = mean @ v_proj.weight.unflatten(0, (num_heads, head_dim)).mT
    return y + kept.sum(-1, keepdim=True) * v_proj.bias.view(num_heads, 1, head_dim)


class WindowGlobalAttention(nn.Module):
    """Multi-head attention to a window and to global tokens, which have projections of their own.

    Args:
        hidden_size: D.
        num_heads: H.
        window: 2 r, tokens that are seen beside the token itself.
        dilations: d of each head.
        dropout: on the weights.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, window: int, dilations: list[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads, self.one_side, self.dropout = num_heads, window // 2, dropout
        self.dilations = tuple(dilations)
        self.heads_by_dilation = {
            d: [h for h in range(num_heads) if dilations[h] == d] for d in sorted(set(dilations))
        }
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(hidden_size, hidden_size) for _ in range(3))
        self.q_global_proj, self.k_global_proj, self.v_global_proj = (
            nn.Linear(hidden_size, hidden_size) for _ in range(3)
        )
        self.o_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, text: WindowedText, **_: Any) -> tuple[Tensor, None]:
        """x (B, T, D) -> y (B, T, D) and no weights, which are never all there."""
        dropout = self.dropout if self.training else 0.0
        q, k, v = (self._split_heads(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        if text.use_flex:
            mask = text.block_mask(self.one_side, self.dilations)
            y = flex_attention(self, *(z.transpose(1, 2) for z in (q, k, v)), mask, dropout)
        elif len(self.heads_by_dilation) == 1:
            (dilation,) = self.heads_by_dilation
            y = window_attention(q, k, v, self.one_side, dilation, text, dropout)
        else:
            parts = [
                window_attention(q[:, :, own], k[:, :, own], v[:, :, own], self.one_side, dilation, text, dropout)
                for dilation, own in self.heads_by_dilation.items()
            ]
            order = torch.tensor(sum(self.heads_by_dilation.values(), []), device=x.device).argsort()
            y = torch.cat(parts, dim=2)[:, :, order]
        if text.index is not None:
            row = torch.arange(len(x), device=x.device)[:, None]
            of_global = self._of_global(x, x[row, text.index], text, dropout)
            where = row.expand_as(text.index)[text.is_filled], text.index[text.is_filled]
            y = y.index_put(where, of_global[text.is_filled])
        return self.o_proj(y.flatten(2)), None

    def _of_global(self, x: Tensor, x_global: Tensor, text: WindowedText, dropout: float) -> Tensor:
        """What global tokens x_global (B, G, D) see of x (B, T, D) -> (B, G, H, K)."""
        q = self._split_heads(self.q_global_proj(x_global)).transpose(1, 2)
        mask, projections = seen_by_global(text), (self.k_global_proj, self.v_global_proj)
        are_few = self.num_heads * q.shape[2] < x.shape[-1]
        if are_few and all(
            type(p) is nn.Linear for p in projections
        ):  # an adapter's or a quantised one is run as it is
            return absorbed_attention(q, x, *projections, mask, dropout).transpose(1, 2)
        k, v = (self._split_heads(p(x)).transpose(1, 2) for p in projections)
        return exact_attention(q, k, v, mask, dropout).transpose(1, 2)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))  # (B, T, D) -> (B, T, H, K)
