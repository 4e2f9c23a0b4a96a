"""Heads that classify rows, tokens, spans and choices: one mixin a task, as in heads.py.

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .heads import Head
from .losses import classification_loss


class ClassifierHead(Head):
    """A dropout and a linear layer on the trunk: what all classifiers share."""

    score_has_bias = True
    num_scores: int | None = None  # config.num_labels unless the task fixes it

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(getattr(config, "classifier_dropout", 0.0))
        self.score = self.make_score(config)
        self.post_init()

    def make_score(self, config: PreTrainedConfig) -> nn.Module:
        """What makes scores of a vector (..., D)."""
        return nn.Linear(config.hidden_size, self.num_scores or config.num_labels, bias=self.score_has_bias)

    def summary(self, outputs: Any, attention_mask: Tensor | None) -> Tensor:
        """One vector (B, D) a row: the pooler's, or that of the last real token."""
        if getattr(outputs, "pooler_output", None) is not None:
            return outputs.pooler_output
        x = outputs.last_hidden_state
        if attention_mask is None:
            return x[:, -1]
        steps = torch.arange(attention_mask.shape[-1], device=x.device)
        last = (attention_mask * steps).argmax(-1)
        return x[torch.arange(len(x), device=x.device), last]


class SequenceClassificationHead(ClassifierHead):
    """One label, several, or a number for the whole row."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutputWithPast:
        """Logits (B, num_labels).

        Args:
            attention_mask: (B, T); decoders read the last real token, so padded rows need it (or config.pad_token_id).
            token_type_ids: (B, T), for encoders that tell two sentences apart.
            labels: (B) or (B, num_labels), see `classification_loss`.
            kwargs: see the trunk for the rest.
        """
        if attention_mask is None and input_ids is not None and self.config.pad_token_id is not None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        kwargs.update(past_key_values=past_key_values, use_cache=use_cache)
        outputs = self.encode(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits = self.score(self.dropout(self.summary(outputs, attention_mask)))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch)
            loss = self.complete_loss(loss, outputs, labels, num_items_in_batch)
        return SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=getattr(outputs, "past_key_values", None),
            hidden_states=getattr(outputs, "hidden_states", None),  # two towers keep theirs apart
            attentions=getattr(outputs, "attentions", None),
        )


class TokenClassificationHead(ClassifierHead):
    """A label for every token."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        """Logits (B, T, num_labels).

        Args:
            token_type_ids: (B, T), for encoders that tell two sentences apart.
            labels: (B, T), -100 on tokens that have none.
            kwargs: see the trunk for the rest.
        """
        outputs = self.encode(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits = self.score(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, config=self.config, **kwargs)
            loss = self.complete_loss(loss, outputs, labels, kwargs.get("num_items_in_batch"))
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class QuestionAnsweringHead(Head):
    """Where the answer starts and ends in the row."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
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
    ) -> QuestionAnsweringModelOutput:
        """Start and end logits, each (B, T).

        Args:
            token_type_ids: (B, T), for encoders that tell two sentences apart.
            start_positions, end_positions: (B); one beyond the row is ignored.
            kwargs: see the trunk for the rest.
        """
        outputs = self.encode(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        scores = self.span_scores(outputs.last_hidden_state, input_ids, attention_mask)
        start_logits, end_logits = scores.unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions, **kwargs)
            loss = self.complete_loss(loss, outputs, start_positions, kwargs.get("num_items_in_batch"))
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def span_scores(self, x: Tensor, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        """Scores (B, T, 2) of each token as start and end, from the last hidden state (B, T, D)."""
        return self.qa_outputs(x)


class MultipleChoiceHead(ClassifierHead):
    """Which of several texts fits best."""

    num_scores = 1

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MultipleChoiceModelOutput:
        """Logits (B, choices).

        Args:
            input_ids, attention_mask, token_type_ids, position_ids: (B, choices, T); inputs_embeds one axis more.
            labels: (B), the right choice.
            kwargs: see the trunk for the rest.
        """
        num_choices = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]

        def flat(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.flatten(0, 1)

        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        outputs = self.encode(*map(flat, inputs), **kwargs)
        logits = self.score(self.dropout(self.summary(outputs, flat(attention_mask)))).view(-1, num_choices)
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """The standard batch, each row as one of two choices: (2, 2, 8)."""
        return {name: torch.stack((value, value.flip(0)), dim=1) for name, value in super().dummy_inputs.items()}
