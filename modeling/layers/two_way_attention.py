"""Attention between a few tokens and many patches in both directions (Kirillov et al. 2023, figure 14).

    t = LN(t + SelfAttn(t + t0, t + t0, t))        the first block without t0, and without the residual
    t = LN(t + Attn(t + t0, x + p, x))             tokens look at patches
    t = LN(t + MLP(t))
    x = LN(x + Attn(x + p, t + t0, t))             patches look at tokens

t0 are the tokens as they came, p the positions of the patches: both are added again wherever queries and keys are
made. Several sets of tokens may look at one image; it is then projected once, until patches have seen the tokens.

Shapes: B images, P sets of tokens an image (1 where they share), T tokens, N patches, D hidden size, H heads, K head
size.
"""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig

from .attention import DispatchedAttention
from .mlp import MLP


class InnerAttention(DispatchedAttention):
    """Attention whose queries, keys and values come from three inputs, projected to a width of its own.

    Args:
        config, layer_idx: see `DispatchedAttention`.
        inner_size: H K; less than D where there are many patches.
    """

    def __init__(
        self, config: PreTrainedConfig, layer_idx: int, hidden_size: int, inner_size: int, num_heads: int
    ) -> None:
        super().__init__(config, layer_idx, 1, scaling=(inner_size // num_heads) ** -0.5, is_causal=False)
        self.num_heads = num_heads
        self.q_proj = nn.Linear(hidden_size, inner_size)
        self.k_proj = nn.Linear(hidden_size, inner_size)
        self.v_proj = nn.Linear(hidden_size, inner_size)
        self.o_proj = nn.Linear(inner_size, hidden_size)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, **kwargs: Any) -> Tensor:
        """queries (B, P, T, D), keys and values (B, P, S, D), any P may be 1 -> y (B, P, T, D)."""
        sets = max(queries.shape[1], keys.shape[1])
        q, k, v = (
            self._split_heads(proj(x.flatten(0, 1)).unflatten(0, x.shape[:2]), sets)
            for proj, x in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, values))
        )
        y = self.attend(q, k, v, None, **kwargs)[0]
        return self.o_proj(y.flatten(2)).unflatten(0, (-1, sets))

    def _split_heads(self, x: Tensor, sets: int) -> Tensor:
        x = x.unflatten(-1, (self.num_heads, -1)).transpose(2, 3)  # (B, P, T, H K) -> (B, P, H, T, K)
        return x.expand(-1, sets, -1, -1, -1).flatten(0, 1)


class TwoWayBlock(nn.Module):
    """One block of the four steps.

    Args:
        config, layer_idx: see `DispatchedAttention`; the first layer replaces the tokens instead of adding to them.
        downsample_rate: D / H K of attention between tokens and patches.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        layer_idx: int,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        downsample_rate: int,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.is_first = layer_idx == 0
        inner_size = hidden_size // downsample_rate
        self.self_attn = InnerAttention(config, layer_idx, hidden_size, hidden_size, num_heads)
        self.self_norm = nn.LayerNorm(hidden_size, norm_eps)
        self.token_attn = InnerAttention(config, layer_idx, hidden_size, inner_size, num_heads)
        self.token_norm = nn.LayerNorm(hidden_size, norm_eps)
        self.mlp = MLP(hidden_size, intermediate_size, "relu", bias=True)
        self.mlp_norm = nn.LayerNorm(hidden_size, norm_eps)
        self.patch_attn = InnerAttention(config, layer_idx, hidden_size, inner_size, num_heads)
        self.patch_norm = nn.LayerNorm(hidden_size, norm_eps)

    def forward(
        self, tokens: Tensor, patches: Tensor, first_tokens: Tensor, positions: Tensor, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, P, T, D) and patches (B, P or 1, N, D) -> both, patches as (B, P, N, D).

        Args:
            first_tokens: (B, P, T, D) before the first block.
            positions: (N, D).
        """
        if self.is_first:
            tokens = self.self_attn(tokens, tokens, tokens, **kwargs)
        else:
            placed = tokens + first_tokens
            tokens = tokens + self.self_attn(placed, placed, tokens, **kwargs)
        tokens = self.self_norm(tokens)
        placed = patches + positions
        tokens = self.token_norm(tokens + self.token_attn(tokens + first_tokens, placed, patches, **kwargs))
        tokens = self.mlp_norm(tokens + self.mlp(tokens))
        seen = self.patch_attn(placed, tokens + first_tokens, tokens, **kwargs)
        return tokens, self.patch_norm(patches + seen)
