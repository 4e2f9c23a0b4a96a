"""Attention to the last `window` tokens, exact, in blocks: time and memory grow with T window and not with T^2.

    y_i = softmax_{j in W(i)}(q_i k_j^T scale) v_j,   W(i) = {j : i - w < j <= i}, or |i - j| < w for both sides

Queries are cut into blocks as long as the window, and a block looks at its own keys and at those of the block before
it (and of the one after it, for both sides): 2 w (3 w) keys a query. No matrix of T x T numbers is made, neither of
scores nor of masks. The result is that of dense attention under the window's mask.

Shapes: B batch, T queries, S keys, D hidden size, H heads, G key-value heads, K head size, n blocks, w window.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .attention import Attention, exact_attention


class LocalAttention(Attention):
    """Attention whose tokens see `window` tokens to one side; in blocks, whatever backend is set.

    `mask` is (B, S), see `local_attention`; one of four axes, made for some queries and keys by somebody else, is
    taken as it is.
    """

    def __init__(self, *args: Any, window: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.window = window

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """q (B, H, T, K), k and v (B, G, S, K) -> o (B, T, H, K) and no weights."""
        options = {"scaling": self.scaling, "dropout": self.dropout if self.training else 0.0}
        if mask is not None and mask.ndim == 4:
            k, v = _repeat_heads(k, v, q.shape[1])
            return exact_attention(q, k, v, mask, **options).transpose(1, 2), None
        return local_attention(q, k, v, self.window, mask, is_causal=self.is_causal, **options), None


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    documents: Tensor | None = None,
    *,
    is_causal: bool = True,
    scaling: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention within the window -> y (B, T, H, K).

    Args:
        q: (B, H, T, K), the queries of the last T keys.
        k, v: (B, G, S, K), S at least T, and equal to it if not causal; keys that no window reaches are not read.
        window: w, how many tokens a query sees to one side, itself included.
        documents: (B, S) of numbers from 0: a query sees the keys of its own number alone. Padding has one of its own.
        is_causal: whether later keys are hidden.
    """
    num_queries, num_keys = q.shape[2], min(k.shape[2], q.shape[2] + window - 1)
    k, v = _repeat_heads(k[:, :, -num_keys:], v[:, :, -num_keys:], q.shape[1])
    options = {"scaling": scaling, "dropout": dropout}
    if documents is not None:
        documents = documents[:, -num_keys:].expand(len(q), -1)
    if num_queries <= window:
        return _attend_whole(q, k, v, window, documents, is_causal, **options).transpose(1, 2)
    if documents is None and is_causal:
        return _attend_in_equal_blocks(q, k, v, window, **options)
    if documents is None:
        documents = torch.zeros((len(q), num_keys), dtype=torch.long, device=q.device)
    return _attend_in_blocks(q, k, v, window, documents, is_causal, **options)


def _attend_whole(
    q: Tensor, k: Tensor, v: Tensor, window: int, documents: Tensor | None, is_causal: bool, **options: Any
) -> Tensor:
    """No more queries than the window is wide, at once -> (B, H, T, K)."""
    num_queries, num_keys = q.shape[2], k.shape[2]
    if documents is None and (num_queries == 1 or not is_causal):  # every key lies within the window
        return exact_attention(q, k, v, None, **options)
    if documents is None and num_queries == num_keys:
        return exact_attention(q, k, v, None, is_causal=True, **options)
    mask = _band(num_queries, num_keys, num_keys - num_queries, window, is_causal, q.device)
    if documents is not None:
        mask = (mask & (documents[:, -num_queries:, None] == documents[:, None]))[:, None]
    return exact_attention(q, k, v, mask, **options)


def _attend_in_equal_blocks(q: Tensor, k: Tensor, v: Tensor, window: int, **options: Any) -> Tensor:
    """Causal and without documents: the first block sees what there is, all others have one mask -> (B, T, H, K)."""
    num_rest, past = q.shape[2] - window, k.shape[2] - q.shape[2]
    end = past + window
    first = _attend_whole(q[:, :, :window], k[:, :, :end], v[:, :, :end], window, None, True, **options)
    num_blocks = -(-num_rest // window)
    q = _blocks(q[:, :, window:], num_blocks, window)
    k, v = (_neighbours(_blocks(x[:, :, past:], num_blocks + 1, window), 2) for x in (k, v))
    mask = _band(window, 2 * window, window, window, True, q.device)
    y = _join(exact_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), mask, **options), num_blocks)
    return torch.cat((first.transpose(1, 2), y[:, :num_rest]), dim=1)


def _attend_in_blocks(
    q: Tensor, k: Tensor, v: Tensor, window: int, documents: Tensor, is_causal: bool, **options: Any
) -> Tensor:
    """The general case; places beyond either end are keys of document -1, which nobody sees -> (B, T, H, K)."""
    num_queries, num_keys = q.shape[2], k.shape[2]
    num_blocks, span = -(-num_queries // window), 2 if is_causal else 3
    before = window - (num_keys - num_queries)
    after = (num_blocks + span - 1) * window - before - num_keys
    q = _blocks(q, num_blocks, window).flatten(0, 1)  # (B n, H, w, K)
    k, v = (_blocks(F.pad(x, (0, 0, before, 0)), num_blocks + span - 1, window) for x in (k, v))
    k, v = (_neighbours(x, span).flatten(0, 1) for x in (k, v))  # (B n, H, span w, K)
    documents = F.pad(documents, (before, after), value=-1)[:, None, :, None]
    documents = _blocks(documents, num_blocks + span - 1, window)  # (B, n + span - 1, 1, w, 1)
    asking = documents[:, 1 : num_blocks + 1].flatten(0, 1)  # (B n, 1, w, 1)
    asked = _neighbours(documents, span).flatten(0, 1).mT  # (B n, 1, 1, span w)
    mask = _band(window, span * window, window, window, is_causal, q.device) & (asking == asked)
    return _join(exact_attention(q, k, v, mask, **options), num_blocks)[:, :num_queries]


def _band(num_queries: int, num_keys: int, offset: int, window: int, is_causal: bool, device: torch.device) -> Tensor:
    """(T, S), true where key j lies in the window of query i, whose own key has the index i + offset."""
    distance = torch.arange(num_queries, device=device)[:, None] + offset - torch.arange(num_keys, device=device)
    return (distance < window) & (distance >= 0 if is_causal else distance > -window)


def _blocks(x: Tensor, num_blocks: int, window: int) -> Tensor:
    """(B, H, T, K) -> (B, n, H, w, K), the last block filled up with zeros."""
    if missing := num_blocks * window - x.shape[2]:
        x = F.pad(x, (0, 0, 0, missing))
    return x.unflatten(2, (num_blocks, window)).transpose(1, 2)


def _neighbours(x: Tensor, span: int) -> Tensor:
    """(B, n + span - 1, H, w, K) -> (B, n, H, span w, K): each block with the ones that follow it."""
    num_blocks = x.shape[1] - span + 1
    return torch.cat([x[:, i : i + num_blocks] for i in range(span)], dim=3)


def _join(y: Tensor, num_blocks: int) -> Tensor:
    """(B n, H, w, K) -> (B, n w, H, K)."""
    return y.unflatten(0, (-1, num_blocks)).transpose(2, 3).flatten(1, 2)


def _repeat_heads(k: Tensor, v: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Keys and values (B, G, S, K) of grouped-query attention once for every head -> (B, H, S, K)."""
    groups = num_heads // k.shape[1]
    return (k, v) if groups == 1 else (k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1))
