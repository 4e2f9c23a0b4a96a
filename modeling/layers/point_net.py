"""A vector for a group of points in any order: every point alone, then the largest of each channel.

Qi et al. 2016, https://arxiv.org/abs/1612.00593, in the small form of Yu et al. 2021, https://arxiv.org/abs/2111.14819:

    f_m = W_2 relu(BN(W_1 p_m));   g_m = W_4 relu(BN(W_3 [max_m f_m; f_m]));   e = W_5 max_m g_m

Shapes: B clouds, G groups, M points of a group, C numbers a point, E inner size, D output size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PointNorm(nn.BatchNorm1d):
    """Batch norm over all axes but the last, of points (..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> the same shape."""
        return super().forward(x.flatten(0, -2)).view_as(x)


class PointNet(nn.Module):
    """Groups (B, G, M, C) -> (B, G, D).

    Args:
        num_channels: C.
        inner_size: E, of a group before the last projection.
        hidden_size: D.
    """

    def __init__(self, num_channels: int, inner_size: int, hidden_size: int) -> None:
        super().__init__()
        half, double = inner_size // 2, 2 * inner_size
        self.in_proj = nn.Linear(num_channels, half)
        self.point_norm = PointNorm(half)
        self.up_proj = nn.Linear(half, inner_size)
        self.mix_proj = nn.Linear(double, double)
        self.group_norm = PointNorm(double)
        self.down_proj = nn.Linear(double, inner_size)
        self.out_proj = nn.Linear(inner_size, hidden_size)

    def forward(self, groups: Tensor) -> Tensor:
        """groups (B, G, M, C) -> (B, G, D)."""
        x = self.up_proj(F.relu(self.point_norm(self.in_proj(groups.to(self.in_proj.weight.dtype)))))
        x = torch.cat((x.amax(2, keepdim=True).expand_as(x), x), dim=-1)
        x = self.down_proj(F.relu(self.group_norm(self.mix_proj(x))))
        return self.out_proj(x.amax(2))
