"""Convolution over a graph of neighbours: a stack in which every token is told how its neighbours differ from it.

Wang et al. 2018, https://arxiv.org/abs/1801.07829, section 3.1; the stack is that of Point-BERT's tokenizer:

    y_i = max over neighbours j of leaky(GN(W [x_j - x_i; x_i]))
    out = W' leaky(GN(W'' [y^1; y^2; y^3; y^4]))

Shapes: B rows, G tokens, C channels, K neighbours.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .point_groups import take_points

_NORM_GROUPS = 4
_SLOPE = 0.2


class EdgeConvolution(nn.Module):
    """x (B, G, C) and the neighbours (B, G, K) of each token -> (B, G, C')."""

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__()
        self.proj = nn.Linear(2 * in_size, out_size, bias=False)
        self.norm = nn.GroupNorm(_NORM_GROUPS, out_size)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """x (B, G, C), neighbours (B, G, K) -> (B, G, C')."""
        own = x[:, :, None].expand(-1, -1, neighbours.shape[-1], -1)
        edges = self.proj(torch.cat((take_points(x, neighbours) - own, own), dim=-1))
        edges = self.norm(edges.flatten(1, 2).mT).mT.unflatten(1, neighbours.shape[1:])
        return F.leaky_relu(edges, _SLOPE).amax(2)


class GraphNetwork(nn.Module):
    """Four edge convolutions, whose outputs are joined: x (B, G, C) -> (B, G, C').

    Args:
        in_size: C.
        out_size: C'.
        graph_size: of the first convolution's input; the four give two, four, four and eight times as many channels.
    """

    def __init__(self, in_size: int, out_size: int, graph_size: int) -> None:
        super().__init__()
        sizes = [factor * graph_size for factor in (1, 2, 4, 4, 8)]
        self.in_proj = nn.Linear(in_size, graph_size)
        self.convolutions = nn.ModuleList(EdgeConvolution(*pair) for pair in pairwise(sizes))
        self.mix_proj = nn.Linear(sum(sizes[1:]), sizes[-1], bias=False)
        self.norm = nn.GroupNorm(_NORM_GROUPS, sizes[-1])
        self.out_proj = nn.Linear(sizes[-1], out_size)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """x (B, G, C), neighbours (B, G, K) -> (B, G, C')."""
        x, outputs = self.in_proj(x), []
        for convolution in self.convolutions:
            x = convolution(x, neighbours)
            outputs.append(x)
        x = self.norm(self.mix_proj(torch.cat(outputs, dim=-1)).mT).mT
        return self.out_proj(F.leaky_relu(x, _SLOPE))
