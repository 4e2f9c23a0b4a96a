"""Dropout that draws 16 random bits for a number: on a CPU, where drawing is what dropout costs, several times faster.

torch draws 64 bits for each number and multiplies three times. Here four numbers share 64 bits, and what is kept is
not multiplied where the caller can do that to something smaller (`drop`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STEPS = 1 << 16  # 16 bits tell apart this many values; a rate is rounded to a multiple of 1 / _STEPS


def drop(x: Tensor, rate: float) -> tuple[Tensor, float]:
    """x, any shape, with a share of its numbers set to zero, and what the others are still to be multiplied by."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():  # these fuse their own
        return F.dropout(x, rate), 1.0
    threshold = round(rate * _STEPS)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= threshold - _STEPS // 2
    return x * kept, _STEPS / (_STEPS - threshold)


class Dropout(nn.Dropout):
    """`nn.Dropout` with fewer random bits."""

    def forward(self, x: Tensor) -> Tensor:
        """x, any shape -> the same shape."""
        if not self.training or not self.p:
            return x
        kept, factor = drop(x, self.p)
        return kept * factor
