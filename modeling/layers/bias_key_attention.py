"""Attention with one key and one value more, which are learnt and seen from everywhere.

As `add_bias_kv` of torch's MultiheadAttention, which ImageBind's towers use (https://arxiv.org/abs/2305.05665):

    o_t = softmax(q_t [K; k_0]^T / sqrt(K)) [V; v_0]

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .image_attention import ImageAttention

_BIAS_STD = 0.02


class BiasKeyAttention(ImageAttention):
    """See `ImageAttention`; it takes no mask."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        hidden_size = self.q_proj.in_features
        self.bias_k = nn.Parameter(torch.zeros(hidden_size))
        self.bias_v = nn.Parameter(torch.zeros(hidden_size))

    @torch.no_grad()
    def initialise(self) -> None:
        """Both are drawn."""
        init.normal_(self.bias_k, std=_BIAS_STD)
        init.normal_(self.bias_v, std=_BIAS_STD)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> q (B, T, D), k and v (B, T + 1, D)."""
        q, k, v = super().project(x)
        k, v = (
            torch.cat((y, one.to(y.dtype).expand(len(y), 1, -1)), dim=1)
            for y, one in ((k, self.bias_k), (v, self.bias_v))
        )
        return q, k, v
