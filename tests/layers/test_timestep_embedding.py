"""Steps of diffusion as waves, by a plain loop."""

import math

import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.timestep_embedding import TimestepEmbedding


def test_a_step_is_cosines_then_sines_through_a_network():
    torch.manual_seed(0)
    layer = TimestepEmbedding(5, num_waves=6)
    steps = torch.tensor([[0, 3], [40, 99]])
    got = layer(steps)
    for row in range(2):
        for column in range(2):
            angles = [int(steps[row, column]) / 10000 ** (i / 3) for i in range(3)]
            waves = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)])
            hidden = layer.up_proj.weight @ waves + layer.up_proj.bias
            expected = layer.down_proj.weight @ (hidden / (1 + (-hidden).exp())) + layer.down_proj.bias
            assert_close(got[row, column], expected)
