"""Normalisation over the last axis; statistics in float32 whatever the dtype of the input.

RMSNorm    y = x / sqrt(mean(x^2) + eps) * g          Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467
gated      y = RMSNorm(x ∘ silu(z)), in groups        Dao and Gu 2024, https://arxiv.org/abs/2405.21060
LayerNorm  y = (x - mean) / sqrt(var + eps) * g + b   Ba et al. 2016, https://arxiv.org/abs/1607.06450
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """x (..., D) -> y (..., D)."""

    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> y (..., D); the gain multiplies after the cast back, as in the published checkpoints.

        A residual stream that is wider than the weights (float32 beside half precision) comes out in theirs.
        """
        if x.dtype == self.weight.dtype and x.dtype in (torch.float32, torch.float64):
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return self.weight * F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(self.weight.dtype)

    def extra_repr(self) -> str:
        """The size and eps, for printing a model."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class GatedRMSNorm(RMSNorm):
    """RMSNorm of a gated input, over each of several groups of channels (Mamba-2)."""

    def __init__(self, hidden_size: int, eps: float = 1e-6, num_groups: int = 1) -> None:
        super().__init__(hidden_size, eps)
        self.num_groups = num_groups

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x and the gate z (..., D) -> y (..., D)."""
        gated = x * F.silu(z)
        if self.num_groups == 1:
            return super().forward(gated)
        dtype = torch.promote_types(x.dtype, torch.float32)
        groups = gated.to(dtype).unflatten(-1, (self.num_groups, -1))
        return self.weight * F.rms_norm(groups, groups.shape[-1:], None, self.eps).flatten(-2).to(x.dtype)


class HeadLayerNorm(nn.Module):
    """LayerNorm of each head by itself, with a gain and a bias for every channel; torch's GroupNorm, tokens last.

    Args:
        hidden_size: D, channels of all heads.
        head_size: N, channels that are normalised together.
        eps: added to the variance.
    """

    def __init__(self, hidden_size: int, head_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        self.head_size = head_size
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (..., H, N) -> y (..., D)."""
        normed = F.layer_norm(x, (self.head_size,), eps=self.eps).flatten(-2)
        return torch.addcmul(self.bias, normed, self.weight)


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place of an image (B, C, height, width)."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, height, width) -> y (B, C, height, width)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


NORMS = {
    "rms_norm": RMSNorm,
    "layer_norm": nn.LayerNorm,
    "layer_norm_without_affine": partial(nn.LayerNorm, elementwise_affine=False),  # OLMo
}
