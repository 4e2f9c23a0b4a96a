"""One vector a row, from the token that stands for all of it."""

import torch
from torch import Tensor, nn


def first_real(x: Tensor, attention_mask: Tensor | None) -> Tensor:
    """x (B, T, D), attention_mask (B, T) with 1 on real tokens -> (B, D), the first of them."""
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
        return torch.tanh(self.dense(first_real(x, attention_mask)))
