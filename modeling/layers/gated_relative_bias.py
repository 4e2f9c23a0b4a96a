"""Attention whose bias of distance is opened and closed by each query.

Chi et al. 2021, https://arxiv.org/abs/2106.16138, section 3.2, as in WavLM (https://arxiv.org/abs/2110.13900) and
BEATs (https://arxiv.org/abs/2212.09058). With d_ij the bias of a bucket of distances, which all layers share:

    [a; b] = W g_i,  u = sigmoid(sum a),  r = sigmoid(sum b)       a and b of four numbers each, g_i of one head
    score_ij = q_i . k_j / sqrt(K) + (u (r c - 1) + 2) d_ij        c learnt, one a head

where g_i is the query (BEATs) or that part of the hidden state (WavLM).

Shapes: B batch, T tokens, D hidden size, H heads, K head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers import initialization as init

from .attention import Attention

GATE_INPUTS = ("query", "hidden")
_GATE_SIZE = 8  # two gates, each the sum of four numbers


class GatedBiasAttention(Attention):
    """Attention to both sides; see `Attention`.

    Args:
        config: kept for the backends alone.
        layer_idx: of the block.
        hidden_size: D.
        num_heads: H.
        gate_input: what the gates read, the "query" or the "hidden" state.
        dropout: of the weights.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        layer_idx: int,
        hidden_size: int,
        num_heads: int,
        gate_input: str = "query",
        dropout: float = 0.0,
    ) -> None:
        head_dim = hidden_size // num_heads
        options = {"bias": True, "dropout": dropout, "is_causal": False}
        super().__init__(config, layer_idx, hidden_size, num_heads, num_heads, head_dim, **options)
        self.reads_query = gate_input == "query"
        self.gate = nn.Linear(head_dim, _GATE_SIZE)
        self.gate_constant = nn.Parameter(torch.ones(num_heads))

    @torch.no_grad()
    def initialise(self) -> None:
        """The constants start at one."""
        init.ones_(self.gate_constant)

    def forward(
        self, x: Tensor, bias: Tensor, hidden: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, T, D) -> y (B, T, D) and, from eager, the weights (B, H, T, T).

        Args:
            bias: (1, H, T, T), of distances.
            hidden: (B, 1, 1, T), true on keys that nobody sees.
        """
        q, k, v = (self._split_heads(y) for y in self.project(x))
        gated = self.openness(q if self.reads_query else self._split_heads(x)) * bias
        if hidden is not None:
            gated = gated.masked_fill(hidden, torch.finfo(gated.dtype).min)
        y, weights = self.attend(q, k, v, gated.to(q.dtype), **kwargs)
        return self.o_proj(y.flatten(2)), weights

    def openness(self, x: Tensor) -> Tensor:
        """What the biases of each query are multiplied by (B, H, T, 1), from 1 to 2 at first; x (B, H, T, K)."""
        update, reset = self.gate(x).unflatten(-1, (2, -1)).sum(-1, keepdim=True).sigmoid().unbind(-2)
        return update * (reset * self.gate_constant[:, None, None] - 1) + 2
