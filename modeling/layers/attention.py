"""Multi-head attention through whatever backend is set: eager, sdpa, flash, flex or paged.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; with fewer key-value heads than heads it is grouped-query
attention (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245), with one it is multi-query attention:

    o_h = softmax(q_h k_g^T scale + bias) v_g,   g = floor(h / (H / G)),   y = concat_h(o_h) W_o

Shapes: B batch, T queries, S keys, D hidden size, H heads, G key-value heads, K head size.
"""

from collections.abc import Callable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .blockwise_attention import blockwise_attention
from .dropout import dropped_softmax
from .positions import rotate

_SCORES_IN_CACHE = 1 << 19  # float32 ones fill 2 MB
_MANY_SCORES = 1 << 21  # of a head, beyond which passing over all of them costs more than computing them twice


def exact_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool = False,
) -> Tensor:
    """torch's attention, for the pieces that a pattern is cut into: q (B, H, T, K), k and v (B, H, S, K) -> as q."""
    if not q.numel():  # torch's kernels refuse an empty batch
        return q
    if not dropout or is_causal or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, scale=scaling)
    # No fused kernel has dropout there, and torch's other one is slow; a few texts or heads at a time stay in cache
    axis = int(q.shape[1] > q.shape[0])
    size = max(1, _SCORES_IN_CACHE * q.shape[axis] // (q[..., 0].numel() * k.shape[2]))
    q = q * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    masks = repeat(None) if mask is None else mask.expand(*q.shape[:2], -1, -1).split(size, axis)
    pieces = zip(q.split(size, axis), k.split(size, axis), v.split(size, axis), masks, strict=mask is not None)
    return torch.cat([_attention_with_dropout(*piece, dropout) for piece in pieces], dim=axis)


def _attention_with_dropout(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    scores = q @ k.mT
    if mask is not None:
        scores = scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores.add_(mask)
    weights, factor = dropped_softmax(scores, dropout)
    return weights @ v * factor


class DispatchedAttention(nn.Module):
    """What every softmax attention needs in order to run on whatever backend is set.

    `config` is kept for the backends alone, which read `config._attn_implementation` and look up the attributes
    `is_causal`, `layer_idx` and `num_key_value_groups` of this module; no size is read from it.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        layer_idx: int,
        num_key_value_groups: int,
        scaling: float,
        dropout: float = 0.0,
        is_causal: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_key_value_groups = num_key_value_groups
        self.scaling = scaling
        self.dropout = dropout
        self.is_causal = is_causal

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """q (B, H, T, K), k and v (B, G, S, K) -> o (B, T, H, K), and weights or None."""
        if not q.numel():  # torch's kernels refuse an empty batch
            return q[..., : v.shape[-1]].transpose(1, 2), None
        dropout = self.dropout if self.training else 0.0
        if dropout and self._goes_by_blocks(q, k.shape[2], mask, kwargs):
            k, v = (z.repeat_interleave(self.num_key_value_groups, 1) for z in (k, v))
            is_causal = self.is_causal and mask is None  # a mask knows what is later
            y = blockwise_attention(q, k, v, mask, is_causal=is_causal, scaling=self.scaling, dropout=dropout)
            return y.transpose(1, 2), None
        backend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        return backend(self, q, k, v, mask, dropout=dropout, scaling=self.scaling, **kwargs)

    def _goes_by_blocks(self, q: Tensor, num_keys: int, mask: Tensor | None, options: dict[str, Any]) -> bool:
        """Whether "sdpa" would fall back on a full score matrix: torch has no kernel with dropout for a CPU."""
        is_plain = mask is None or mask.dtype == torch.bool
        is_plain = is_plain and options.get("position_bias") is None and options.get("is_causal") is None
        on_cpu = q.device.type == "cpu" and not torch.compiler.is_compiling()
        return (
            on_cpu
            and is_plain
            and q.shape[2] * num_keys >= _MANY_SCORES
            and self.config._attn_implementation == "sdpa"
        )


class Attention(DispatchedAttention):
    """Attention with separate projections.

    Args:
        q_norm, k_norm: of a head (..., K), before positions; both or neither.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        layer_idx: int,
        hidden_size: int,
        num_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        *,
        bias: bool = False,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool = True,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
    ) -> None:
        scaling = head_dim**-0.5 if scaling is None else scaling
        super().__init__(config, layer_idx, num_heads // num_key_value_heads, scaling, dropout, is_causal)
        self.head_dim = head_dim
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=bias)
        self.q_norm, self.k_norm = q_norm, k_norm

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        remember: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, T, D), mask as the backend wants it -> y (B, T, D) and, from eager, the weights (B, H, T, S).

        Args:
            remember: takes the new keys and values (B, G, T, K), returns all of them (B, G, S, K): a cache's update.
            position_embeddings: cos and sin (B, T, R) of rotary positions.
            kwargs: for the backend, such as `position_bias` (B, H, T, S) or `sliding_window`.
        """
        q, k, v = (self._split_heads(y) for y in self.project(x))
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if position_embeddings is not None:
            q, k = rotate(q, *position_embeddings), rotate(k, *position_embeddings)
        if remember is not None:
            k, v = remember(k, v)
        y, weights = self.attend(q, k, v, mask, **kwargs)
        return self.o_proj(y.flatten(2)), weights  # (B, T, H, K) -> (B, T, H K)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> q (B, T, H K), k and v (B, T, G K)."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def _split_heads(self, x: Tensor) -> Tensor:
        num_heads = x.shape[-1] // self.head_dim
        return x.unflatten(-1, (num_heads, self.head_dim)).transpose(1, 2)  # (B, T, H K) -> (B, H, T, K)


class ClippedAttention(Attention):
    """Attention whose queries, keys and values are clamped to [-clip, clip] after projection (OLMo, DBRX)."""

    def __init__(self, *args: Any, clip: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clip = clip

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> q (B, T, H K), k and v (B, T, G K), all clamped."""
        q, k, v = super().project(x)
        return tuple(y.clamp(-self.clip, self.clip) for y in (q, k, v))


def eager_attention(
    module: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """The equation in plain torch, softmax in float32; the only backend that returns the weights.

    Args:
        q: (B, H, T, K).
        k, v: (B, G, S, K).
        mask: (B or 1, 1, T, S), added to the scores.
        position_bias: (B or 1, H, T, S), added to the scores.
    """
    k, v = (y.repeat_interleave(module.num_key_value_groups, dim=1) for y in (k, v))
    scores = (q * scaling) @ k.mT  # (B, H, T, S); scaled first, or half precision overflows
    for bias in (position_bias, mask):
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
    weights = F.softmax(scores, dim=-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype)
    y = F.dropout(weights, dropout, module.training) @ v
    return y.transpose(1, 2), weights
