"""Positions that a wide convolution works out from what stands around a token.

Baevski et al. 2020, https://arxiv.org/abs/2006.11477, section 2, after Mohamed et al. 2019,
https://arxiv.org/abs/1904.11660:

    p = gelu(conv(x)),  W = g v / |v|,  one g and one norm for each tap

Shapes: B batch, T tokens, D hidden size, K taps.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init


class ConvolutionalPositions(nn.Module):
    """x (B, T, D) -> what is to be added to it (B, T, D).

    Args:
        hidden_size: D.
        kernel_size: K; the tokens before are as many as those after, or one more where K is even.
        num_groups: of channels that do not see each other.
    """

    def __init__(self, hidden_size: int, kernel_size: int, num_groups: int) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.direction = nn.Parameter(torch.empty(hidden_size, hidden_size // num_groups, kernel_size))
        self.length = nn.Parameter(torch.empty(kernel_size))
        self.bias = nn.Parameter(torch.empty(hidden_size))

    @torch.no_grad()
    def initialise(self) -> None:
        """Weights that keep the size of what they sum over, and their own lengths."""
        hidden_size, _, kernel_size = self.direction.shape
        init.normal_(self.direction, std=(4 / (kernel_size * hidden_size)) ** 0.5)
        init.copy_(self.length, self.direction.norm(dim=(0, 1)))
        init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D), zero where it is not to be seen -> (B, T, D)."""
        taps = self.direction.shape[-1]
        weight = self.direction * (self.length / self.direction.norm(dim=(0, 1)))
        y = F.conv1d(F.pad(x.mT, (taps // 2, (taps - 1) // 2)), weight, self.bias, groups=self.num_groups)
        return F.gelu(y).mT
