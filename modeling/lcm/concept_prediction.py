"""What is said next, as a concept: the text so far and its graph condition a predictor of sentences' vectors.

    x_s  = Encoder(sentence s), frozen                     or as the caller brings it
    c_s  = Pool(h_t of sentence s)                         the decoder has read the graph by then
    x_s+1 ~ Predictor(z_1 + W c_1 ... z_s + W c_s)         W starts at zero: as the predictor alone

Shapes: B rows, T tokens, N sentences, L tokens of a sentence, S size of a sentence's vector.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..heads import Head
from ..parts import part_model
from .concept_reading import number_sentences
from .hierarchy import SpanPooling


@dataclass
class TextConceptOutput(ModelOutput):
    """Of the head that predicts concepts of a text.

    Args:
        loss: of the predictor, with what concepts add in training.
        predictions: (B, N, S), of the sentences after each; of a predictor by regression.
        last_hidden_state: (B, N, D), contexts of the predictor.
        hidden_states, attentions: of the decoder that reads the text.
    """

    loss: Tensor | None = None
    predictions: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class SentencesOfText:
    """A text as the predictor reads it.

    Args:
        concepts: (B, N, S).
        condition: (B, N, D) of the predictor.
        is_real: (B, N).
    """

    concepts: Tensor
    condition: Tensor
    is_real: Tensor


class ConceptPredictionHead(Head):
    """Mixin: the trunk, and a model of the architecture `zoo_concept_predictor`."""

    accepts_loss_kwargs = False  # the loss is a mean over sentences

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        if config.predictor_config is None:
            raise ValueError("predictor_config must be set to predict concepts, for instance with a model_type alone")
        size = config.concept_size
        self.pooling = SpanPooling(config.hidden_size, size, config.num_attention_heads, config.norm_eps)
        self.condition = nn.Linear(size, config.predictor_config.hidden_size, bias=False)
        self.condition.init_scale = 0.0
        self.predictor = part_model(config.predictor_config, "AutoModelForPreTraining")
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        sentence_ids: Tensor | None = None,
        mention_ids: Tensor | None = None,
        concepts: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TextConceptOutput:
        """Contexts of sentences and, with labels, the loss of predicting each from the text before it.

        Args:
            input_ids, attention_mask: (B, T).
            labels: (B, T), usually input_ids; a sentence whose labels are all -100 is not learnt.
            sentence_ids, mention_ids: (B, T), see `ZooLcmModel.forward`.
            concepts: (B, N, S), vectors of the sentences, where the predictor has no encoder of its own.
            kwargs: see the trunk for the rest.
        """
        numbers = self._numbers(input_ids, attention_mask, sentence_ids)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            sentence_ids=sentence_ids,
            mention_ids=mention_ids,
            use_cache=False,
            **kwargs,
        )
        text = self._read(input_ids, outputs.last_hidden_state, numbers, concepts)
        targets = None
        if labels is not None:
            is_learnt = (members_of(numbers) & (labels != -100)[:, None]).any(-1)
            targets = text.concepts.masked_fill(~is_learnt[..., None], -100.0)
        predicted = self.predictor(
            concepts=text.concepts, attention_mask=text.is_real.long(), condition=text.condition, labels=targets
        )
        return TextConceptOutput(
            loss=self.complete_loss(predicted.loss, outputs, labels),
            predictions=predicted.predictions,
            last_hidden_state=predicted.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        sentence_ids: Tensor | None = None,
        mention_ids: Tensor | None = None,
        concepts: Tensor | None = None,
        **options: Any,
    ) -> ModelOutput:
        """Concepts that go on with a text, and their words where the predictor has a decoder.

        Args:
            options: of the predictor's `generate`; for the rest see `forward`.
        """
        numbers = self._numbers(input_ids, attention_mask, sentence_ids)
        x = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            sentence_ids=sentence_ids,
            mention_ids=mention_ids,
            use_cache=False,
        ).last_hidden_state
        text = self._read(input_ids, x, numbers, concepts)
        return self.predictor.generate(text.concepts, text.is_real, condition=text.condition, **options)

    def _numbers(self, input_ids: Tensor, attention_mask: Tensor | None, sentence_ids: Tensor | None) -> Tensor:
        """The sentence of each token (B, T), -1 for padding."""
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        if sentence_ids is not None:
            return sentence_ids.masked_fill(~real, -1)
        return number_sentences(self.model.sentence_ends(input_ids, None), real, None, None)

    def _read(self, input_ids: Tensor, x: Tensor, numbers: Tensor, concepts: Tensor | None) -> SentencesOfText:
        members = members_of(numbers)
        if concepts is None:
            concepts = self.predictor.sentences.encode(*sentences_of(input_ids, numbers))
        elif concepts.shape[:2] != members.shape[:2]:
            raise ValueError(
                f"concepts are for {tuple(concepts.shape[:2])} (rows, sentences), and the text has "
                f"{tuple(members.shape[:2])}"
            )
        condition = self.condition(self.pooling(x, members))
        return SentencesOfText(concepts, condition, members.any(-1))


def members_of(numbers: Tensor) -> Tensor:
    """Sentences of tokens (B, T) -> (B, N, T), true on the tokens of each sentence."""
    return numbers[:, None] == torch.arange(int(numbers.max()) + 1, device=numbers.device)[:, None]


def sentences_of(input_ids: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """A text cut up: tokens (B, N, L) of each sentence, and 1 where there is one."""
    members = members_of(numbers)
    place = members.long().cumsum(-1) - 1  # of each token in its sentence
    length = int(members.sum(-1).max())
    found = (place[..., None] == torch.arange(length, device=place.device)) & members[..., None]  # (B, N, T, L)
    return (found * input_ids[:, None, :, None]).sum(2), found.any(2).long()
