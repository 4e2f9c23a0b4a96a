"""A way for a decoder to look at media, which changes nothing until it has learnt to.

Alayrac et al. 2022, https://arxiv.org/abs/2204.14198, figure 4:

    x <- x + tanh(a) XAttn(N1(x), media)
    x <- x + tanh(b) F(N2(x)),             a = b = 0 at first

A token before the first medium that it may see gets nothing from it, and not the mean of what it may not see.

Shapes: B batch, T tokens, S tokens of media, D hidden size, E size of media, H heads, K head size.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .attention import exact_attention
from .mlp import MLP


class GatedCrossAttention(nn.Module):
    """Attention to media, then a feed-forward network, each behind its gate; nothing has a bias.

    Args:
        hidden_size: D.
        context_size: E.
        num_heads: H.
        head_dim: K.
        eps: of the norms.
    """

    def __init__(self, hidden_size: int, context_size: int, num_heads: int, head_dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.mixer_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(context_size, num_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(context_size, num_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=False)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.mlp_norm = nn.LayerNorm(hidden_size, eps=eps)
        self.mlp = MLP(hidden_size, 4 * hidden_size, "gelu")
        self.mlp_gate = nn.Parameter(torch.zeros(1))

    @torch.no_grad()
    def initialise(self) -> None:
        """Both gates are closed."""
        init.zeros_(self.attention_gate)
        init.zeros_(self.mlp_gate)

    def project_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """context (B, S, E) -> keys and values (B, H, S, K)."""
        return self._split_heads(self.k_proj(context)), self._split_heads(self.v_proj(context))

    def forward(
        self, x: Tensor, keys: Tensor | None = None, values: Tensor | None = None, seen: Tensor | None = None
    ) -> Tensor:
        """x (B, T, D), keys and values (B, H, S, K), seen (B, T, S) true where a token may look -> (B, T, D).

        Without keys there are no media, as for a token that may look at none: the second line is left.
        """
        if keys is not None:
            x = x + self.attention_gate.tanh() * self._look(x, keys, values, seen)
        return x + self.mlp_gate.tanh() * self.mlp(self.mlp_norm(x))

    def _look(self, x: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        looks = seen.any(-1, keepdim=True)  # (B, T, 1)
        q = self._split_heads(self.q_proj(self.mixer_norm(x)))
        y = exact_attention(q, keys, values, (seen | ~looks)[:, None])  # a row without any key is no number
        return self.o_proj(y.transpose(1, 2).flatten(2)) * looks

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, T, H K) -> (B, H, T, K)
