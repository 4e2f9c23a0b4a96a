"""Token shift: every token is mixed with the one before it, channel by channel, before it is projected.

Peng et al. 2023, "RWKV", https://arxiv.org/abs/2305.13048, section 3.1:

    x'_t = mu ∘ x_t + (1 - mu) ∘ x_{t-1}     with x_{-1} = 0, and a mu of its own for every projection

and what all generations of RWKV need to start their weights.

Shapes: B batch, T tokens, D hidden size.
"""

import torch
from torch import Tensor


def token_shift(
    x: Tensor, mask: Tensor | None = None, window: Tensor | None = None, position_ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The token before each -> (B, T, D), and the last real token of each row as window (B, D, 1).

    Args:
        x: (B, T, D).
        mask: (B, T), 1 on real tokens. Padding comes after the last token of a row, or before the first if there is
            no window.
        window: (B, D, 1) left by earlier tokens, zeros if not given.
        position_ids: (B, T), counted from 0 in each document, whose first token has none before it.
    """
    before = torch.zeros_like(x[:, :1]) if window is None else window.mT.to(x.dtype)
    if mask is None and position_ids is None and x.shape[1] == 1:  # generation
        return before, x.mT
    if mask is not None:
        x = x * mask[..., None].to(x.dtype)  # the first real token sees zeros and not padding
    inputs = torch.cat((before, x), dim=1)  # (B, 1 + T, D)
    previous = inputs[:, :-1]
    if position_ids is not None:
        previous = previous.masked_fill((position_ids == 0)[..., None], 0.0)
    if mask is None:
        return previous, x[:, -1:].mT.contiguous()  # a copy: a view would keep all inputs alive
    last_real = (mask.cumsum(1) * mask).argmax(1) + mask.any(1)  # counted from 1; 0 if the row is all padding
    return previous, inputs[torch.arange(len(x), device=x.device), last_real, :, None]


def document_starts(position_ids: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """(B, T), True on the real tokens that start a document; None where rows are not packed."""
    if position_ids is None:
        return None
    return position_ids == 0 if mask is None else (position_ids == 0) & mask.bool()


def depth_ratios(layer_idx: int, num_layers: int) -> tuple[float, float]:
    """How deep a layer stands: 0 in the first to 1 in the last, and 1 in the first to nearly 0 in the last."""
    return layer_idx / max(num_layers - 1, 1), 1 - layer_idx / num_layers


def ramp(like: Tensor, first: float = 0.0, last: float = 1.0) -> Tensor:
    """From first to last in equal steps over the channels of a tensor, on its device."""
    return torch.linspace(first, last, like.numel(), device=like.device)


def channel_ratios(like: Tensor) -> Tensor:
    """i / D for the D channels of a tensor, on its device."""
    return torch.arange(like.numel(), device=like.device) / like.numel()
