"""Convolutions that keep the variance of their input without a norm: weights are standardised at every use.

Brock et al. 2021, https://arxiv.org/abs/2101.08692, section 4.2 (scaled weight standardisation), and
https://arxiv.org/abs/2102.06171:

    W_hat = gain (W - mean W) / sqrt(N var W + eps),   mean and var over the N numbers of an output channel
    act(x) = gamma gelu(x),   gamma = 1.7015, so that var act(x) = 1 for x of N(0, 1)

A channel of W_hat sums to zero, which also removes the mean that the activation gives its input.

Shapes: B batch, C channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

GELU_GAIN = 1.7015043497085571  # 1 / sqrt(var gelu(x)) for x of N(0, 1)


def scaled_gelu(x: Tensor, scale: float = 1.0) -> Tensor:
    """scale gamma gelu(x), any shape."""
    return F.gelu(x) * (GELU_GAIN * scale)


class ScaledConv2d(nn.Conv2d):
    """A convolution with scaled weight standardisation and a learned gain of each output channel.

    Args:
        in_channels, out_channels: C before and after.
        kernel_size: odd; the border is padded so that stride alone makes the image smaller.
        stride: of the convolution.
        groups: of channels that do not see each other.
        eps: added to the variance of a channel's sum.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups)
        self.gain = nn.Parameter(torch.ones(out_channels))
        self.eps = eps

    @torch.no_grad()
    def initialise(self) -> None:
        """Weights whose scale does not matter, so that eps is small beside them; gains of one."""
        init.normal_(self.weight, std=self.weight[0].numel() ** -0.5)
        init.ones_(self.gain)
        init.zeros_(self.bias)

    def standardised(self) -> Tensor:
        """W_hat, shaped as the weight; in one kernel, which takes a channel for a batch-normalised feature."""
        fan_in = self.weight[0].numel()
        flat = self.weight.view(1, len(self.weight), fan_in)
        gain = self.gain * fan_in**-0.5
        return F.batch_norm(flat, None, None, gain, training=True, eps=self.eps / fan_in).view_as(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, height, width) -> (B, C', height / stride, width / stride), rounded up."""
        return self._conv_forward(x, self.standardised(), self.bias)


class SqueezeExcite(nn.Module):
    """Every channel times 2 sigmoid of what the mean of the image says of it (Hu et al. 2017, arXiv:1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, squeezed)
        self.excite = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, height, width) -> the same shape."""
        scale = 2 * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * scale[..., None, None]
