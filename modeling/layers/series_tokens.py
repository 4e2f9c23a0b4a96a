"""A series of measurements as tokens: one a step, made of the step and its two neighbours on a ring.

Zhou et al. 2020, https://arxiv.org/abs/2012.07436, appendix B: a convolution of width 3 whose ends meet, and sines and
cosines of the place,

    z_t = E [x_{t-1}; x_t; x_{t+1}] + s_t,   x_0 = x_T and x_{T+1} = x_1

Shapes: B series, T steps, C channels, D hidden size.
"""

import torch
from torch import Tensor, nn

from .positions import SinusoidalPositions


class SeriesTokens(nn.Module):
    """Steps and their places, which no table limits."""

    def __init__(self, num_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.step_embed = nn.Conv1d(num_channels, hidden_size, 3, padding=1, padding_mode="circular", bias=False)
        self.embed_positions = SinusoidalPositions(hidden_size)

    def forward(self, series: Tensor) -> Tensor:
        """series (B, T, C) -> (B, T, D).

        Raises:
            ValueError: another number of channels, or no step.
        """
        num_channels = self.step_embed.in_channels
        if series.ndim != 3 or series.shape[2] != num_channels or not series.shape[1]:
            raise ValueError(
                f"a series must be (series, steps, num_channels={num_channels}) with at least one step, "
                f"got {tuple(series.shape)}"
            )
        x = self.step_embed(series.to(self.step_embed.weight.dtype).mT).mT
        places = self.embed_positions(torch.arange(x.shape[1], device=x.device)[None])
        return x + places.to(x.dtype)
