"""Feature maps of linear attention: φ with φ(q)·φ(k) in the place of exp(q·k).

    elu1      φ(x) = elu(x) + 1                                     Katharopoulos et al. 2020, section 3.2.1
    relu      φ(x) = relu(x);   relu2: its square;   identity: x itself
    softmax   φ(x) = softmax over the K numbers of x                Shen et al. 2018, https://arxiv.org/abs/1812.01243
    taylor2   φ(x) = [1, x', vec(x' x'ᵀ) / √2], x' = x / K^¼        so that φ(q)·φ(k) = 1 + s + s²/2, s = q·k / √K
    favor     φ(x) = exp(w_r·x' - |x'|²/2) / √m, x' = x / K^¼       Choromanski et al. 2020, section 2.3 and 2.4,
              the w_r rows of orthogonal Gaussian blocks            https://arxiv.org/abs/2009.14794

Shapes: B batch, H heads, T tokens, K head size, m features.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init


class PointwiseFeatures(nn.Module):
    """Maps that have as many features as the head has numbers; `name` is elu1, relu, relu2, identity or softmax."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor, is_query: bool) -> Tensor:
        """x (B, H, T, K) -> (B, H, T, K)."""
        if self.name == "elu1":
            return F.elu(x) + 1
        if self.name == "relu":
            return F.relu(x)
        if self.name == "relu2":
            return F.relu(x).square()
        if self.name == "softmax":
            return F.softmax(x, dim=-1)
        return x

    def extra_repr(self) -> str:
        """The name, for printing a model."""
        return self.name


class TaylorFeatures(nn.Module):
    """exp to second order: 1 + K + K² features, whose product (1 + (1 + s)²) / 2 is never below a half."""

    def forward(self, x: Tensor, is_query: bool) -> Tensor:
        """x (B, H, T, K) -> (B, H, T, 1 + K + K²)."""
        x = x * x.shape[-1] ** -0.25
        squares = (x[..., :, None] * x[..., None, :]).flatten(-2) * 2**-0.5
        return torch.cat((torch.ones_like(x[..., :1]), x, squares), dim=-1)


class RandomFeatures(nn.Module):
    """FAVOR+: positive orthogonal random features, whose product is exp(q·k / √K) on average.

    The paper subtracts the largest exponent before taking exp. That of a query cancels in the average and is
    subtracted here too; that of the keys is known only at the end of a text, and is not: an exponent is at most
    |w_r|² / 2, about K / 2, which float32 holds up to K = 128.

    Args:
        head_dim: K.
        num_features: m, K log K if not given.
    """

    def __init__(self, head_dim: int, num_features: int | None = None) -> None:
        super().__init__()
        num_features = num_features or max(1, round(head_dim * math.log(head_dim)))
        self.register_buffer("projection", torch.empty(num_features, head_dim))
        self.initialise()

    def initialise(self) -> None:
        """Draw the features; calling it again draws others."""
        num_features, head_dim = self.projection.shape
        gaussian = torch.randn(-(-num_features // head_dim), head_dim, head_dim, device=self.projection.device)
        rows = torch.linalg.qr(gaussian).Q.mT.flatten(0, 1)[:num_features]  # orthonormal within a block
        lengths = torch.randn(num_features, head_dim, device=rows.device).norm(dim=-1, keepdim=True)
        init.copy_(self.projection, rows * lengths)

    def forward(self, x: Tensor, is_query: bool) -> Tensor:
        """x (B, H, T, K) -> (B, H, T, m)."""
        x = x * x.shape[-1] ** -0.25
        exponents = x @ self.projection.to(x.dtype).t() - x.square().sum(-1, keepdim=True) / 2
        if is_query:
            exponents = exponents - exponents.detach().amax(-1, keepdim=True)
        return (exponents.exp() + 1e-4) * len(self.projection) ** -0.5


def make_feature_map(name: str, head_dim: int, num_features: int | None = None) -> nn.Module:
    """The map of a name; `num_features` concerns favor alone."""
    if name == "favor":
        return RandomFeatures(head_dim, num_features)
    return TaylorFeatures() if name == "taylor2" else PointwiseFeatures(name)
