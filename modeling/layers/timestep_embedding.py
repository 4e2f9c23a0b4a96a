"""A step of diffusion as a vector: cosines and sines of it through a small network.

Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672; Peebles and Xie 2022, https://arxiv.org/abs/2212.09748.
"""

import math

import torch
from torch import Tensor, nn


class TimestepEmbedding(nn.Module):
    """Steps (...) -> (..., D), through `num_waves` cosines and sines together.

    Args:
        hidden_size: D.
    """

    def __init__(self, hidden_size: int, num_waves: int = 256) -> None:
        super().__init__()
        self.num_waves = num_waves
        self.up_proj = nn.Linear(num_waves, hidden_size)
        self.down_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, steps: Tensor) -> Tensor:
        """Steps (...), whole numbers -> (..., D)."""
        half = self.num_waves // 2
        rates = torch.exp(torch.arange(half, device=steps.device) * (-math.log(10000.0) / half))
        angles = steps[..., None].float() * rates
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1).to(self.up_proj.weight.dtype)
        return self.down_proj(nn.functional.silu(self.up_proj(waves)))
