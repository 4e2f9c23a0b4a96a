"""A small network between two wide layers: y = b + act(x W_1) W_2 through few hidden units (RWKV-6 and 7)."""

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """x (..., D) -> (..., E) through R units, tanh, sigmoid or nothing on them; the bias is added in float32.

    Args:
        hidden_size: D.
        rank: R.
        out_size: E.
        activation: "tanh", "sigmoid" or None.
        bias: whether there is one. Decays are about its exponential, which half precision would coarsen.
    """

    def __init__(
        self, hidden_size: int, rank: int, out_size: int, activation: str | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        self.activation = activation
        self.down = nn.Linear(hidden_size, rank, bias=False)
        self.up = nn.Linear(rank, out_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_size)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., E)."""
        hidden = self.down(x)
        if self.activation is not None:
            hidden = getattr(torch, self.activation)(hidden)
        y = self.up(hidden)
        return y if self.bias is None else y.to(torch.promote_types(y.dtype, torch.float32)) + self.bias
