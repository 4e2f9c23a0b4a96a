"""Small language models: cheaper token mixers, fewer weights; a decoder, or an encoder such as ALBERT.

    pre    x <- x + M(N1(x));  x <- x + F(N2(x));  N_f at the end
    post   x <- N1(x + M(x));  x <- N2(x + F(x))                              Lan et al. 2019 (ALBERT)

M, by layer: attention, local attention (layers/local_attention.py), linear attention (layers/linear_attention.py) or a
depth-wise separable convolution (layers/separable_convolution.py). F: a gated or plain network, or such a convolution.
Weights are saved by low-rank projections (layers/low_rank.py), factorised embeddings E W, and sharing between layers
(ALBERT, https://arxiv.org/abs/1909.11942, sections 3.1 and 3.2).

Shapes: B batch, T tokens, D hidden size, E embedding size.
"""

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPoolingAndCrossAttentions
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel, embed_tokens, embedding_size
from ..cache import RECURRENT_LAYERS, read_state, write_state
from ..classifiers import (
    MultipleChoiceHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from ..decoder import DecoderTrunk
from ..heads import CausalLMHead, MaskedLMHead, NextSentenceHead, PreTrainingHead
from ..layers.attention import Attention
from ..layers.feature_maps import make_feature_map
from ..layers.gaps import across_gaps
from ..layers.linear_attention import LinearAttention
from ..layers.local_attention import LocalAttention
from ..layers.low_rank import factorise
from ..layers.mlp import MLP, GatedMLP
from ..layers.norm import NORMS
from ..layers.pooler import FirstTokenPooler
from ..layers.positions import LearnedPositions, RotaryPositions, SinusoidalPositions
from ..layers.separable_convolution import SeparableConvolution
from ..layers.short_convolution import ShortConvolution
from ..masks import decoder_masks, recurrent_mask
from .configuration_slm import ZooSlmConfig, low_ranks, sharing_plan


def make_head_norms(config: ZooSlmConfig) -> dict[str, nn.Module]:
    """The norms of queries and keys, where the config asks for them."""
    if not config.qk_norm:
        return {}
    return {name: NORMS[config.norm](config.head_dim, eps=config.norm_eps) for name in ("q_norm", "k_norm")}


def make_attention(config: ZooSlmConfig, block_idx: int, kind: str) -> Attention:
    """Attention to all tokens or to those in a window."""
    attention = partial(LocalAttention, window=config.sliding_window) if kind == "sliding_attention" else Attention
    return attention(
        config,
        block_idx,
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        bias=config.attention_bias,
        dropout=config.attention_dropout,
        is_causal=config.is_causal,
        **make_head_norms(config),
    )


def make_recurrent_mixer(config: ZooSlmConfig, kind: str) -> LinearAttention | SeparableConvolution:
    """A token mixer that keeps a state."""
    if kind == "conv":
        return make_convolution(config, config.hidden_size)
    return LinearAttention(
        config.hidden_size,
        config.num_attention_heads,
        config.head_dim,
        make_feature_map(config.feature_map, config.head_dim, config.num_features),
        has_denominator=config.linear_output == "average",
        has_decay=config.linear_decay == "retnet",
        chunk_size=config.linear_chunk_size,
        is_causal=config.is_causal,
        bias=config.attention_bias,
        **make_head_norms(config),
    )


def make_convolution(config: ZooSlmConfig, inner_size: int) -> SeparableConvolution:
    """A depth-wise separable convolution of the config's kernel."""
    kernel, is_causal = config.conv_kernel, config.is_causal
    return SeparableConvolution(config.hidden_size, inner_size, kernel, is_causal, bias=config.mlp_bias)


def make_feed_forward(config: ZooSlmConfig) -> nn.Module:
    """The channel mixer."""
    if config.feed_forward == "separable_conv":
        return make_convolution(config, config.intermediate_size)
    mlp = GatedMLP if config.feed_forward == "gated" else MLP
    return mlp(config.hidden_size, config.intermediate_size, config.hidden_act, config.mlp_bias)


class SlmBlock(GradientCheckpointingLayer):
    """A token mixer and a feed-forward network with their norms, or that one of the two which other layers lack."""

    def __init__(self, config: ZooSlmConfig, block_idx: int) -> None:
        super().__init__()
        self.is_post_norm = config.block_layout == "post"
        self.dropout = config.hidden_dropout
        self.ffn_chunk = config.chunk_size_feed_forward
        plan = sharing_plan(config)
        self.mixes = next((i for i, (mixer, _) in enumerate(plan) if mixer == block_idx), None)
        self.feeds = any(ffn == block_idx for _, ffn in plan)
        norm = partial(NORMS[config.norm], config.hidden_size, eps=config.norm_eps)
        if self.mixes is not None:
            kind = config.layer_types[self.mixes]
            self.is_recurrent = kind in RECURRENT_LAYERS
            self.mixer_norm = norm()
            if self.is_recurrent:
                self.mixer = make_recurrent_mixer(config, kind)
            else:
                self.self_attn = make_attention(config, block_idx, kind)
        if self.feeds:
            self.mlp_norm = norm()
            self.mlp = make_feed_forward(config)
            self.is_convolution = config.feed_forward == "separable_conv"
        factorise(self, low_ranks(config))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        past_key_values: Cache | None = None,
        packed_positions: Tensor | None = None,
        layer_idx: int = 0,
        lender: "SlmBlock | None" = None,
        padding: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D).

        Args:
            mask: what the token mixer wants: a backend's mask, documents of keys, or (B, T) with 1 on real tokens.
            layer_idx: which layer this block is now; it may be several.
            lender: the block whose token mixer or feed-forward network stands in for what this one lacks.
            padding: (B, T) with 1 on real tokens, for a convolution as feed-forward network.
        """
        mixing, feeding = (self if has_it else lender for has_it in (self.mixes is not None, self.feeds))
        x = mixing.mix(x, mask, past_key_values, layer_idx, packed_positions, **kwargs)
        return feeding.feed(x, padding, past_key_values, layer_idx, packed_positions)

    def mix(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: Cache | None,
        layer_idx: int,
        packed_positions: Tensor | None,
        **kwargs: Any,
    ) -> Tensor:
        """The residual branch of the token mixer added to x (B, T, D)."""
        y = x if self.is_post_norm else self.mixer_norm(x)
        if self.is_recurrent:
            y, state = across_gaps(self.mixer, y, mask, read_state(cache, layer_idx), packed_positions)
            write_state(cache, layer_idx, state)
        else:
            remember = None if cache is None else partial(cache.update, layer_idx=layer_idx)
            y, _ = self.self_attn(y, mask, remember, **kwargs)
        return self._add(x, y, self.mixer_norm)

    def feed(
        self,
        x: Tensor,
        padding: Tensor | None,
        cache: Cache | None,
        layer_idx: int,
        packed_positions: Tensor | None,
    ) -> Tensor:
        """The residual branch of the feed-forward network added to x (B, T, D)."""
        y = x if self.is_post_norm else self.mlp_norm(x)
        if self.is_convolution:
            y, state = self.mlp(y, padding, read_state(cache, layer_idx, part=1), packed_positions)
            write_state(cache, layer_idx, state, part=1)
        elif self.ffn_chunk:
            y = torch.cat([self.mlp(part) for part in y.split(self.ffn_chunk, dim=1)], dim=1)
        else:
            y = self.mlp(y)
        return self._add(x, y, self.mlp_norm)

    def _add(self, x: Tensor, y: Tensor, norm: nn.Module) -> Tensor:
        y = F.dropout(y, self.dropout, self.training) if self.dropout else y
        return norm(x + y) if self.is_post_norm else x + y


class ZooSlmPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know; decoder or encoder.

    `must_be_causal` of a head that is for one of the two alone overrules the config, on a copy of it.
    """

    config_class = ZooSlmConfig
    config: ZooSlmConfig
    must_be_causal: ClassVar[bool | None] = None
    may_be_missing = ("pooler",)  # neither a masked nor a causal LM trains it
    _no_split_modules = ["SlmBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": SlmBlock, "attentions": Attention}

    def __init__(self, config: ZooSlmConfig, *args: Any, **kwargs: Any) -> None:
        if self.must_be_causal not in (None, config.is_causal):
            config = copy.deepcopy(config)
            config.is_causal = self.must_be_causal
            config.validate()
        super().__init__(config, *args, **kwargs)

    @property
    def _is_stateful(self) -> bool:
        """Whether assisted decoding is out of question: a state cannot be rolled back."""
        return any(kind in RECURRENT_LAYERS for kind in self.config.layer_types)

    def _supports_default_dynamic_cache(self) -> bool:
        return not self.config.is_recurrent  # the trunk makes one that counts tokens, where no layer does

    @staticmethod
    def create_masks_for_generate(
        config: ZooSlmConfig,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        position_ids: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor | None]:
        """The masks that `generate` prepares outside a compiled forward."""
        return decoder_masks(
            config, inputs_embeds, attention_mask, past_key_values, position_ids, has_local_attention=True
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ShortConvolution):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            init.zeros_(module.bias)


class ZooSlmModel(DecoderTrunk, ZooSlmPreTrainedModel):
    """The trunk without a head; an encoder also has a pooler, unless `add_pooling_layer=False`."""

    has_local_attention = True

    def __init__(self, config: ZooSlmConfig, add_pooling_layer: bool = True) -> None:
        norm = partial(NORMS[config.norm], eps=config.norm_eps)
        num_blocks = 1 + max(max(pair) for pair in sharing_plan(config))
        final_norm = None if config.block_layout == "post" else norm(config.hidden_size)
        super().__init__(config, SlmBlock, final_norm, num_blocks)
        size = embedding_size(config)
        if config.positions == "learned":
            self.embed_positions = LearnedPositions(config.max_position_embeddings, size)
        elif config.positions == "sinusoidal":
            self.embed_positions = SinusoidalPositions(size)
        elif config.positions == "rotary":
            self.rotary_emb = RotaryPositions(config)
        self.embed_types = None if config.type_vocab_size is None else nn.Embedding(config.type_vocab_size, size)
        self.embed_norm = norm(size) if config.norm_embeddings else None
        self.embed_proj = None if config.embedding_size is None else nn.Linear(size, config.hidden_size)
        self.pooler = FirstTokenPooler(config.hidden_size) if add_pooling_layer and not config.is_causal else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast | BaseModelOutputWithPoolingAndCrossAttentions:
        """Hidden states (B, T, D) of the last layer, and from an encoder's pooler one vector (B, D) a row.

        Args:
            token_type_ids: (B, T), which of two sentences a token is of; the first without it.
            inputs_embeds: (B, T, E), instead of input_ids.
            kwargs: see `DecoderTrunk.forward`, as for the rest.

        Raises:
            ValueError: sentences are told apart for a model that has no embedding for them.
        """
        x = embed_tokens(self.embed_tokens, input_ids, inputs_embeds)
        if self.embed_types is not None:
            if token_type_ids is None:
                token_type_ids = torch.zeros((1, 1), dtype=torch.long, device=x.device)
            x = x + self.embed_types(token_type_ids)
        elif token_type_ids is not None:
            raise ValueError("token_type_ids need an embedding: set type_vocab_size in the config")
        outputs = super().forward(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=x,
            use_cache=use_cache if self.config.is_causal else False,
            return_dict=True,
            **kwargs,
        )
        if self.pooler is None:
            return outputs
        return BaseModelOutputWithPoolingAndCrossAttentions(
            pooler_output=self.pooler(outputs.last_hidden_state, attention_mask), **outputs
        )

    def blocks(self) -> Iterator[Callable[..., Tensor]]:
        """The block of each layer, and the one that lends it what it lacks."""
        for layer_idx, (mixer, ffn) in enumerate(sharing_plan(self.config)):
            block, lender = self.layers[max(mixer, ffn)], None
            if mixer != ffn:
                lender = self.layers[min(mixer, ffn)]
            yield partial(block, layer_idx=layer_idx, lender=lender)

    def place(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """x (B, T, E) with positions added where the config adds them, normalised, and brought to (B, T, D)."""
        if self.config.positions in ("learned", "sinusoidal"):
            x = x + self.embed_positions(position_ids).to(x.dtype)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        if self.config.hidden_dropout:
            x = F.dropout(x, self.config.hidden_dropout, self.training)
        return x if self.embed_proj is None else self.embed_proj(x)

    def attention_arguments(
        self, x: Tensor, position_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None
    ) -> dict[str, Any]:
        """Cosines and sines of rotary positions, and the padding that a convolution as feed-forward network needs."""
        shared = {}
        if self.config.positions == "rotary":
            shared["position_embeddings"] = self.rotary_emb(x, position_ids)
        if self.config.feed_forward == "separable_conv" and isinstance(attention_mask, Tensor):
            shared["padding"] = recurrent_mask(x, attention_mask)
        return shared


class ZooSlmForCausalLM(CausalLMHead, ZooSlmPreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooSlmModel
    must_be_causal = True

    def __init__(self, config: ZooSlmConfig) -> None:
        super().__init__(config)
        self.head_proj = None
        if config.embedding_size is not None:
            self.head_proj = nn.Linear(config.hidden_size, config.embedding_size, bias=False)
            self.post_init()

    def before_scores(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, E)."""
        return x if self.head_proj is None else self.head_proj(x)


class ZooSlmForMaskedLM(MaskedLMHead, ZooSlmPreTrainedModel):
    """The masked language model."""

    backbone_class = ZooSlmModel
    backbone_arguments = {"add_pooling_layer": False}
    must_be_causal = False


class ZooSlmForPreTraining(PreTrainingHead, ZooSlmPreTrainedModel):
    """Masked tokens and the order of two sentences, as ALBERT was trained; `next_sentence_label` is 1 if swapped."""

    backbone_class = ZooSlmModel
    must_be_causal = False


class ZooSlmForNextSentencePrediction(NextSentenceHead, ZooSlmPreTrainedModel):
    """Whether the second sentence follows the first."""

    backbone_class = ZooSlmModel
    must_be_causal = False


class ZooSlmForSequenceClassification(SequenceClassificationHead, ZooSlmPreTrainedModel):
    """A label for the row, from an encoder's pooler or from a decoder's last real token."""

    backbone_class = ZooSlmModel


class ZooSlmForTokenClassification(TokenClassificationHead, ZooSlmPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooSlmModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooSlmForQuestionAnswering(QuestionAnsweringHead, ZooSlmPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooSlmModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooSlmForMultipleChoice(MultipleChoiceHead, ZooSlmPreTrainedModel):
    """Which of several texts fits best."""

    backbone_class = ZooSlmModel
    must_be_causal = False
