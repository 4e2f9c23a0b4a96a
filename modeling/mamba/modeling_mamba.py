"""Mamba: a stack of selective state spaces, whose memory does not grow with the context.

Gu and Dao 2023, https://arxiv.org/abs/2312.00752.

    x <- x + Mixer(RMSNorm(x));  RMSNorm at the end;  the head shares the embedding's weights

The equations of the mixer are in layers/selective_ssm.py, those of its recurrence in layers/selective_scan.py.

Shapes: B batch, T tokens, D hidden size.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer

from ..base_model import ZooPreTrainedModel
from ..cache import read_state, write_state
from ..decoder import DecoderTrunk
from ..heads import CausalLMHead, QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..layers.norm import RMSNorm
from ..layers.selective_ssm import SelectiveSSM
from .configuration_mamba import ZooMambaConfig


class MambaBlock(GradientCheckpointingLayer):
    """A norm, a selective state space, a residual; there is no feed-forward network."""

    layer_type = "linear_attention"

    def __init__(self, config: ZooMambaConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.residual_in_fp32 = config.residual_in_fp32
        self.mixer_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mixer = SelectiveSSM(
            config.hidden_size,
            config.state_size,
            config.conv_kernel,
            config.intermediate_size,
            config.time_step_rank,
            bias=config.use_bias,
            conv_bias=config.use_conv_bias,
        )

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
        y, state = self.mixer(self.mixer_norm(x.to(self.mixer_norm.weight.dtype)), mask, state, packed_positions)
        write_state(past_key_values, self.layer_idx, state)
        return (x.float() if self.residual_in_fp32 and x.dtype != torch.float64 else x) + y


class ZooMambaPreTrainedModel(ZooPreTrainedModel):
    """Base class: what loaders and generation need to know, and how weights start."""

    config_class = ZooMambaConfig
    config: ZooMambaConfig
    _no_split_modules = ["MambaBlock"]
    _is_stateful = True  # a state cannot be rolled back, so no assisted decoding
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": MambaBlock}
    _keep_in_fp32_modules_strict = ["A_log", "D"]

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the trunk makes its own, which counts tokens

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SelectiveSSM) and self.config.scale_residual_init:
            init.copy_(module.out_proj.weight, module.out_proj.weight / math.sqrt(self.config.num_hidden_layers))


class ZooMambaModel(DecoderTrunk, ZooMambaPreTrainedModel):
    """The stack without a head."""

    def __init__(self, config: ZooMambaConfig) -> None:
        super().__init__(config, MambaBlock, RMSNorm(config.hidden_size, config.norm_eps))
        self.post_init()


class ZooMambaForCausalLM(CausalLMHead, ZooMambaPreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooMambaModel


class ZooMambaForSequenceClassification(SequenceClassificationHead, ZooMambaPreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooMambaModel
    score_has_bias = False


class ZooMambaForTokenClassification(TokenClassificationHead, ZooMambaPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooMambaModel


class ZooMambaForQuestionAnswering(QuestionAnsweringHead, ZooMambaPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooMambaModel
