"""The dense decoder-only transformer and its published variants.

Radford et al. 2019 (GPT-2); Touvron et al. 2023, https://arxiv.org/abs/2302.13971 (LLaMA); Jiang et al. 2023,
https://arxiv.org/abs/2310.06825 (Mistral); Groeneveld et al. 2024, https://arxiv.org/abs/2402.00838 (OLMo).

    pre       x <- x + A(N1(x));  x <- x + F(N2(x));  N_f at the end
    post      x <- N1(x + A(x));  x <- N2(x + F(x))
    parallel  x <- x + A(N1(x)) + F(N1(x));           N_f at the end
    output    x <- x + N1(A(x));  x <- x + N2(F(x));  N_f at the end

Shapes: B batch, T tokens, S keys, D hidden size, H heads.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer

from ..base_model import ZooPreTrainedModel
from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..decoder import DecoderTrunk
from ..heads import CausalLMHead
from ..layers.attention import Attention, ClippedAttention
from ..layers.attention_sink import SinkAttention
from ..layers.mlp import MLP, GatedMLP
from ..layers.norm import NORMS
from ..layers.positions import LearnedPositions, RotaryPositions, SinusoidalPositions, alibi_bias
from ..masks import key_positions
from .configuration_llm import ZooLlmConfig


def make_attention(config: ZooLlmConfig, layer_idx: int) -> Attention:
    """The kind of attention the config asks for."""
    attention = Attention
    if config.attention_softmax != "standard":
        is_learned = config.attention_softmax == "learned_sink"
        attention = partial(SinkAttention, offset=config.softmax_offset, is_learned=is_learned)
    elif config.clip_qkv is not None:
        attention = partial(ClippedAttention, clip=config.clip_qkv)
    return attention(
        config,
        layer_idx,
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        bias=config.attention_bias,
        dropout=config.attention_dropout,
        scaling=config.attention_scaling,
    )


class LlmBlock(GradientCheckpointingLayer):
    """Attention, then a feed-forward network, each with its norm and residual."""

    def __init__(self, config: ZooLlmConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.layer_type = config.layer_types[layer_idx]
        self.layout = config.block_layout
        self.sliding_window = config.sliding_window if self.layer_type == "sliding_attention" else None
        norm = partial(NORMS[config.norm], config.hidden_size, eps=config.norm_eps)
        self.mixer_norm = norm()
        self.add_mixer(config, layer_idx)
        self.mlp_norm = None if self.layout == "parallel" else norm()
        self.mlp = self.make_feed_forward(config, layer_idx)
        self.dropout = config.residual_dropout
        if config.scale_residual_init:
            for projection in self.residual_projections():
                projection.init_scale = 1 / math.sqrt(2 * config.num_hidden_layers)

    def add_mixer(self, config: ZooLlmConfig, layer_idx: int) -> None:
        """Make what mixes tokens."""
        self.self_attn = make_attention(config, layer_idx)

    def make_feed_forward(self, config: ZooLlmConfig, layer_idx: int) -> nn.Module:
        """The kind of feed-forward network the config asks for."""
        mlp = GatedMLP if config.is_gated_mlp else MLP
        return mlp(config.hidden_size, config.intermediate_size, config.hidden_act, config.mlp_bias)

    def residual_projections(self) -> list[nn.Module]:
        """The layers whose output is added to the residual stream."""
        return [self.self_attn.o_proj, self.mlp.down_proj]

    def forward(self, x: Tensor, mask: Tensor | None, past_key_values: Cache | None = None, **kwargs: Any) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        return self.add_branches(x, self.attention_branch(mask, past_key_values, **kwargs), self.feed_forward)

    def attention_branch(
        self, mask: Tensor | None, past_key_values: Cache | None, **kwargs: Any
    ) -> Callable[[Tensor], Tensor]:
        """The residual branch of attention, x (B, T, D) -> (B, T, D), all but its input given."""
        remember = None
        if past_key_values is not None:
            remember = partial(past_key_values.update, layer_idx=self.layer_idx)
        return partial(self.attend, mask=mask, remember=remember, sliding_window=self.sliding_window, **kwargs)

    def add_branches(
        self,
        x: Tensor,
        attend: Callable[[Tensor], Tensor],
        feed_forward: Callable[[Tensor], Tensor],
        between: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """x (B, T, D) with both branches, in the order of the layout; `between` maps x to x after the first of them,
        unless the two are parallel."""
        if self.layout == "parallel":
            normed = self.mixer_norm(x)
            return x + attend(normed) + feed_forward(normed)
        if self.layout == "pre":
            x = x + attend(self.mixer_norm(x))
        elif self.layout == "post":
            x = self.mixer_norm(x + attend(x))
        else:
            x = x + self.mixer_norm(attend(x))
        if between is not None:
            x = between(x)
        if self.layout == "pre":
            return x + feed_forward(self.mlp_norm(x))
        if self.layout == "post":
            return self.mlp_norm(x + feed_forward(x))
        return x + self.mlp_norm(feed_forward(x))

    def attend(self, x: Tensor, **kwargs: Any) -> Tensor:
        """The residual branch of attention, x (B, T, D) -> (B, T, D)."""
        return self.drop(self.self_attn(x, **kwargs)[0])

    def feed_forward(self, x: Tensor) -> Tensor:
        """The residual branch of the MLP, x (B, T, D) -> (B, T, D)."""
        return self.drop(self.mlp(x))

    def drop(self, y: Tensor) -> Tensor:
        """Dropout of a branch; a call to a module that does nothing would be felt in decoding."""
        return F.dropout(y, self.dropout, self.training) if self.dropout else y


class ZooLlmPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooLlmConfig
    config: ZooLlmConfig
    _no_split_modules = ["LlmBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": LlmBlock, "attentions": Attention}


class LlmTrunk(DecoderTrunk):
    """The trunk with the positions, norms and scales of the config; the subclass names its block."""

    block_class: type[LlmBlock] = LlmBlock

    def __init__(self, config: ZooLlmConfig) -> None:
        norm = partial(NORMS[config.norm], config.hidden_size, eps=config.norm_eps)
        super().__init__(config, self.block_class, None if config.block_layout == "post" else norm())
        self.embed_norm = norm() if config.norm_embeddings else None
        self.embed_dropout = nn.Dropout(config.embedding_dropout)
        if config.positions == "learned":
            self.embed_positions = LearnedPositions(config.max_position_embeddings, config.hidden_size)
        elif config.positions == "sinusoidal":
            self.embed_positions = SinusoidalPositions(config.hidden_size)
        elif config.positions == "rotary":
            self.rotary_emb = RotaryPositions(config)
        self.post_init()

    def place(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """x (B, T, D) scaled, with positions added where the config adds them, normalised."""
        if self.config.embedding_multiplier != 1.0:
            x = x * self.config.embedding_multiplier
        if self.config.positions in ("learned", "sinusoidal"):
            x = x + self.embed_positions(position_ids).to(x.dtype)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        return self.embed_dropout(x)

    def attention_arguments(
        self, x: Tensor, position_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None
    ) -> dict[str, Any]:
        """Cosines and sines of rotary positions, or the bias of ALiBi."""
        if self.config.positions == "rotary":
            return {"position_embeddings": self.rotary_emb(x, position_ids)}
        if self.config.positions == "alibi":
            keys = key_positions(x, attention_mask, past_key_values)
            bias = alibi_bias(self.config.num_attention_heads, position_ids, keys).to(x.dtype)
            return {"position_bias": bias.expand(x.shape[0], -1, -1, -1)}  # flex attention looks it up by row
        return {}


class ZooLlmModel(LlmTrunk, ZooLlmPreTrainedModel):
    """The decoder without a head."""


class ZooLlmForCausalLM(CausalLMHead, ZooLlmPreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooLlmModel


class ZooLlmForSequenceClassification(SequenceClassificationHead, ZooLlmPreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooLlmModel
    score_has_bias = False


class ZooLlmForTokenClassification(TokenClassificationHead, ZooLlmPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooLlmModel


class ZooLlmForQuestionAnswering(QuestionAnsweringHead, ZooLlmPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooLlmModel
