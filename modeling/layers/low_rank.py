"""A linear layer of low rank: two thin matrices in the place of a wide one.

    y = x Aᵀ Bᵀ + b,   A (r, in),  B (out, r):   r (in + out) weights for in out, fewer if r < in out / (in + out)

From a dense W = U Σ Vᵀ the best of rank r in the least squares is A = √Σ_r V_rᵀ, B = U_r √Σ_r (Eckart and Young 1936).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init


class LowRankLinear(nn.Linear):
    """`nn.Linear` whose matrix is B A: `weight` is B (out, r), and `reduce` is A (r, in).

    An adapter such as LoRA takes it for the linear layer that it is, and trains beside it; it cannot be merged into
    `weight`, whose shape is another: make the layer dense first.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool = True) -> None:
        super().__init__(rank, out_features, bias=bias)
        self.in_features = in_features
        self.rank = rank
        self.reduce = nn.Parameter(torch.empty(rank, in_features))
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """A ~ N(0, 1 / in) and B ~ N(0, 1 / r): outputs have the variance of inputs."""
        init.normal_(self.reduce, std=self.in_features**-0.5)
        init.normal_(self.weight, std=self.rank**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> y (..., out)."""
        return F.linear(F.linear(x, self.reduce), self.weight, self.bias)

    @classmethod
    @torch.no_grad()
    def from_dense(cls, linear: nn.Linear, rank: int) -> "LowRankLinear":
        """The nearest layer of a rank, by singular values; exact if no rank is cut off."""
        u, sigma, vt = torch.linalg.svd(linear.weight.to(torch.promote_types(linear.weight.dtype, torch.float32)))
        root = sigma[:rank].sqrt()
        layer = cls(linear.in_features, linear.out_features, rank, bias=linear.bias is not None).to(linear.weight)
        layer.weight.copy_(u[:, :rank] * root)
        layer.reduce.copy_(root[:, None] * vt[:rank])
        if linear.bias is not None:
            layer.bias.copy_(linear.bias)
        return layer

    @torch.no_grad()
    def dense(self) -> nn.Linear:
        """The same function as one matrix."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None).to(self.weight)
        linear.weight.copy_(self.weight @ self.reduce)
        if self.bias is not None:
            linear.bias.copy_(self.bias)
        return linear

    def extra_repr(self) -> str:
        """Sizes and rank, for printing a model."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}, bias={self.bias is not None}"


def largest_rank(in_features: int, out_features: int) -> int:
    """The largest rank with fewer weights than the dense matrix; 0 if there is none."""
    return math.ceil(in_features * out_features / (in_features + out_features)) - 1


def factorise(module: nn.Module, ranks: dict[str, int]) -> None:
    """Replace the linear layers of the given names, wherever they are in the module, by fresh ones of low rank.

    Args:
        ranks: last part of a layer's name -> its rank.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if name in ranks and isinstance(child, nn.Linear):
                layer = LowRankLinear(child.in_features, child.out_features, ranks[name], child.bias is not None)
                setattr(parent, name, layer)
