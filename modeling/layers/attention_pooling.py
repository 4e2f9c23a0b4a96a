"""One vector for all tokens, by attention from a learned query.

Zhai et al. 2022, https://arxiv.org/abs/2106.04560, section 3.2; the pooling of SigLIP:

    h = MHA(probe, x, x);  y = h + MLP(LayerNorm(h))

Shapes: B batch, T tokens, D hidden size, H heads, K head size.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .attention import exact_attention
from .mlp import MLP


class AttentionPooling(nn.Module):
    """x (B, T, D) -> (B, D).

    Args:
        hidden_size: D.
        num_heads: H.
        intermediate_size: of the MLP.
        hidden_act: of the MLP.
        eps: of the norm.
    """

    def __init__(self, hidden_size: int, num_heads: int, intermediate_size: int, hidden_act: str, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.probe = nn.Parameter(torch.zeros(hidden_size))
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.o_proj = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=eps)
        self.mlp = MLP(hidden_size, intermediate_size, hidden_act, bias=True)

    @torch.no_grad()
    def initialise(self) -> None:
        """The probe is drawn: from zero all its keys would weigh alike."""
        init.normal_(self.probe, std=len(self.probe) ** -0.5)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """x (B, T, D), attention_mask (B, T) with 1 on real tokens -> (B, D)."""
        q = self._split_heads(self.q_proj(self.probe)[None, None].expand(len(x), 1, -1))
        k, v = (self._split_heads(proj(x)) for proj in (self.k_proj, self.v_proj))
        mask = None if attention_mask is None else attention_mask[:, None, None].bool()
        y = self.o_proj(exact_attention(q, k, v, mask).transpose(1, 2).flatten(1))
        return y + self.mlp(self.norm(y))

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, T, D) -> (B, H, T, K)
