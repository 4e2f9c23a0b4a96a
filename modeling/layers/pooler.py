"""One vector a row, from the token that stands for all of it or from all tokens.

Shapes: B batch, T tokens, D hidden size.
"""

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

POOLINGS = ("cls", "mean", "last")


def pool(x: Tensor, attention_mask: Tensor | None, kind: str) -> Tensor:
    """One vector (B, D) of x (B, T, D).

    Args:
        attention_mask: (B, T) with 1 on real tokens; None where all are.
        kind: "cls" for the first real token, "last" for the last, "mean" for all of them.
    """
    if attention_mask is None or attention_mask.ndim != 2:
        return {"cls": x[:, 0], "last": x[:, -1], "mean": x.mean(1)}[kind]
    if kind == "mean":
        weights = attention_mask[..., None].to(x.dtype)
        return (x * weights).sum(1) / weights.sum(1)
    steps = torch.arange(x.shape[1], device=x.device)
    place = attention_mask.argmax(-1) if kind == "cls" else (attention_mask * steps).argmax(-1)
    return x[torch.arange(len(x), device=x.device), place]


def pool_at(x: Tensor, input_ids: Tensor, token_id: int | None, attention_mask: Tensor | None) -> Tensor:
    """The vector (B, D) of x (B, T, D) at each row's first `token_id`, or at its highest id if that is None; at the
    last real token in rows that have none (CLIP reads texts at their end token).

    Args:
        input_ids: (B, T).
        token_id: which.
        attention_mask: (B, T) with 1 on real tokens; None where all are.
    """
    if token_id is None:
        place = input_ids.argmax(-1)
    else:
        found = input_ids == token_id
        if attention_mask is not None:
            found = found & attention_mask.bool()  # padding may have the same id
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        last = (real * torch.arange(x.shape[1], device=x.device)).argmax(-1)
        place = torch.where(found.any(-1), found.int().argmax(-1), last)
    return x[torch.arange(len(x), device=x.device), place]


class FirstTokenPooler(nn.Module):
    """tanh(W h) of the first real token, which is [CLS] (Devlin et al. 2018, https://arxiv.org/abs/1810.04805)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """x (B, T, D), attention_mask (B, T) with 1 on real tokens -> (B, D)."""
        return torch.tanh(self.dense(pool(x, attention_mask, "cls")))


class ContextPooler(FirstTokenPooler):
    """act(W dropout(h)) of the first real token (He et al. 2020, https://arxiv.org/abs/2006.03654)."""

    def __init__(self, hidden_size: int, hidden_act: str, dropout: float = 0.0) -> None:
        super().__init__(hidden_size)
        self.act_fn = ACT2FN[hidden_act]
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        """x (B, T, D), attention_mask (B, T) with 1 on real tokens -> (B, D)."""
        return self.act_fn(self.dense(self.dropout(pool(x, attention_mask, "cls"))))
