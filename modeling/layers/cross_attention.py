"""Attention of one sequence to another: queries from x, keys and values from a context.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.3:

    o_h = softmax(q_h k_h^T scale) v_h,   q = x W_q,  k = c W_k,  v = c W_v,   y = concat_h(o_h) W_o

Shapes: B batch, T queries, S tokens of the context, D hidden size, H heads, G key-value heads, K head size.
"""

from typing import Any

from torch import Tensor

from .attention import Attention


class CrossAttention(Attention):
    """Keys and values are made by `project_context`, once for a context however many queries follow."""

    def project_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """context (B, S, D) -> keys and values (B, G, S, K)."""
        return self._split_heads(self.k_proj(context)), self._split_heads(self.v_proj(context))

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, T, D), keys and values (B, G, S, K) -> y (B, T, D) and, from eager, the weights (B, H, T, S)."""
        y, weights = self.attend(self._split_heads(self.q_proj(x)), keys, values, mask, **kwargs)
        return self.o_proj(y.flatten(2)), weights
