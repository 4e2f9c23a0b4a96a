"""What models made of recurrent layers alone share: a Block around any mixer with a state, and what loaders must know.

A mixer is called as `mixer(x, mask, state, position_ids)` and returns y and the new state.

Shapes: B batch, T tokens, D hidden size.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from .base_model import ZooPreTrainedModel
from .cache import State, read_state, write_state
from .layers.gaps import across_gaps
from .layers.norm import RMSNorm


class RecurrentBlock(GradientCheckpointingLayer):
    """A norm, a mixer with a state, a residual; there is no feed-forward network.

    Args:
        mixer: D to D.
        layer_idx: where the cache keeps its state.
        hidden_size: D.
        norm_eps: of the norm before the mixer.
        residual_in_fp32: whether the residual stream stays in float32 when the weights are not.
    """

    layer_type = "linear_attention"

    def __init__(
        self, mixer: nn.Module, layer_idx: int, hidden_size: int, norm_eps: float, residual_in_fp32: bool
    ) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.residual_in_fp32 = residual_in_fp32
        self.mixer_norm = RMSNorm(hidden_size, norm_eps)
        self.mixer = mixer

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        past_key_values: Cache | None = None,
        packed_positions: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """x (B, T, D), mask (B, T) with 1 on real tokens -> (B, T, D)."""
        state = read_state(past_key_values, self.layer_idx)
        x_normed = self.mixer_norm(x.to(self.mixer_norm.weight.dtype))
        y, state = self.mix(x_normed, mask, state, packed_positions, keep_state=past_key_values is not None)
        write_state(past_key_values, self.layer_idx, state)
        return (x.float() if self.residual_in_fp32 and x.dtype != torch.float64 else x) + y

    def mix(
        self, x: Tensor, mask: Tensor | None, state: State | None, packed_positions: Tensor | None, keep_state: bool
    ) -> tuple[Tensor, State]:
        """y (B, T, D) and the new state, which most mixers find by the way whether it is wanted or not."""
        return across_gaps(self.mixer, x, mask, state, packed_positions)


class RecurrentPreTrainedModel(ZooPreTrainedModel):
    """Base class of models whose layers all have a state of fixed size."""

    _is_stateful = True  # a state cannot be rolled back, so no assisted decoding
    _can_compile_fullgraph = True

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the trunk makes its own, which counts tokens

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if getattr(self.config, "scale_residual_init", False) and hasattr(module, "out_proj"):
            init.copy_(module.out_proj.weight, module.out_proj.weight / math.sqrt(self.config.num_hidden_layers))
