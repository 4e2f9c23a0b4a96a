"""Positions as sines and cosines of fixed random directions (Tancik et al. 2020, https://arxiv.org/abs/2006.10739).

    e(x) = [sin(2 pi (2 x - 1) G), cos(2 pi (2 x - 1) G)],   x in [0, 1]^2,  G (2, F) drawn once from N(0, 1)

Shapes: F directions.
"""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init


class FourierPositions(nn.Module):
    """Points of the unit square as vectors of `size` numbers; nothing is learnt."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.randn(2, size // 2))

    def initialise(self) -> None:
        """Directions of unit variance."""
        init.normal_(self.directions)

    def forward(self, points: Tensor) -> Tensor:
        """points (..., 2), x before y, each from 0 to 1 -> (..., size), in the dtype of the directions.

        Angles are computed in float32 at least: half precision would lose the place of a pixel.
        """
        dtype = torch.promote_types(self.directions.dtype, torch.float32)
        angles = (2 * math.pi) * (2 * points.to(dtype) - 1) @ self.directions.to(dtype)
        return torch.cat((angles.sin(), angles.cos()), dim=-1).to(self.directions.dtype)

    def of_grid(self, side: int) -> Tensor:
        """Of the middles of the cells of a grid (side, side, size)."""
        middles = (torch.arange(side, device=self.directions.device) + 0.5) / side
        rows, columns = torch.meshgrid(middles, middles, indexing="ij")
        return self(torch.stack((columns, rows), dim=-1))
