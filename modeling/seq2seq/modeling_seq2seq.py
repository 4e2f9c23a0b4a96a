"""The encoder-decoder transformer: the one of 2017, T5, T5 1.1 and CodeT5.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Raffel et al. 2019, https://arxiv.org/abs/1910.10683 (T5); Wang
et al. 2021, https://arxiv.org/abs/2109.00859 (CodeT5).

    branch     pre:  x <- x + F(N(x)), N_f after the last        post:  x <- N(x + F(x))
    encoder    x = E[source] m + PE;  per layer: self-attention, feed-forward
    decoder    x = E[target] m + PE;  per layer: causal self-attention, attention to the encoder, feed-forward
    attention  softmax(q k^T scale + b[bucket(key - query)]) v,  b one table for all layers of a stack, none across
    logits     (x r) E^T

    2017  post, LayerNorm, m = sqrt(D), PE sinusoids, b = 0, scale = 1 / sqrt(K), r = 1
    T5    pre, RMSNorm, m = 1, PE = 0, b learned, scale = 1, r = 1 / sqrt(D); 1.1: a matrix of its own for E^T, r = 1

Shapes: B batch, S source tokens, T target tokens, D hidden size, H heads, K head size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import OutputRecorder

from ..base_model import ZooPreTrainedModel
from ..classifiers import TokenClassificationHead
from ..encoder import EncoderTrunk
from ..encoder_decoder import (
    CrossDecoderTrunk,
    EncoderDecoderTrunk,
    Seq2SeqLMHead,
    Seq2SeqQuestionAnsweringHead,
    Seq2SeqSequenceClassificationHead,
)
from ..layers.attention import Attention
from ..layers.cross_attention import CrossAttention
from ..layers.mlp import MLP, GatedMLP
from ..layers.norm import NORMS
from ..layers.positions import SinusoidalPositions
from ..layers.relative_bias import RelativePositionBias
from ..masks import add_bias, encoder_mask
from .configuration_seq2seq import ZooSeq2seqConfig


def make_norm(config: ZooSeq2seqConfig) -> nn.Module:
    """The kind of norm the config asks for."""
    return NORMS[config.norm](config.hidden_size, eps=config.norm_eps)


def make_attention(
    config: ZooSeq2seqConfig, layer_idx: int, is_causal: bool, attention_class: type[Attention] = Attention
) -> Attention:
    """Attention of the config's sizes; queries start small where nothing scales the scores."""
    attention = attention_class(
        config,
        layer_idx,
        config.hidden_size,
        config.num_attention_heads,
        config.num_attention_heads,
        config.head_dim,
        bias=config.attention_bias,
        dropout=config.attention_dropout,
        scaling=config.attention_scaling,
        is_causal=is_causal,
    )
    if config.attention_scaling is not None:
        attention.q_proj.init_scale = config.head_dim**-0.5
    return attention


class Seq2seqBlock(GradientCheckpointingLayer):
    """What the blocks of both stacks share: a feed-forward network, and how branches join the residual stream."""

    def __init__(self, config: ZooSeq2seqConfig) -> None:
        super().__init__()
        self.is_post_norm = config.block_layout == "post"
        self.dropout = config.hidden_dropout
        mlp = GatedMLP if config.is_gated_mlp else MLP
        sizes = (config.hidden_size, config.intermediate_size, config.hidden_act)
        self.mlp = mlp(*sizes, config.mlp_bias, config.activation_dropout)
        self.mlp_norm = make_norm(config)

    def add_branch(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """x (B, T, D) with what a branch makes of it, in the order of the layout."""
        y = branch(x if self.is_post_norm else norm(x))
        x = x + (F.dropout(y, self.dropout, self.training) if self.dropout else y)
        if x.dtype == torch.float16:  # sums of T5 exceed what half precision holds
            limit = torch.finfo(x.dtype).max
            x = x.clamp(-limit, limit)
        return norm(x) if self.is_post_norm else x


class Seq2seqEncoderBlock(Seq2seqBlock):
    """Attention to both sides, then a feed-forward network."""

    def __init__(self, config: ZooSeq2seqConfig, layer_idx: int) -> None:
        super().__init__(config)
        self.self_attn = make_attention(config, layer_idx, is_causal=False)
        self.mixer_norm = make_norm(config)

    def forward(self, x: Tensor, mask: Tensor | None, bias: Tensor | None, **kwargs: Any) -> Tensor:
        """x (B, S, D) -> (B, S, D)."""
        x = self.add_branch(x, self.mixer_norm, lambda y: self.self_attn(y, mask, position_bias=bias, **kwargs)[0])
        return self.add_branch(x, self.mlp_norm, self.mlp)


class Seq2seqDecoderBlock(Seq2seqBlock):
    """Causal attention, attention to what the encoder made, then a feed-forward network."""

    def __init__(self, config: ZooSeq2seqConfig, layer_idx: int) -> None:
        super().__init__(config)
        self.layer_idx = layer_idx
        self.self_attn = make_attention(config, layer_idx, is_causal=True)
        self.mixer_norm = make_norm(config)
        self.cross_attn = make_attention(config, layer_idx, is_causal=False, attention_class=CrossAttention)
        self.cross_norm = make_norm(config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        context: Tensor,
        context_mask: Tensor | None,
        bias: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """x (B, T, D), context (B, S, D) -> (B, T, D)."""
        remember = None
        if past_key_values is not None:
            remember = partial(past_key_values.self_attention_cache.update, layer_idx=self.layer_idx)
        x = self.add_branch(
            x, self.mixer_norm, lambda y: self.self_attn(y, mask, remember, position_bias=bias, **kwargs)[0]
        )
        keys, values = self.read_context(context, past_key_values)
        x = self.add_branch(x, self.cross_norm, lambda y: self.cross_attn(y, keys, values, context_mask, **kwargs)[0])
        return self.add_branch(x, self.mlp_norm, self.mlp)

    def read_context(self, context: Tensor, cache: EncoderDecoderCache | None) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, K) of what the encoder made, computed once for a text."""
        if cache is None:
            return self.cross_attn.project_context(context)
        if cache.is_updated.get(self.layer_idx):
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values
        cache.is_updated[self.layer_idx] = True
        return cache.cross_attention_cache.update(*self.cross_attn.project_context(context), self.layer_idx)


class ZooSeq2seqPreTrainedModel(ZooPreTrainedModel):
    """Base class: initial weights, and what the attention backends and loaders need to know."""

    config_class = ZooSeq2seqConfig
    config: ZooSeq2seqConfig
    _no_split_modules = ["Seq2seqEncoderBlock", "Seq2seqDecoderBlock"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": Seq2seqBlock,
        "attentions": OutputRecorder(Attention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(CrossAttention, index=1),
    }

    def __init__(self, config: ZooSeq2seqConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if config.norm == "rms_norm" and config.block_layout == "pre":  # then norms take a wider residual stream
            self._keep_in_fp32_modules = {"down_proj"}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Weights of N(0, range^2 / inputs), embeddings that have variance range^2 once they are multiplied."""
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=std * module.in_features**-0.5 * getattr(module, "init_scale", 1.0))
        elif isinstance(module, nn.Embedding) and not isinstance(module, RelativePositionBias):
            init.normal_(module.weight, std=std / self.config.embedding_multiplier)


class Seq2seqStack:
    """Mixin of what both stacks share: positions, dropout, and the bias of relative positions."""

    is_causal: bool

    def add_positions(self) -> None:
        """Make what the config asks for."""
        config = self.config
        if config.positions == "sinusoidal":
            self.embed_positions = SinusoidalPositions(config.hidden_size)
            return
        self.relative_bias = RelativePositionBias(
            config.relative_attention_num_buckets,
            config.num_attention_heads,
            config.relative_attention_max_distance,
            self.is_causal,
            initial_std=config.initializer_range * config.hidden_size**-0.5,
        )

    def place(self, x: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """x (B, T, D) scaled, with positions added where the config adds them."""
        if self.config.embedding_multiplier != 1.0:
            x = x * self.config.embedding_multiplier
        if self.config.positions == "sinusoidal":
            x = x + self.embed_positions(position_ids).to(x.dtype)
        return F.dropout(x, self.config.hidden_dropout, self.training)

    def finish(self, x: Tensor) -> Tensor:
        """x (B, T, D) after the last block -> the last hidden state (B, T, D)."""
        return x if self.norm is None else F.dropout(self.norm(x), self.config.hidden_dropout, self.training)


class Seq2seqEncoder(Seq2seqStack, EncoderTrunk, ZooSeq2seqPreTrainedModel):
    """The encoder, which owns the embeddings."""

    is_causal = False

    def __init__(self, config: ZooSeq2seqConfig) -> None:
        super().__init__(config, Seq2seqEncoderBlock, make_norm(config) if config.block_layout == "pre" else None)
        self.add_positions()
        self.post_init()

    def make_mask(
        self, x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, *_: Any, **__: Any
    ) -> tuple[Tensor | None, Tensor | None]:
        """The mask, and a bias on the scores that it does not hold."""
        mask = encoder_mask(self.config, x, attention_mask, position_ids)
        if self.config.positions == "sinusoidal":
            return mask, None
        return add_bias(mask, self.relative_bias(x.shape[1], x.shape[1]), is_causal=False)

    def run(self, x: Tensor, mask: tuple[Tensor | None, Tensor | None], *_: Any, **kwargs: Any) -> Tensor:
        """x (B, T, D) through all blocks, which get mask and bias."""
        for block in self.layers:
            x = block(x, *mask, **kwargs)
        return x


class Seq2seqDecoder(Seq2seqStack, CrossDecoderTrunk, ZooSeq2seqPreTrainedModel):
    """The decoder, whose tokens come embedded."""

    is_causal = True

    def __init__(self, config: ZooSeq2seqConfig) -> None:
        norm = make_norm(config) if config.block_layout == "pre" else None
        super().__init__(config, Seq2seqDecoderBlock, config.decoder_layers, norm)
        self.add_positions()
        self.post_init()

    def make_mask(
        self, x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The mask, and a bias on the scores that it does not hold."""
        mask, _ = super().make_mask(x, attention_mask, position_ids, cache)
        if self.config.positions == "sinusoidal":
            return mask, None
        num_keys, num_seen = x.shape[1], 0
        if cache is not None:
            num_keys, num_seen = cache.get_mask_sizes(num_keys, 0)[0], cache.get_seq_length()
        return add_bias(mask, self.relative_bias(x.shape[1], num_keys, num_seen), is_causal=True)


class ZooSeq2seqModel(EncoderDecoderTrunk, ZooSeq2seqPreTrainedModel):
    """Encoder and decoder without a head."""

    encoder_class = Seq2seqEncoder

    def __init__(self, config: ZooSeq2seqConfig) -> None:
        super().__init__(config)
        self.encoder = self.encoder_class(config)
        self.decoder = Seq2seqDecoder(config)
        self.post_init()


class ZooSeq2seqEncoderModel(ZooSeq2seqPreTrainedModel):
    """The encoder alone; it opens folders of the whole."""

    _keys_to_ignore_on_load_unexpected = [r"decoder\.", r"lm_head\."]

    def __init__(self, config: ZooSeq2seqConfig) -> None:
        super().__init__(config)
        self.encoder = Seq2seqEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The embeddings."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, new_embeddings: nn.Embedding) -> None:
        """Replace them, when the vocabulary is resized."""
        self.encoder.embed_tokens = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Hidden states (B, S, D) of the last layer.

        Args:
            input_ids: (B, S).
            attention_mask: (B, S), 1 on real tokens; padding on either side gives the answer of none.
            position_ids: (B, S); where they restart at 0 in a row without padding, a packed document starts.
            inputs_embeds: (B, S, D), instead of input_ids.
        """
        return self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )


class ZooSeq2seqForConditionalGeneration(Seq2SeqLMHead, ZooSeq2seqPreTrainedModel, GenerationMixin):
    """The sequence-to-sequence language model."""

    backbone_class = ZooSeq2seqModel

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Tie the scores to the embeddings where the config says so, or where a whole T5 comes without scores: new
        ones of 1.1 are tied by transformers, though their config says the contrary."""
        saved = self.config.architectures or [""]
        if "lm_head.weight" in (missing_keys or ()) and saved[0].endswith("ForConditionalGeneration"):
            self.config.tie_word_embeddings = recompute_mapping = True
            self.all_tied_weights_keys = self.get_expanded_tied_weights_keys(all_submodels=True)
        super().tie_weights(missing_keys, recompute_mapping)

    def before_scores(self, x: Tensor) -> Tensor:
        """x (B, T, D) times what the config says."""
        return x if self.config.logit_multiplier == 1.0 else x * self.config.logit_multiplier


class ZooSeq2seqForPreTraining(ZooSeq2seqForConditionalGeneration, GenerationMixin):
    """CodeT5 in training: the language model, and a score on the encoder that tells which tokens are identifiers."""

    def __init__(self, config: ZooSeq2seqConfig) -> None:
        super().__init__(config)
        self.tagger = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: ModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        tag_labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqLMOutput:
        """Logits of the target; the loss is the sum over those whose labels are given. For tags see `tag`.

        Args:
            labels: (B, T), the target, padded on the right with -100.
            tag_labels: (B, S), 1 on tokens of identifiers, 0 on others, -100 where nothing is to be learnt.
            num_items_in_batch: labels of all accumulated batches, for the target; tags are a mean over the batch.
            kwargs: see the language model for the rest.
        """
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            labels=labels,
            num_items_in_batch=num_items_in_batch,
            **{**kwargs, "return_dict": True},
        )
        if tag_labels is not None:
            counts = tag_labels != -100
            scores = self.tagger(outputs.encoder_last_hidden_state).squeeze(-1)[counts]
            tagging = F.binary_cross_entropy_with_logits(scores.float(), tag_labels[counts].float())
            loss = tagging if outputs.loss is None else outputs.loss + tagging
            return Seq2SeqLMOutput(**{**outputs, "loss": loss})
        return outputs

    def tag(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Scores (B, S) of source tokens, above 0 where one is of an identifier; see the encoder for arguments."""
        hidden = self.model.encoder(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        return self.tagger(hidden).squeeze(-1)


class ClassificationScore(nn.Module):
    """W_2 drop(tanh(W_1 x)): T5's scores of a row."""

    def __init__(self, config: ZooSeq2seqConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, D) -> (B, num_labels)."""
        return self.out_proj(self.dropout(torch.tanh(self.dense(x))))


class ZooSeq2seqForSequenceClassification(Seq2SeqSequenceClassificationHead, ZooSeq2seqPreTrainedModel):
    """A label for the row, from the decoder at its last token."""

    backbone_class = ZooSeq2seqModel

    def make_score(self, config: ZooSeq2seqConfig) -> nn.Module:
        """T5's two layers."""
        return ClassificationScore(config)


class ZooSeq2seqForTokenClassification(TokenClassificationHead, ZooSeq2seqPreTrainedModel):
    """A label for every token, from the encoder alone; CodeT5's identifier tagging is one of two labels."""

    backbone_class = ZooSeq2seqEncoderModel


class ZooSeq2seqForQuestionAnswering(Seq2SeqQuestionAnsweringHead, ZooSeq2seqPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooSeq2seqModel
