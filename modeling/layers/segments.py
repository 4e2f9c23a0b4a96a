"""Long rows as segments: where a row is cut, what stands for a segment, and one vector for all of them.

Windows of K tokens start every `stride` tokens; with stride = K they are the segments of Chalkidis et al. 2022
(https://arxiv.org/abs/2210.05529, section 3), with less they overlap as in Li et al. 2021
(https://arxiv.org/abs/2106.11360, section III):

    S = 1 + ceil(max(0, T - K) / stride)                 windows of a document of T tokens
    g_s = h_s[first]  or  mean of h_s                    what stands for segment s
    h_s[first] <- g'_s  or  h_s <- h_s + (g'_s - g_s)    how what documents say is written back; then g_s is g'_s

Shapes: B rows, T tokens of a row, N documents (rows, unless several are packed into one), S segments of a document,
K tokens of a segment, D hidden size.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

SUMMARIES = ("first", "mean")
POOLINGS = ("first", "mean", "max", "attentive")


@dataclass(frozen=True)
class Segments:
    """How a batch is cut.

    Args:
        shape: (N, S, K).
        mask: (N, S, K), true on real tokens; None where all are.
        source: (N, S K), which of the B T tokens stands at a place; None where places are tokens.
        place: (B, T), which of the N S K places holds a token, the one nearest to the middle of its window.
        first_document: (B), which of the N documents begins a row; None where each row is one.
        token_mask, segment_mask: what the attention backend wants in order to hide padding in a segment, and empty
            segments in a document.
    """

    shape: tuple[int, int, int]
    mask: Tensor | None = None
    source: Tensor | None = None
    place: Tensor | None = None
    first_document: Tensor | None = None
    token_mask: Any = None
    segment_mask: Any = None

    def lay_out(self, x: Tensor) -> Tensor:
        """What belongs to tokens (B, T, ...) -> to places (N, S K, ...)."""
        return x if self.source is None else x.flatten(0, 1)[self.source]

    def bring_back(self, x: Tensor) -> Tensor:
        """What belongs to places (N, S K, ...) -> to tokens (B, T, ...)."""
        return x if self.place is None else x.flatten(0, 1)[self.place]

    def with_masks(self, token_mask: Any, segment_mask: Any) -> "Segments":
        """The same with the masks of a backend."""
        return replace(self, token_mask=token_mask, segment_mask=segment_mask)

    @property
    def is_real(self) -> Tensor | None:
        """(N, S), true on segments with a real token; None where all have."""
        return None if self.mask is None else self.mask.any(-1)

    @property
    def first(self) -> Tensor | None:
        """(N, S), the place of the first real token in its segment; None where it is 0 in all."""
        return None if self.mask is None else self.mask.int().argmax(-1)


def cut(
    rows: int,
    tokens: int,
    size: int,
    stride: int,
    attention_mask: Tensor | None,
    document_starts: Tensor | None,
    device: torch.device,
) -> Segments:
    """Cut rows into windows; padding before a document and between documents belongs to none.

    Args:
        rows, tokens: B, T.
        size: K; shorter rows are one shorter segment.
        stride: how far apart windows start, at most K.
        attention_mask: (B, T) with 1 on real tokens; None where all are. A row begins at its first real token.
        document_starts: (B, T), true where a packed document starts, the first column always; None without packing.
        device: of what is returned.
    """
    size = min(size, tokens)
    is_whole = stride == size and tokens % size == 0 or tokens == size
    starts_at_zero = attention_mask is None or not torch.compiler.is_compiling() and bool(attention_mask[:, 0].all())
    if document_starts is None and is_whole and starts_at_zero:
        shape = (rows, tokens // size, size)
        return Segments(shape, None if attention_mask is None else attention_mask.bool().view(shape))

    steps = torch.arange(tokens, device=device)
    if document_starts is not None:
        row, start = document_starts.nonzero(as_tuple=True)  # (N) each
        ends = torch.cat(((row * tokens + start)[1:], row.new_tensor([rows * tokens])))
        length = ends - row * tokens - start
        document = document_starts.flatten().cumsum(0).view(rows, tokens) - 1  # (B, T)
        longest = int(length.max()) if length.numel() else tokens
    else:
        row, document = torch.arange(rows, device=device), torch.arange(rows, device=device)[:, None]
        start, length = torch.zeros_like(row), torch.full_like(row, tokens)
        if attention_mask is not None:
            start = attention_mask.argmax(-1)
            length = (attention_mask * steps).argmax(-1) - start + 1
        longest = tokens

    windows = num_windows(torch.tensor(longest), size, stride).item()
    own = num_windows(length, size, stride)  # (N)
    offset = (torch.arange(windows, device=device)[:, None] * stride + torch.arange(size, device=device)).flatten()
    mask = offset < length[:, None]  # (N, S K)
    mask = mask & (torch.arange(windows, device=device).repeat_interleave(size) < own[:, None])
    source = (row * tokens + start)[:, None] + torch.where(mask, offset, 0)
    if attention_mask is not None:
        mask = mask & attention_mask.bool().flatten()[source]

    behind = steps - start[document]  # (B, T), tokens since the document began; below 0 on padding
    window = (2 * behind - size + 1 + stride).div(2 * stride, rounding_mode="floor")
    window = window.clamp_min(0).minimum(own[document] - 1)
    inside = (behind - window * stride).clamp(0, size - 1)
    place = document * (windows * size) + window * size + inside
    first = None if document_starts is None else document[:, 0]
    return Segments((len(row), windows, size), mask.view(-1, windows, size), source, place, first)


def num_windows(length: Tensor, size: int, stride: int) -> Tensor:
    """How many windows cover documents of some lengths; one covers an empty document."""
    return 1 + (length - size + stride - 1).clamp_min(0).div(stride, rounding_mode="floor")


def summarise(x: Tensor, segments: Segments, kind: str) -> Tensor:
    """What stands for each segment (N, S, D), from places x (N, S K, D).

    Args:
        kind: "first" for the first real token, "mean" for all real ones.
    """
    x = x.view(*segments.shape, x.shape[-1])
    if kind == "first":
        if segments.first is None:
            return x[:, :, 0]
        return x.take_along_dim(segments.first[..., None, None], dim=2).squeeze(2)
    if segments.mask is None:
        return x.mean(2)
    weights = segments.mask[..., None].to(x.dtype)
    return (x * weights).sum(2) / weights.sum(2).clamp_min(1)


def write_back(x: Tensor, before: Tensor, after: Tensor, segments: Segments, kind: str) -> Tensor:
    """Places x (N, S K, D), so changed that their summary (N, S, D) is `after` where it was `before`."""
    y = x.view(*segments.shape, x.shape[-1])
    if kind == "mean":
        y = y + (after - before)[:, :, None]
    elif segments.first is None:
        y = torch.cat((after[:, :, None], y[:, :, 1:]), dim=2)
    else:
        index = segments.first[..., None, None].expand(-1, -1, 1, x.shape[-1])
        y = y.scatter(2, index, after[:, :, None])
    return y.view_as(x)


class SegmentPooler(nn.Module):
    """tanh(W p), p being one vector for all segments of a document: the first, the mean or maximum, or

        p = sum_s a_s g_s,  a = softmax_s(u · g_s)                         "attentive"

    Args:
        hidden_size: D.
        kind: one of `POOLINGS`.
    """

    def __init__(self, hidden_size: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.dense = nn.Linear(hidden_size, hidden_size)
        if kind == "attentive":
            self.attention = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, g: Tensor, mask: Tensor | None) -> Tensor:
        """g (N, S, D), mask (N, S), true on real segments -> (N, D)."""
        return torch.tanh(self.dense(self.pool(g, mask)))

    def pool(self, g: Tensor, mask: Tensor | None) -> Tensor:
        """g (N, S, D), mask (N, S) -> (N, D); of a document without a real segment any finite vector."""
        if mask is None:
            mask = torch.ones(g.shape[:2], dtype=torch.bool, device=g.device)
        mask = mask | ~mask.any(-1, keepdim=True)  # an empty document: its vector means nothing, but is finite
        if self.kind == "first":
            return g.take_along_dim(mask.int().argmax(-1)[:, None, None], dim=1).squeeze(1)
        if self.kind == "mean":
            weights = mask[..., None].to(g.dtype)
            return (g * weights).sum(1) / weights.sum(1)
        if self.kind == "max":
            return g.masked_fill(~mask[..., None], -torch.inf).amax(1)
        scores = self.attention(g).squeeze(-1).masked_fill(~mask, -torch.inf)  # (N, S)
        weights = scores.softmax(-1, dtype=torch.promote_types(g.dtype, torch.float32)).to(g.dtype)
        return (weights[..., None] * g).sum(1)
