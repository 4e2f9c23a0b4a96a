"""Positions as sines and cosines of fixed random directions (Tancik et al. 2020, https://arxiv.org/abs/2006.10739).

    e(x) = [sin(2 pi (2 x - 1) G), cos(2 pi (2 x - 1) G)],   x in [0, 1]^2,  G (2, F) drawn once from N(0, 1)

Shapes: F directions.
"""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init


def draw_directions(number: int) -> Tensor:
    """G (2, F), the same at every call, and so in every model of a size."""
    return torch.randn(2, number, generator=torch.Generator().manual_seed(0), device="cpu")


class FourierPositions(nn.Module):
    """Points of the unit square as vectors of `size` numbers; nothing is learnt."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("directions", draw_directions(size // 2).to(torch.empty(0).device))

    def initialise(self) -> None:
        """The directions that a new model has."""
        init.copy_(self.directions, draw_directions(self.directions.shape[1]))

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
