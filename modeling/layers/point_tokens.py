"""A cloud of points as tokens: centres that lie far apart, each with what its neighbours look like from it.

Zhang et al. 2023, https://arxiv.org/abs/2307.10802, section 3.2, after Qi et al. 2017,
https://arxiv.org/abs/1706.02413: a quarter of the points are centres c_g, and

    z_g = W_3 max_m relu(W_2 relu(W_1 [p_m - c_g; features of p_m])) + Q_2 gelu(Q_1 c_g)

over the nearest points p_m of c_g. The order of the points does not matter.

Shapes: B clouds, N points, C numbers a point, G groups, M points of a group, D hidden size.
"""

from torch import Tensor, nn

from .point_groups import group_points

_POSITION_SIZE = 128  # inner size of the network of places


class PointTokens(nn.Module):
    """Groups of points, and where they are.

    Args:
        num_channels: C; the first three are the place.
        stride: N / G.
        group_size: M.
        hidden_size: D.
    """

    def __init__(self, num_channels: int, stride: int, group_size: int, hidden_size: int) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.stride = stride
        self.group_size = group_size
        inner_size = max(hidden_size // 2, 1)
        self.point_mlp = nn.Sequential(
            nn.Linear(num_channels, inner_size), nn.ReLU(), nn.Linear(inner_size, inner_size), nn.ReLU()
        )
        self.group_proj = nn.Linear(inner_size, hidden_size)
        self.embed_positions = nn.Sequential(
            nn.Linear(3, _POSITION_SIZE), nn.GELU(), nn.Linear(_POSITION_SIZE, hidden_size)
        )

    def forward(self, points: Tensor) -> Tensor:
        """points (B, N, C) -> (B, G, D).

        Raises:
            ValueError: another number of channels, or fewer points than a group or a token needs.
        """
        least = max(self.stride, self.group_size)
        if points.ndim != 3 or points.shape[2] != self.num_channels or points.shape[1] < least:
            raise ValueError(
                f"points must be (clouds, points, num_channels={self.num_channels}) with at least {least} points, "
                f"got {tuple(points.shape)}"
            )
        centres, groups = group_points(points, points.shape[1] // self.stride, self.group_size)
        dtype = self.group_proj.weight.dtype
        x = self.group_proj(self.point_mlp(groups.to(dtype)).amax(2))
        return x + self.embed_positions(centres.to(dtype))
