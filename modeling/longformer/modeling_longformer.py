"""Longformer: an encoder for long texts, whose tokens see a window and a few global tokens.

Beltagy et al. 2020, https://arxiv.org/abs/2004.05150: RoBERTa with the attention of layers/window_global_attention.py.
Which tokens are global is a matter of the task: the first one to classify a text, those of the question to answer it.

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs

from ..base_model import ZooPreTrainedModel
from ..bert import BertBlock, BertTrunk
from ..classifiers import (
    MultipleChoiceHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from ..heads import MaskedLMHead
from ..layers.window_global_attention import WindowedText, WindowGlobalAttention
from ..masks import document_numbers, token_positions
from .configuration_longformer import ZooLongformerConfig


class LongformerBlock(BertBlock):
    """BERT's block with attention to a window and to global tokens."""

    def __init__(self, config: ZooLongformerConfig, layer_idx: int) -> None:
        attention = WindowGlobalAttention(
            config.hidden_size,
            config.num_attention_heads,
            config.window_of(layer_idx),
            config.dilations_of(layer_idx),
            config.attention_dropout,
        )
        super().__init__(config, attention)


class ZooLongformerPreTrainedModel(ZooPreTrainedModel):
    """Base class: what loaders need to know."""

    config_class = ZooLongformerConfig
    config: ZooLongformerConfig
    may_be_missing = ("pooler",)  # a masked LM alone does not train it
    _no_split_modules = ["LongformerBlock"]
    _supports_flex_attn = True
    _can_record_outputs = {"hidden_states": LongformerBlock}

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """The standard batch, with its first token global."""
        inputs = super().dummy_inputs
        is_first = torch.zeros_like(inputs["input_ids"])
        is_first[..., 0] = 1
        return {**inputs, "global_attention_mask": is_first}


class ZooLongformerModel(BertTrunk, ZooLongformerPreTrainedModel):
    """The encoder without a head; with `add_pooling_layer=False` without its pooler."""

    block_class = LongformerBlock

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ModelOutput:
        """Hidden states (B, T, D) of the last layer, and from the pooler one vector (B, D) a row.

        Args:
            global_attention_mask: (B, T), 1 on global tokens; those of the config without it.
            kwargs: see `EncoderTrunk.forward`, as for the rest.
        """
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            global_attention_mask=global_attention_mask,
            **kwargs,
        )

    def make_mask(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        input_ids: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        global_convention: str | None = None,
        **kwargs: Any,
    ) -> WindowedText:
        """The batch's documents and global tokens.

        Args:
            global_attention_mask: (B, T), 1 on global tokens.
            global_convention: without a mask, what the head makes global beside the config's: its name in
                `conventional_globals`.
        """
        documents = document_numbers(attention_mask, position_ids)
        is_global = global_attention_mask
        if is_global is None:
            positions = token_positions(x, attention_mask, 0) if position_ids is None else position_ids
            is_global = self.globals_of_config(positions.expand(x.shape[:2]), input_ids)
            if global_convention is not None:
                sep = self.config.sep_token_id
                is_global = is_global | conventional_globals(global_convention, positions, input_ids, sep)
        is_global = is_global.bool()
        if attention_mask is not None:  # nobody would see them, but each takes a place
            is_global = is_global & attention_mask.bool()
        use_flex = self.config._attn_implementation == "flex_attention"
        return WindowedText(x.shape[:2], x.device, documents, is_global, use_flex)

    def globals_of_config(self, positions: Tensor, input_ids: Tensor | None) -> Tensor:
        """(B, T), true on the tokens that the config makes global; positions (B, T) count real tokens."""
        chosen = torch.tensor(self.config.global_positions or [], dtype=torch.long, device=positions.device)
        is_global = torch.isin(positions, chosen)
        if self.config.global_token_ids and input_ids is not None:
            chosen = torch.tensor(self.config.global_token_ids, device=positions.device)
            is_global = is_global | torch.isin(input_ids, chosen)
        return is_global


def conventional_globals(
    convention: str, positions: Tensor, input_ids: Tensor | None, sep_token_id: int | None
) -> Tensor:
    """Which tokens a task makes global -> (B or 1, T).

    "first": the first of each text. "question": those before the first separator. "choice": those after the pair of
    separators that stands there. A text without ids or without a separator has its first token alone.

    Args:
        convention: one of the three.
        positions: (B or 1, T), counting real tokens.
        input_ids: (B, T).
        sep_token_id: the separator.
    """
    is_first = positions == 0
    if convention == "first" or input_ids is None or sep_token_id is None:
        return is_first
    is_sep = input_ids == sep_token_id
    has_sep, place = is_sep.any(-1, keepdim=True), is_sep.int().argmax(-1, keepdim=True)
    here = torch.arange(input_ids.shape[1], device=input_ids.device)
    return torch.where(has_sep, here < place if convention == "question" else here > place + 1, is_first)


class GlobalTokens:
    """What all heads of Longformer take beside the others' arguments; `global_convention` stands in for it."""

    global_convention: str | None = None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ModelOutput:
        """What the head returns.

        Args:
            global_attention_mask: (B, T), 1 on global tokens, or (B, choices, T); without it those of the config and
                those that are usual for the task.
            kwargs: see the head for the rest.
        """
        if labels is not None:
            kwargs["labels"] = labels
        if global_attention_mask is not None and global_attention_mask.ndim == 3:
            global_attention_mask = global_attention_mask.flatten(0, 1)
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            global_attention_mask=global_attention_mask,
            global_convention=self.global_convention,
            **kwargs,
        )


class ZooLongformerForMaskedLM(GlobalTokens, MaskedLMHead, ZooLongformerPreTrainedModel):
    """The masked language model."""

    backbone_class = ZooLongformerModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooLongformerForSequenceClassification(GlobalTokens, SequenceClassificationHead, ZooLongformerPreTrainedModel):
    """A label for the row, from its pooled first token, which is global."""

    backbone_class = ZooLongformerModel
    global_convention = "first"


class ZooLongformerForTokenClassification(GlobalTokens, TokenClassificationHead, ZooLongformerPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooLongformerModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooLongformerForQuestionAnswering(GlobalTokens, QuestionAnsweringHead, ZooLongformerPreTrainedModel):
    """Start and end of an answer in the row; tokens of the question, before the first separator, are global."""

    backbone_class = ZooLongformerModel
    backbone_arguments = {"add_pooling_layer": False}
    global_convention = "question"

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ModelOutput:
        """Start and end logits, each (B, T); see `GlobalTokens` and `QuestionAnsweringHead`."""
        return super().forward(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            start_positions=start_positions,
            end_positions=end_positions,
            global_attention_mask=global_attention_mask,
            **kwargs,
        )


class ZooLongformerForMultipleChoice(GlobalTokens, MultipleChoiceHead, ZooLongformerPreTrainedModel):
    """Which of several texts fits best; tokens of a choice, after the separators, are global."""

    backbone_class = ZooLongformerModel
    global_convention = "choice"
