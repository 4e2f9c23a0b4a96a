"""BigBird: an encoder for long texts, whose blocks see global, neighbouring and random blocks.

Zaheer et al. 2020, https://arxiv.org/abs/2007.14062: BERT with the attention of layers/random_block_attention.py, or
with global tokens beside the text, of layers/extra_global_attention.py.

Shapes: B batch, T tokens, D hidden size.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs

from ..base_model import ZooPreTrainedModel
from ..bert import BertBlock, BertTrunk, make_attention
from ..classifiers import (
    MultipleChoiceHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from ..heads import MaskedLMHead, PreTrainingHead
from ..layers.extra_global_attention import ExtraGlobalAttention, TextBesideGlobals
from ..layers.mlp import MLP, activation
from ..layers.pooler import pool
from ..layers.random_block_attention import BlockedText, RandomBlockAttention
from ..masks import encoder_mask, find_documents
from .configuration_bigbird import ZooBigbirdConfig


class BigbirdBlock(BertBlock):
    """BERT's block with attention to global, neighbouring and random blocks, or to all."""

    def __init__(self, config: ZooBigbirdConfig, layer_idx: int) -> None:
        if config.attention_type == "original_full":
            attention = make_attention(config, layer_idx)
        else:
            kind = RandomBlockAttention
            if config.num_global_tokens:
                kind = partial(ExtraGlobalAttention, num_globals=config.num_global_tokens)
            attention = kind(
                config.hidden_size,
                config.num_attention_heads,
                config.num_random_blocks,
                seed=1000 * config.random_seed + layer_idx,
                dropout=config.attention_dropout,
            )
        super().__init__(config, attention)

    def forward(
        self, x: Tensor, mask: Any, global_tokens: Tensor | None = None, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x (B, T, D), mask as the attention wants it -> (B, T, D); and global tokens (M, g, D), if there are any."""
        if global_tokens is None:
            return super().forward(x, mask, **kwargs)
        count = global_tokens.shape[:2].numel()  # all but attention is done token by token
        y = super().forward(torch.cat((global_tokens.flatten(0, 1), x.flatten(0, 1)))[None], mask, **kwargs)[0]
        return y[count:].view(x.shape), y[:count].view(global_tokens.shape)


class ZooBigbirdPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooBigbirdConfig
    config: ZooBigbirdConfig
    may_be_missing = ("pooler",)  # a masked LM alone does not train it
    _no_split_modules = ["BigbirdBlock"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_record_outputs = {"hidden_states": BigbirdBlock}


class ZooBigbirdModel(BertTrunk, ZooBigbirdPreTrainedModel):
    """The encoder without a head; with `add_pooling_layer=False` without its pooler."""

    block_class = BigbirdBlock

    def __init__(self, config: ZooBigbirdConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, add_pooling_layer)
        if config.num_global_tokens:
            self.embed_globals = nn.Embedding(config.num_global_tokens, config.hidden_size)
            self.post_init()

    def run(self, x: Tensor, mask: Any, *args: Any, **kwargs: Any) -> Tensor:
        """x (B, T, D) through all blocks, and with it the global tokens of every document; for the rest see
        `EncoderTrunk.run`."""
        if not self.config.num_global_tokens:
            return super().run(x, mask, *args, **kwargs)
        global_tokens = self.dropout(self.embed_norm(self.embed_globals.weight)).expand(len(mask.lengths), -1, -1)
        for block in self.layers:
            x, global_tokens = block(x, mask, global_tokens, **kwargs)
        return x

    def make_mask(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        input_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BlockedText | TextBesideGlobals | Tensor | None:
        """The batch's documents in blocks; under full attention the set backend's mask."""
        config = self.config
        if config.attention_type == "original_full":
            return encoder_mask(config, x, attention_mask, position_ids)
        documents = find_documents(x, attention_mask, position_ids)
        sizes = x.shape[:2], x.device, config.block_size, config.num_random_blocks, documents
        use_flex = config._attn_implementation == "flex_attention"
        if config.num_global_tokens:
            if use_flex:
                raise ValueError("flex_attention has no global tokens beside the text: set attn_implementation='sdpa'")
            return TextBesideGlobals(*sizes)
        return BlockedText(*sizes, use_flex)


class ZooBigbirdForMaskedLM(MaskedLMHead, ZooBigbirdPreTrainedModel):
    """The masked language model."""

    backbone_class = ZooBigbirdModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooBigbirdForPreTraining(PreTrainingHead, ZooBigbirdPreTrainedModel):
    """Masked tokens and sentence pairs."""

    backbone_class = ZooBigbirdModel


class ZooBigbirdForSequenceClassification(SequenceClassificationHead, ZooBigbirdPreTrainedModel):
    """A label for the row, from its first token through a layer with the activation of the blocks."""

    backbone_class = ZooBigbirdModel
    backbone_arguments = {"add_pooling_layer": False}

    def __init__(self, config: ZooBigbirdConfig) -> None:
        super().__init__(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.act_fn = activation(config.hidden_act)
        self.post_init()

    def summary(self, outputs: ModelOutput, attention_mask: Tensor | None) -> Tensor:
        """One vector (B, D) a row."""
        return self.act_fn(self.dense(self.dropout(pool(outputs.last_hidden_state, attention_mask, "cls"))))


class ZooBigbirdForTokenClassification(TokenClassificationHead, ZooBigbirdPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooBigbirdModel
    backbone_arguments = {"add_pooling_layer": False}


class SpanScores(nn.Module):
    """A feed-forward network with its residual and norm, then scores of each token as start and end of an answer."""

    def __init__(self, config: ZooBigbirdConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=True)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, 2)."""
        return self.qa_outputs(self.mlp_norm(x + self.dropout(self.mlp(self.dropout(x)))))


class ZooBigbirdForQuestionAnswering(QuestionAnsweringHead, ZooBigbirdPreTrainedModel):
    """Start and end of an answer in the row, after the question that the first separator ends.

    The question is the first of two sentences, unless `token_type_ids` say otherwise.
    """

    backbone_class = ZooBigbirdModel
    backbone_arguments = {"add_pooling_layer": False}

    def __init__(self, config: ZooBigbirdConfig) -> None:
        super().__init__(config)
        self.qa_outputs = SpanScores(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ModelOutput:
        """Start and end logits, each (B, T); see `QuestionAnsweringHead`."""
        if token_type_ids is None and input_ids is not None and self.config.type_vocab_size > 1:
            token_type_ids = (~self._is_question(input_ids, attention_mask)).long()
        return super().forward(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            start_positions,
            end_positions,
            **kwargs,
        )

    def span_scores(self, x: Tensor, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        """Scores (B, T, 2), out of reach on tokens of the question but for the first, which stands for no answer."""
        scores = self.qa_outputs(x)
        if input_ids is None:
            return scores
        is_question = self._is_question(input_ids, attention_mask)
        is_first = is_question.cumsum(-1) == 1 if attention_mask is None else attention_mask.cumsum(-1) == 1
        return scores - 1e6 * (is_question & ~is_first)[..., None]

    def _is_question(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(B, T), true up to the first separator, and on the first token alone where there is none."""
        is_real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        is_sep = (input_ids == self.config.sep_token_id) & is_real.bool()
        last = torch.where(is_sep.any(-1), is_sep.int().argmax(-1), is_real.argmax(-1))
        return torch.arange(input_ids.shape[1], device=input_ids.device) <= last[:, None]


class ZooBigbirdForMultipleChoice(MultipleChoiceHead, ZooBigbirdPreTrainedModel):
    """Which of several texts fits best."""

    backbone_class = ZooBigbirdModel
