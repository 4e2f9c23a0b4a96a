"""What all generations of RWKV share: the block, how weights start, what generation must know.

    x <- N(embedding);  x <- x + TimeMix(N(x));  x <- x + ChannelMix(N(x));  N at the end      N: LayerNorm

A generation is its two mixers. Both remember the last token; the time mixing remembers more.

Shapes: B batch, T tokens, D hidden size.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from .cache import read_state, write_state
from .decoder import DecoderTrunk
from .layers.gaps import across_gaps
from .recurrent import RecurrentPreTrainedModel


class RwkvBlock(GradientCheckpointingLayer):
    """Time mixing, then channel mixing, each with its norm and residual; a subclass makes the two."""

    layer_type = "linear_attention"

    def __init__(self, config: PreTrainedConfig, layer_idx: int, mixer: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.mixer_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mixer = mixer
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = mlp

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        *carried: Tensor,
        past_key_values: Cache | None = None,
        packed_positions: Tensor | None = None,
        **_: Any,
    ) -> Tensor | tuple[Tensor, ...]:
        """x (B, T, D), mask (B, T) with 1 on real tokens -> (B, T, D), and what the time mixing hands on."""
        state = read_state(past_key_values, self.layer_idx)
        y, state, *carried = across_gaps(self.mixer, self.mixer_norm(x), mask, state, packed_positions, *carried)
        write_state(past_key_values, self.layer_idx, state)
        x = x + y
        state = read_state(past_key_values, self.layer_idx, part=1)
        y, state = across_gaps(self.mlp, self.mlp_norm(x), mask, state, packed_positions)
        write_state(past_key_values, self.layer_idx, state, part=1)
        x = x + y
        return (x, *carried) if carried else x


class RwkvPreTrainedModel(RecurrentPreTrainedModel):
    """Base class of the base classes: how embedding and head start."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The embedding starts tiny, for its norm makes it grow at once; the head starts orthogonal."""
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -1e-4, 1e-4)
        elif module is getattr(self, "lm_head", None):
            init.orthogonal_(module.weight, gain=0.5 * math.sqrt(max(1, module.out_features / module.in_features)))


class RwkvTrunk(DecoderTrunk):
    """Mixin for the stacks: a norm right after the embedding, and one at the end."""

    def __init__(self, config: PreTrainedConfig, block_class: type[RwkvBlock]) -> None:
        super().__init__(config, block_class, nn.LayerNorm(config.hidden_size, eps=config.norm_eps))
        self.embed_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.post_init()

    def place(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """x (B, T, D), normalised."""
        return self.embed_norm(x)
