"""What carries features of one model into the space of another.

Liu et al. 2023, https://arxiv.org/abs/2310.03744: y = W_2 gelu(W_1 x + b_1) + b_2, or W_1 x + b_1 alone.

Shapes: E size of a feature, D hidden size.
"""

from torch import Tensor, nn

from .mlp import activation


class Projector(nn.Module):
    """Features into the size of the language model: linear layers with an activation between them."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, hidden_act: str, bias: bool) -> None:
        super().__init__()
        sizes = [input_size] + [hidden_size] * num_layers
        self.linears = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in zip(sizes, sizes[1:], strict=False))
        self.act_fn = activation(hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., E) -> (..., D)."""
        x = self.linears[0](x)
        for linear in self.linears[1:]:
            x = linear(self.act_fn(x))
        return x
