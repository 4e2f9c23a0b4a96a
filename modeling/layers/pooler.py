"""One vector a row, from the token that stands for all of it."""

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN


def first_token(x: Tensor, attention_mask: Tensor | None) -> Tensor:
    """x (B, T, D), attention_mask (B, T) with 1 on real tokens -> the first of them, (B, D)."""
    if attention_mask is None or attention_mask.ndim != 2:
        return x[:, 0]
    return x[torch.arange(len(x), device=x.device), attention_mask.argmax(-1)]


class FirstTokenPooler(nn.Module):
    """tanh(W h) of the first real token, which is [CLS] (Devlin et al. 2018, https://arxiv.org/abs/1810.04805)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """x (B, T, D), attention_mask (B, T) with 1 on real tokens -> (B, D)."""
        return torch.tanh(self.dense(first_token(x, attention_mask)))


class ContextPooler(FirstTokenPooler):
    """act(W dropout(h)) of the first real token (He et al. 2020, https://arxiv.org/abs/2006.03654)."""

    def __init__(self, hidden_size: int, hidden_act: str, dropout: float = 0.0) -> None:
        super().__init__(hidden_size)
        self.act_fn = ACT2FN[hidden_act]
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """x (B, T, D), attention_mask (B, T) with 1 on real tokens -> (B, D)."""
        return self.act_fn(self.dense(self.dropout(first_token(x, attention_mask))))
