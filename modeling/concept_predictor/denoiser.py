"""The second tower: it makes a concept clean, step by step, looking at the concepts before it.

Barault et al. 2024, https://arxiv.org/abs/2412.08821, section 2.3.3; the modulated block is that of Peebles and Xie
2022, https://arxiv.org/abs/2212.09748:

    x <- x + g A(N(x) (1 + s) + b)       for self-attention, cross-attention and the feed-forward network in turn,
    b, s, g of each = W silu(step)       all 0 at the start, so that a block begins as the identity

Concepts are predicted independently of one another: self-attention sees only itself, which leaves its values.

Shapes: B batch, N concepts, D hidden size, K keys: a vector of zeros, and the contexts.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from ..layers.cross_attention import CrossAttention
from ..layers.mlp import MLP, GatedMLP
from ..layers.norm import NORMS
from ..layers.timestep_embedding import TimestepEmbedding
from .configuration_concept_predictor import ZooConceptPredictorConfig


class OwnValue(nn.Module):
    """Attention to oneself alone: its weight is 1, so that queries and keys would do nothing."""

    def __init__(self, hidden_size: int, bias: bool) -> None:
        super().__init__()
        self.v_proj = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, D) -> y (B, N, D)."""
        return self.o_proj(self.v_proj(x))


class DenoiserBlock(GradientCheckpointingLayer):
    """Its three branches, modulated by the step of diffusion."""

    def __init__(self, config: ZooConceptPredictorConfig, layer_idx: int) -> None:
        super().__init__()
        size = config.hidden_size
        norm = partial(NORMS[config.norm], size, eps=config.norm_eps)
        self.own_norm, self.cross_norm, self.mlp_norm = norm(), norm(), norm()
        self.own_attn = OwnValue(size, config.attention_bias)
        self.cross_attn = CrossAttention(
            config,
            layer_idx,
            size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            bias=config.attention_bias,
            dropout=config.attention_dropout,
            is_causal=False,
        )
        mlp = GatedMLP if config.is_gated_mlp else MLP
        self.mlp = mlp(size, config.intermediate_size, config.hidden_act, config.mlp_bias)
        self.modulation = nn.Linear(size, 9 * size)
        self.modulation.init_scale = 0.0
        self.dropout = config.residual_dropout

    def forward(self, x: Tensor, step: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """x and step (B, N, D), context (B, K, D), mask (B, 1, N, K) -> (B, N, D)."""
        numbers = self.modulation(F.silu(step)).unflatten(-1, (3, 3, -1)).unbind(-2)
        shift, scale, gate = (part.unbind(-2) for part in numbers)
        keys, values = self.cross_attn.project_context(context)
        branches = (
            (self.own_norm, self.own_attn),
            (self.cross_norm, lambda y: self.cross_attn(y, keys, values, mask)[0]),
            (self.mlp_norm, self.mlp),
        )
        for i, (norm, branch) in enumerate(branches):
            y = branch(norm(x) * (1 + scale[i]) + shift[i])
            x = x + gate[i] * F.dropout(y, self.dropout, self.training)
        return x


class Denoiser(nn.Module):
    """Noised or unfinished vectors -> hidden states of what they should be."""

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(config.sentence_size, config.hidden_size)
        self.embed_step = TimestepEmbedding(config.hidden_size)
        self.layers = nn.ModuleList(DenoiserBlock(config, i) for i in range(config.num_denoiser_layers))
        self.norm = NORMS[config.norm](config.hidden_size, eps=config.norm_eps)

    def forward(self, x: Tensor, steps: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (B, N, D).

        Args:
            x: (B, N, S).
            steps: (B, N), of diffusion, or how many codes are known.
            context: (B, K, D), see `with_nothing`.
            mask: (B, N, K), true where a concept may look.
        """
        mask = additive_mask(mask, x.dtype)
        x, step = self.embed(x), self.embed_step(steps)
        for layer in self.layers:
            x = layer(x, step, context, mask)
        return self.norm(x)


def with_nothing(context: Tensor) -> Tensor:
    """Contexts (B, N, D) after a vector of zeros (B, 1 + N, D), which is what the first concept looks at."""
    return F.pad(context, (0, 0, 1, 0))


def earlier(real: Tensor, dropped: Tensor | None = None) -> Tensor:
    """What each concept may look at (B, N, 1 + N): nothing at all, and the real ones before it.

    Args:
        real: (B, N), true on real concepts.
        dropped: (B), true where a row sees nothing.
    """
    count = real.shape[1]
    before = torch.ones(count, count, dtype=torch.bool, device=real.device).tril(-1)
    seen = before & real[:, None]
    if dropped is not None:
        seen = seen & ~dropped[:, None, None]
    return F.pad(seen, (1, 0), value=True)


def additive_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores (B, 1, N, K), so that in every backend only what is seen (B, N, K) counts."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
