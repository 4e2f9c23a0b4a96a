"""BERT: a transformer encoder that learns by filling in masked tokens.

Devlin et al. 2018, https://arxiv.org/abs/1810.04805; BioBERT (Lee et al. 2019, https://arxiv.org/abs/1901.08746) is
the same model trained on biomedical text.

    e = LayerNorm(Tok[id] + Pos[i] + Seg[type])
    h = LayerNorm(x + W_o MHA(x));  y = LayerNorm(h + W_2 gelu(W_1 h))          a block
    pooled = tanh(W h_CLS);  scores of a masked token = LayerNorm(gelu(W h)) E^T + b

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ..base_model import ZooPreTrainedModel
from ..classifiers import (
    MultipleChoiceHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from ..encoder import EncoderTrunk
from ..heads import MaskedLMHead, NextSentenceHead, PreTrainingHead
from ..layers.attention import Attention
from ..layers.mlp import MLP
from ..layers.pooler import FirstTokenPooler
from ..layers.positions import LearnedPositions
from .configuration_mlm import ZooMlmConfig


class MlmBlock(GradientCheckpointingLayer):
    """Attention to both sides, then a feed-forward network, each with its norm and residual."""

    def __init__(self, config: ZooMlmConfig, layer_idx: int) -> None:
        super().__init__()
        self.is_post_norm = config.block_layout == "post"
        head_dim = config.hidden_size // config.num_attention_heads
        self.self_attn = Attention(
            config,
            layer_idx,
            config.hidden_size,
            config.num_attention_heads,
            config.num_attention_heads,
            head_dim,
            bias=True,
            dropout=config.attention_dropout,
            is_causal=False,
        )
        self.mixer_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=True)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, x: Tensor, mask: Tensor | None, **kwargs: Any) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        if self.is_post_norm:
            x = self.mixer_norm(x + self.dropout(self.self_attn(x, mask, **kwargs)[0]))
            return self.mlp_norm(x + self.dropout(self.mlp(x)))
        x = x + self.dropout(self.self_attn(self.mixer_norm(x), mask, **kwargs)[0])
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class ZooMlmPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooMlmConfig
    config: ZooMlmConfig
    may_be_missing = ("pooler",)  # a masked LM alone does not train it
    _no_split_modules = ["MlmBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": MlmBlock, "attentions": Attention}


class ZooMlmModel(EncoderTrunk, ZooMlmPreTrainedModel):
    """The encoder without a head; with `add_pooling_layer=False` without its pooler."""

    def __init__(self, config: ZooMlmConfig, add_pooling_layer: bool = True) -> None:
        norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps) if config.block_layout == "pre" else None
        pooler = FirstTokenPooler(config.hidden_size) if add_pooling_layer else None
        super().__init__(config, MlmBlock, norm, pooler)
        self.embed_positions = LearnedPositions(config.max_position_embeddings, config.hidden_size)
        self.embed_types = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.embed_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.post_init()

    def place(self, x: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """LayerNorm(x + Pos[i] + Seg[type]), x (B, T, D)."""
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        x = x + self.embed_positions(position_ids) + self.embed_types(token_type_ids)
        return self.dropout(self.embed_norm(x))


class ZooMlmForMaskedLM(MaskedLMHead, ZooMlmPreTrainedModel):
    """The masked language model."""

    backbone_class = ZooMlmModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooMlmForPreTraining(PreTrainingHead, ZooMlmPreTrainedModel):
    """Masked tokens and sentence pairs, as BERT was trained."""

    backbone_class = ZooMlmModel


class ZooMlmForNextSentencePrediction(NextSentenceHead, ZooMlmPreTrainedModel):
    """Whether the second sentence follows the first."""

    backbone_class = ZooMlmModel


class ZooMlmForSequenceClassification(SequenceClassificationHead, ZooMlmPreTrainedModel):
    """A label for the row, from its pooled [CLS]."""

    backbone_class = ZooMlmModel


class ZooMlmForTokenClassification(TokenClassificationHead, ZooMlmPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooMlmModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooMlmForQuestionAnswering(QuestionAnsweringHead, ZooMlmPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooMlmModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooMlmForMultipleChoice(MultipleChoiceHead, ZooMlmPreTrainedModel):
    """Which of several texts fits best."""

    backbone_class = ZooMlmModel
