"""Points of a group from one vector: a few of them coarsely, then a small sheet folded around each.

Yuan et al. 2018, https://arxiv.org/abs/1808.00671, section 3; the decoder of Point-BERT's tokenizer:

    c = MLP(z)                                     coarse, a quarter of the points
    f_k = MLP'([z; s_k; c_k]) + c_k,  s_k one corner of a small square

Shapes: B clouds, G groups, M points of a group, C size of a vector.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .point_net import PointNorm

_CORNERS = 4
_REACH = 0.05  # of the square


class PointFolding(nn.Module):
    """z (B, G, C) -> coarse (B, G, M / 4, 3) and fine points (B, G, M, 3).

    Args:
        in_size: C.
        group_size: M.
        folding_size: of the second network's layers; those of the first are twice as wide.
    """

    def __init__(self, in_size: int, group_size: int, folding_size: int) -> None:
        super().__init__()
        self.num_coarse = group_size // _CORNERS
        wide = 2 * folding_size
        self.coarse = nn.Sequential(
            nn.Linear(in_size, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, 3 * self.num_coarse)
        )
        self.in_proj = nn.Linear(in_size + 3 + 2, folding_size)
        self.in_norm = PointNorm(folding_size)
        self.mid_proj = nn.Linear(folding_size, folding_size)
        self.mid_norm = PointNorm(folding_size)
        self.out_proj = nn.Linear(folding_size, 3)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, G, C) -> coarse (B, G, M / 4, 3) and fine points (B, G, M, 3)."""
        coarse = self.coarse(z).unflatten(-1, (self.num_coarse, 3))
        around = coarse.repeat_interleave(_CORNERS, dim=2)
        ends = torch.tensor((-_REACH, _REACH), dtype=z.dtype, device=z.device)
        square = torch.cartesian_prod(ends, ends).repeat(self.num_coarse, 1).expand(*around.shape[:-1], 2)
        z = z[:, :, None].expand(*around.shape[:-1], -1)
        x = F.relu(self.in_norm(self.in_proj(torch.cat((z, square, around), dim=-1))))
        x = F.relu(self.mid_norm(self.mid_proj(x)))
        return coarse, self.out_proj(x) + around
