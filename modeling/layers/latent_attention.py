"""Multi-head latent attention: keys and values of all heads come from one small vector a token, and only that is kept.

DeepSeek-AI 2024, https://arxiv.org/abs/2405.04434 (V2), section 2.1 and appendix C:

    cQ = RMS(x W_dq),  [qN_h ; qR_h] = cQ W_uq        qR turned by RoPE; without cQ, q = x W_q
    [cKV ; kR] = x W_dkv                              cKV <- RMS(cKV),  kR turned, one for all heads
    [kN_h ; v_h] = cKV W_ukv
    score_h(i, j) = (qN_hi kN_hj + qR_hi kR_j) scale,  o_h = sum over j of softmax_j(score_h) v_hj,  y = concat(o) W_o

Absorbed: since kN_h = cKV W_uk_h, the query can take the matrix instead of every key, and the output instead of every
value, which is the same number by another order of multiplication and reads nothing but cKV and kR:

    score_h(i, j) = ((qN_hi W_uk_h^T) cKV_j + qR_hi kR_j) scale,  o_h = (sum over j of softmax_j(score_h) cKV_j) W_uv_h

Shapes: B batch, T queries, S keys, D hidden size, H heads, C latent size, N and R sizes of the plain and the rotary
part of a key, V value size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from .attention import DispatchedAttention
from .norm import RMSNorm
from .positions import rotate


@dataclass(frozen=True)
class LatentSizes:
    """The sizes of one head and of what it comes from.

    Args:
        kv_lora_rank: C.
        q_lora_rank: size of cQ; None for queries that come from x itself.
        qk_nope_head_dim, qk_rope_head_dim, v_head_dim: N, R, V.
    """

    kv_lora_rank: int
    q_lora_rank: int | None
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int


def yarn_scaling(rope_parameters: dict[str, Any]) -> float:
    """Factor on the scores of models whose context YaRN has stretched, (0.1 mscale log(factor) + 1)^2; else 1."""
    mscale = rope_parameters.get("mscale_all_dim")
    if rope_parameters["rope_type"] == "default" or not mscale or rope_parameters["factor"] <= 1:
        return 1.0
    return (0.1 * mscale * math.log(rope_parameters["factor"]) + 1.0) ** 2


def deinterleave(x: Tensor) -> Tensor:
    """Pairs (x_0, x_1), (x_2, x_3), ... into halves, as `rotate` wants them: (..., R) -> (..., R)."""
    return torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1)


def is_plain(linear: nn.Module) -> bool:
    """Whether a layer does nothing but multiply by its weight: no adapter, quantisation, sharding or hook."""
    has_hooks = linear._forward_hooks or linear._forward_pre_hooks or "forward" in vars(linear)
    return type(linear) is nn.Linear and type(linear.weight) is nn.Parameter and not has_hooks


class LatentAttention(DispatchedAttention):
    """Attention over latents; decodes in the absorbed form, trains and reads prompts in the plain one.

    Args:
        sizes: of a head.
        bias: whether the projections of and onto the hidden state have biases.
        is_interleaved: whether RoPE turns pairs of neighbours, as in the published weights, or halves.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        layer_idx: int,
        hidden_size: int,
        num_heads: int,
        sizes: LatentSizes,
        *,
        bias: bool = False,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool = True,
        is_interleaved: bool = True,
    ) -> None:
        key_size = sizes.qk_nope_head_dim + sizes.qk_rope_head_dim
        super().__init__(config, layer_idx, 1, key_size**-0.5 if scaling is None else scaling, dropout, is_causal)
        self.sizes = sizes
        self.is_interleaved = is_interleaved
        if sizes.q_lora_rank is None:
            self.q_proj = nn.Linear(hidden_size, num_heads * key_size, bias=False)
        else:
            self.q_a_proj = nn.Linear(hidden_size, sizes.q_lora_rank, bias=bias)
            self.q_a_layernorm = RMSNorm(sizes.q_lora_rank)
            self.q_b_proj = nn.Linear(sizes.q_lora_rank, num_heads * key_size, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden_size, sizes.kv_lora_rank + sizes.qk_rope_head_dim, bias=bias)
        self.kv_a_layernorm = RMSNorm(sizes.kv_lora_rank)
        self.kv_b_proj = nn.Linear(
            sizes.kv_lora_rank, num_heads * (sizes.qk_nope_head_dim + sizes.v_head_dim), bias=False
        )
        self.o_proj = nn.Linear(num_heads * sizes.v_head_dim, hidden_size, bias=bias)

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
            remember: takes the new latents (B, 1, T, C) and rotary keys (B, 1, T, R), returns all of them: a cache's
                update.
            position_embeddings: cos and sin (B, T, R) of rotary positions.
            kwargs: for the backend.
        """
        sizes = self.sizes
        q_nope, q_rope = self.queries(x).split((sizes.qk_nope_head_dim, sizes.qk_rope_head_dim), dim=-1)
        latent, k_rope = self.kv_a_proj_with_mqa(x)[:, None].split((sizes.kv_lora_rank, sizes.qk_rope_head_dim), -1)
        latent = self.kv_a_layernorm(latent)
        if position_embeddings is not None:
            q_rope, k_rope = (self.turn(y, *position_embeddings) for y in (q_rope, k_rope))
        if remember is not None:
            latent, k_rope = remember(latent, k_rope)
        if remember is not None and self.should_absorb(x.shape[1], latent.shape[2], mask):
            y, weights = self.attend_absorbed(q_nope, q_rope, latent[:, 0], k_rope[:, 0], mask)
        else:
            k, v = self.expand(latent, k_rope)
            y, weights = self.attend(torch.cat((q_nope, q_rope), dim=-1), k, v, mask, **kwargs)
        return self.o_proj(y.flatten(2)), weights  # (B, T, H, V) -> (B, T, H V)

    def queries(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> q (B, H, T, N + R), not yet turned."""
        q = self.q_proj(x) if self.sizes.q_lora_rank is None else self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        return q.unflatten(-1, (-1, self.sizes.qk_nope_head_dim + self.sizes.qk_rope_head_dim)).transpose(1, 2)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """RoPE on x (B, H or 1, T, R); the result is in halves, which changes no product of two of them."""
        return rotate(deinterleave(x) if self.is_interleaved else x, cos, sin)

    def expand(self, latent: Tensor, k_rope: Tensor) -> tuple[Tensor, Tensor]:
        """latent (B, 1, S, C), k_rope (B, 1, S, R) -> keys (B, H, S, N + R) and values (B, H, S, V)."""
        heads = self.sizes.qk_nope_head_dim + self.sizes.v_head_dim
        kv = self.kv_b_proj(latent[:, 0]).unflatten(-1, (-1, heads)).transpose(1, 2)
        k_nope, v = kv.split((self.sizes.qk_nope_head_dim, self.sizes.v_head_dim), dim=-1)
        return torch.cat((k_nope, k_rope.expand(-1, k_nope.shape[1], -1, -1)), dim=-1), v

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """q and k (B, H, T or S, N + R), v (B, H, S, V) -> o (B, T, H, V), and weights or None."""
        width, backend = v.shape[-1], self.config._attn_implementation
        if width < q.shape[-1] and ("sdpa" in backend or "flash" in backend):
            # Fused kernels want keys and values of one size; without them sdpa would write out all scores
            v = F.pad(v, (0, q.shape[-1] - width))
        y, weights = super().attend(q, k, v, mask, **kwargs)
        return y[..., :width], weights

    def should_absorb(self, num_queries: int, num_keys: int, mask: Tensor | None) -> bool:
        """Whether the absorbed form can be used and multiplies less than expanding every key and value.

        It needs the bare matrix of `kv_b_proj`, a mask that can be added, and nothing to learn.
        """
        if self.training or torch.is_grad_enabled() or not num_queries or not is_plain(self.kv_b_proj):
            return False
        if self.config._attn_implementation not in ("eager", "sdpa") or (mask is None and num_queries > 1):
            return False
        sizes = self.sizes
        per_latent = sizes.kv_lora_rank * (sizes.qk_nope_head_dim + sizes.v_head_dim)
        plain = sizes.qk_nope_head_dim + sizes.qk_rope_head_dim + sizes.v_head_dim
        absorbed = 2 * sizes.kv_lora_rank + sizes.qk_rope_head_dim
        cost = num_queries * (per_latent + num_keys * absorbed)
        return cost < num_keys * per_latent + num_queries * num_keys * plain

    def attend_absorbed(
        self, q_nope: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The second equation above: all heads read the same latents.

        Args:
            q_nope: (B, H, T, N).
            q_rope: (B, H, T, R), turned.
            latent: (B, S, C), normalised.
            k_rope: (B, S, R), turned.
            mask: (B or 1, 1, T, S), added to the scores, or True where a key is seen.

        Returns:
            o (B, T, H, V) and the weights (B, H, T, S).
        """
        rows, heads, num_queries, _ = q_nope.shape
        matrices = self.kv_b_proj.weight.view(heads, -1, self.sizes.kv_lora_rank)
        up_k, up_v = matrices.split((self.sizes.qk_nope_head_dim, self.sizes.v_head_dim), dim=1)  # (H, N or V, C)
        q_latent = (q_nope * self.scaling).transpose(0, 1).reshape(heads, -1, q_nope.shape[-1]) @ up_k
        q_latent = q_latent.view(heads, rows, num_queries, -1).transpose(0, 1).reshape(rows, heads * num_queries, -1)
        scores = torch.baddbmm(
            (q_rope * self.scaling).reshape(rows, heads * num_queries, -1) @ k_rope.mT, q_latent, latent.mT
        ).view(rows, heads, num_queries, -1)
        if mask is not None:
            is_seen = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if is_seen else scores + mask
        weights = F.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)
        context = (weights.flatten(1, 2) @ latent).view(rows, heads, num_queries, -1).transpose(0, 1)
        y = context.reshape(heads, rows * num_queries, -1) @ up_v.mT  # (H, B T, V)
        return y.view(heads, rows, num_queries, -1).permute(1, 2, 0, 3), weights
