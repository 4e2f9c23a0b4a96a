"""Attention that may attend to nothing: softmax-off-by-one, and the learned sink that contains it.

    sm1(x)_i = exp(x_i) / (n + sum_j exp(x_j))                    Miller 2023, "Attention is off by one"; n = 1
    general:  exp(x_i) / (exp(s_h) + sum_j exp(x_j)),  s = log n  one number a head, learned in gpt-oss

It is ordinary softmax over one key more, whose score is s and whose value is 0: that runs on every backend and costs
one key, and nothing of it is kept in the cache. With s = 0 a key of zeros has the right score by itself.

Shapes: B batch, T queries, S keys, H heads, G key-value heads, K head size.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .attention import Attention


class SinkAttention(Attention):
    """Attention with exp(s_h) added to the softmax's denominator.

    Args:
        offset: n, positive; s starts at log n.
        is_learned: whether s is a parameter, one number a head.
    """

    def __init__(self, *args: Any, offset: float = 1.0, is_learned: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        num_heads = self.q_proj.out_features // self.head_dim
        self.log_offset = math.log(offset)
        self.sink = nn.Parameter(torch.full((num_heads,), self.log_offset)) if is_learned else None

    def initialise(self) -> None:
        """s = log n for every head."""
        if self.sink is not None:
            init.constant_(self.sink, self.log_offset)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """q (B, H, T, K), k and v (B, G, S, K) -> o (B, T, H, K), and from eager the weights (B, H, T, S)."""
        backend = self.config._attn_implementation
        if backend == "flex_attention":
            # Its masks are functions of the key's index, so the sink is applied to the log-sum-exp instead.
            return super().attend(q, k, v, mask, s_aux=self._score(q), **kwargs)
        if "flash" in backend:
            return self._attend_flash(q, k, v, mask, **kwargs)

        num_queries, num_keys = q.shape[2], k.shape[2]
        if mask is None and self.is_causal and num_queries > 1:
            # No mask and more keys than queries is the start of a static cache, whose other places are still empty.
            mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=q.device).tril()
            mask = mask[None, None]
            if backend == "eager":
                mask = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, -torch.inf)
        k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        if mask is not None:
            mask = F.pad(mask, (0, 1), value=True if mask.dtype == torch.bool else 0.0)
        if (bias := kwargs.pop("position_bias", None)) is not None:
            kwargs["position_bias"] = F.pad(bias, (0, 1))
        if self.sink is not None or self.log_offset:
            score = torch.zeros(1, len(self._score(q)), 1, num_keys + 1, dtype=q.dtype, device=q.device)
            score = torch.cat((score[..., :-1], self._score(q)[None, :, None, None]), dim=-1)
            bias = kwargs.get("position_bias")
            kwargs["position_bias"] = score.expand(1, -1, num_queries, -1) if bias is None else bias + score
        y, weights = super().attend(q, k, v, mask, **kwargs)
        return y, None if weights is None else weights[..., :-1]

    def _score(self, q: Tensor) -> Tensor:
        """s (H) in the dtype of q."""
        if self.sink is not None:
            return self.sink.to(q.dtype)
        return q.new_full((q.shape[1],), self.log_offset)

    def _attend_flash(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Flash kernels align causality to the last key, so the key of zeros goes first; mask is (B, S) or None."""
        if self.sink is not None or self.log_offset:
            # Kernels that know sinks take their scores; the others raise.
            return super().attend(q, k, v, mask, s_aux=self._score(q), **kwargs)
        if kwargs.get("sliding_window") is not None:
            raise ValueError(
                "flash attention with a sliding window moves past the key of zeros that attention_softmax="
                "'off_by_one' needs: set attn_implementation='sdpa', or attention_softmax='learned_sink'"
            )
        k, v = F.pad(k, (0, 0, 1, 0)), F.pad(v, (0, 0, 1, 0))
        mask = None if mask is None else F.pad(mask, (1, 0), value=1)
        return super().attend(q, k, v, mask, **kwargs)
