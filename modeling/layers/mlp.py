"""The position-wise feed-forward network, plain and gated.

plain  y = W_down act(W_up x)                          Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
gated  y = W_down (act(W_gate x) * W_up x)             Shazeer 2020, https://arxiv.org/abs/2002.05202
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), as silu(1.702 x) / 1.702, which can reuse its memory: on a CPU that is most of its time."""

    def forward(self, x: Tensor) -> Tensor:
        """x, any shape -> the same shape."""
        is_recorded = torch.is_grad_enabled() and x.requires_grad
        return F.silu(x * 1.702, inplace=not is_recorded).mul_(1 / 1.702)


def activation(name: str) -> nn.Module:
    """What transformers calls by that name; GPT-2's and BigBird's in one kernel instead of eight."""
    if name == "quick_gelu":
        return QuickGELU()
    return ACT2FN["gelu_pytorch_tanh" if name == "gelu_new" else name]


class MLP(nn.Module):
    """x (..., D) -> y (..., D) through F hidden units; `hidden_act` is a name that transformers knows.

    `down_proj` may be in a wider dtype than the rest, where its sums would overflow half precision; y then is, too.
    """

    def __init__(
        self, hidden_size: int, intermediate_size: int, hidden_act: str, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.act_fn = activation(hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> y (..., D)."""
        return self.narrow(self.act_fn(self.up_proj(x)))

    def narrow(self, hidden: Tensor) -> Tensor:
        """Hidden units (..., F) -> y (..., D)."""
        if self.dropout:
            hidden = F.dropout(hidden, self.dropout, self.training)
        if hidden.dtype == torch.float16 and self.down_proj.weight.dtype == torch.float32:
            hidden = hidden.float()
        return self.down_proj(hidden)


class GatedMLP(MLP):
    """SwiGLU and its kind: a third projection gates the hidden units."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, hidden_act: str, bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__(hidden_size, intermediate_size, hidden_act, bias, dropout)
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> y (..., D)."""
        return self.narrow(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
