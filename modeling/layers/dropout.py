"""Dropout that draws 16 random bits for a number: on a CPU, where drawing is what dropout costs, several times faster.

torch draws 64 bits for each number and multiplies three times. Here four numbers share 64 bits, and what is kept is
not multiplied where the caller can do that to something smaller. Weights of attention are dropped in the same
node as their softmax, w = softmax(s), d = w z, so that the draw z is overwritten by d and never kept:

    ds = w (z dy - sum z w dy) = d dy - w sum d dy
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_STEPS = 1 << 16  # 16 bits tell apart this many values; a rate is rounded to a multiple of 1 / _STEPS


class Keep:
    """Draws which numbers are kept, the same ones again from the same seed.

    Args:
        rate: share of the numbers that are not; none are drawn for 0.
        device: where.
        seed: of the draws; torch's own generator without it.
    """

    def __init__(self, rate: float, device: torch.device, seed: int | None = None) -> None:
        self.threshold = round(rate * _STEPS)
        self.factor = _STEPS / (_STEPS - self.threshold)  # what the others are to be multiplied by
        self.generator = None
        if seed is not None and self.threshold:
            self.generator = torch.Generator(device).manual_seed(seed)
        self.device = device

    def draw(self, shape: torch.Size, dtype: torch.dtype) -> Tensor | None:
        """1 on what is kept and 0 elsewhere, as numbers: booleans are slow to multiply by. None where all is kept."""
        if not self.threshold:
            return None
        count = shape.numel()
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=self.device)
        words.random_(-(1 << 63), None, generator=self.generator)
        return (words.view(torch.int16)[:count].view(shape) >= self.threshold - _STEPS // 2).to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """x with zeros where it is not kept, without the factor."""
        kept = self.draw(x.shape, x.dtype)
        return x if kept is None else x * kept


class _DroppedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, keep):
        weights = F.softmax(scores, dim=-1)
        dropped = keep.draw(weights.shape, weights.dtype).mul_(weights)
        ctx.save_for_backward(weights, dropped)
        return dropped

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weights, dropped = ctx.saved_tensors
        grad = dropped * grad
        return grad.addcmul_(weights, grad.sum(-1, keepdim=True), value=-1.0), None


def dropped_softmax(scores: Tensor, rate: float) -> tuple[Tensor, float]:
    """Softmax over the last axis with a share of the weights set to zero, in at least float32.

    Args:
        scores: any shape.
        rate: the share.

    Returns:
        The weights, shaped and typed as the scores, and what they are still to be multiplied by.
    """
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    keep = Keep(rate, scores.device)
    if not keep.threshold:
        return F.softmax(wide, dim=-1).to(scores.dtype), 1.0
    if scores.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(F.softmax(wide, dim=-1), rate).to(scores.dtype), 1.0
    return _DroppedSoftmax.apply(wide, keep).to(scores.dtype), keep.factor


class Dropout(nn.Dropout):
    """`nn.Dropout` with fewer random bits."""

    def forward(self, x: Tensor) -> Tensor:
        """x, any shape -> the same shape."""
        if not self.training or not self.p:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        keep = Keep(self.p, x.device)
        kept = keep.draw(x.shape, x.dtype)
        return x if kept is None else x * kept.mul_(keep.factor)


def drop_rows(x: Tensor, rate: float) -> Tensor:
    """x (B, ...) with a share of its rows set to zero and the others scaled to the same mean: stochastic depth, for
    what is added to a residual stream (Huang et al. 2016, https://arxiv.org/abs/1603.09382)."""
    kept = torch.empty(len(x), *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device).bernoulli_(1 - rate)
    return x * (kept / (1 - rate))
