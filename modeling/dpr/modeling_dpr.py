"""Dense passage retrieval: questions and passages as vectors whose product says how well they fit.

Karpukhin et al. 2020, https://arxiv.org/abs/2004.04906.

    sim(q, p) = E_Q(q) . E_P(p)                                      two encoders, the vector of [CLS]
    loss = mean over i of -log softmax_j(sim(q_i, p_j)) at j = the passage of question i

The passages of a batch are everybody's: those of the other questions and their hard negatives count as wrong, also
those of other processes. The reader finds the answer in passages that were retrieved:

    P_start(s) = softmax(P_i w_start)_s,  P_end(t) = softmax(P_i w_end)_t,  P_selected(i) = softmax(CLS_i w_selected)_i

Shapes: Q questions, P passages, M passages a question, T tokens, D vector size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import QuestionAnsweringModelOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel
from ..layers.gather import gather, process_rank
from ..layers.pooler import pool
from ..parts import part_model
from .configuration_dpr import ZooDprConfig


@dataclass
class DualEncoderOutput(ModelOutput):
    """Of a dual encoder.

    Args:
        loss: of finding each question's passage among all of the batch, where passages are given.
        question_embeds: (Q, D).
        passage_embeds: (P, D), of this process's passages.
        scores: (Q, P) of the loss, where passages are given; P counts those of all processes.
        last_hidden_state: (Q, T, D) of the question encoder.
        hidden_states: of the question encoder, one (Q, T, D) a layer, and the embeddings.
        attentions: of the question encoder, one (Q, H, T, T) a layer.
    """

    loss: Tensor | None = None
    question_embeds: Tensor | None = None
    passage_embeds: Tensor | None = None
    scores: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class ReaderOutput(QuestionAnsweringModelOutput):
    """Of a reader.

    Args:
        relevance_logits: (Q, M), or (Q,) where each question has one passage: how likely it holds the answer.
    """

    relevance_logits: Tensor | None = None


def load_encoder(part: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """Copy the weights of an encoder into a part of the same config; a pooler that the part has not is left out."""
    weights = encoder.state_dict()
    part.load_state_dict({name: weights[name] for name in part.state_dict()})


class Tower(nn.Module):
    """An encoder, a pooling, and a projection where one is asked for."""

    def __init__(self, encoder: PreTrainedModel, pooling: str, projection_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        size = encoder.config.hidden_size
        self.projection = nn.Linear(size, projection_dim) if projection_dim else None

    def forward(self, attention_mask: Tensor | None = None, **inputs: Any) -> tuple[Tensor, ModelOutput]:
        """One vector a row (B, D), and the encoder's output."""
        inputs = {name: value for name, value in inputs.items() if value is not None}
        outputs = self.encoder(attention_mask=attention_mask, **inputs)
        x = pool(outputs.last_hidden_state, attention_mask, self.pooling)
        return x if self.projection is None else self.projection(x), outputs


class ZooDprPreTrainedModel(ZooPreTrainedModel):
    """Base class."""

    config_class = ZooDprConfig
    config: ZooDprConfig
    accepts_loss_kwargs = False  # the loss is a mean over questions, each against a batch that others complete
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True


class ZooDprModel(ZooDprPreTrainedModel):
    """The dual encoder; with passages it returns the loss, so that `Trainer` trains it as it is."""

    def __init__(self, config: ZooDprConfig) -> None:
        super().__init__(config)
        self.question_tower = self._tower(config.question_config)
        if not config.share_encoders:
            self.passage_tower = self._tower(config.passage_config)
        self.post_init()

    def _tower(self, config: Any) -> Tower:
        encoder = part_model(config, add_pooling_layer=False)
        return Tower(encoder, self.config.pooling, self.config.projection_dim)

    @classmethod
    def from_encoders(
        cls, question: PreTrainedModel, passage: PreTrainedModel | None = None, **options: Any
    ) -> "ZooDprModel":
        """A retriever from pretrained encoders.

        Args:
            question: the question encoder; it becomes a part of the new model.
            passage: the passage encoder; without it a copy of the first one's weights.
            options: other fields of the config.
        """
        other = question if passage is None else passage
        config = ZooDprConfig(question_config=question.config, passage_config=other.config, **options)
        model = cls(config)
        load_encoder(model.question_tower.encoder, question)
        load_encoder(model.passages.encoder, other)
        return model

    @property
    def passages(self) -> Tower:
        """The tower of passages, which may be that of questions."""
        return self.question_tower if self.config.share_encoders else self.passage_tower

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two questions and a passage for each, 8 tokens long."""
        questions = super().dummy_inputs
        return {**questions, **{f"passage_{name}": value.flip(-1) for name, value in questions.items()}}

    def get_input_embeddings(self) -> nn.Module:
        """Of the question encoder."""
        return self.question_tower.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace those of the question encoder."""
        self.question_tower.encoder.set_input_embeddings(value)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Module:
        """Resize both vocabularies, which one tokenizer feeds."""
        for tower in dict.fromkeys((self.question_tower, self.passages)):
            tower.encoder.resize_token_embeddings(new_num_tokens, *args, **kwargs)
        self.vocab_size = self.config.vocab_size  # as transformers leaves it
        return self.get_input_embeddings()

    def embed_questions(self, input_ids: Tensor | None = None, **inputs: Any) -> Tensor:
        """Vectors (Q, D) of questions; see `forward` for the rest."""
        return self._compared(self.question_tower(input_ids=input_ids, **inputs)[0])

    def embed_passages(self, input_ids: Tensor | None = None, **inputs: Any) -> Tensor:
        """Vectors (P, D) of passages; inputs as for questions."""
        return self._compared(self.passages(input_ids=input_ids, **inputs)[0])

    def _compared(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.config.similarity == "cosine" else x

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        passage_input_ids: Tensor | None = None,
        passage_attention_mask: Tensor | None = None,
        passage_token_type_ids: Tensor | None = None,
        passage_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> DualEncoderOutput:
        """Vectors of questions and, with passages, theirs, the scores and the loss.

        Args:
            input_ids, attention_mask, token_type_ids: (Q, T) of the questions; inputs_embeds (Q, T, D) instead.
            passage_input_ids, passage_attention_mask, passage_token_type_ids: (P, T) of the passages; by default the
                first of each question's P / Q is its own, and the others are its hard negatives.
            passage_ids: (P), by which equal passages are known; another copy of a question's own is no wrong answer.
            labels: (Q), which passage is each question's, where the default does not hold.
            kwargs: of the encoders.
        """
        own = {"token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds, **kwargs}
        questions, outputs = self.question_tower(attention_mask, input_ids=input_ids, **own)
        questions = self._compared(questions)
        loss = scores = passages = None
        if passage_input_ids is not None:
            other = {"attention_mask": passage_attention_mask, "token_type_ids": passage_token_type_ids, **kwargs}
            passages = self.embed_passages(passage_input_ids, **other)
            loss, scores = self._loss(questions, passages, passage_ids, labels)
        return DualEncoderOutput(
            loss=loss,
            question_embeds=questions,
            passage_embeds=passages,
            scores=scores,
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _loss(
        self, questions: Tensor, passages: Tensor, passage_ids: Tensor | None, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if len(passages) % len(questions) and labels is None:
            raise ValueError(
                f"{len(passages)} passages do not fall evenly to {len(questions)} questions: labels must say whose is "
                "whose"
            )
        if labels is None:
            labels = torch.arange(len(questions), device=questions.device) * (len(passages) // len(questions))
        labels, passages = labels + process_rank() * len(passages), gather(passages)
        scores = questions.float() @ passages.float().T / self.config.temperature  # (Q, P); in half they may overflow
        if passage_ids is not None:
            passage_ids = gather(passage_ids)
            is_copy = passage_ids[labels][:, None] == passage_ids
            scores = scores.masked_fill(is_copy.scatter(1, labels[:, None], False), -torch.inf)
        return F.cross_entropy(scores, labels), scores


class ZooDprForQuestionAnswering(ZooDprPreTrainedModel):
    """The reader: where the answer stands in a passage, and in which of a question's passages."""

    def __init__(self, config: ZooDprConfig) -> None:
        super().__init__(config)
        self.encoder = part_model(config.question_config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.qa_classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @classmethod
    def from_parts(
        cls, encoder: PreTrainedModel, qa_outputs: nn.Linear | None = None, qa_classifier: nn.Linear | None = None
    ) -> "ZooDprForQuestionAnswering":
        """A reader from a pretrained encoder, and from the two linear layers of a trained one where given."""
        model = cls(ZooDprConfig(question_config=encoder.config))
        load_encoder(model.encoder, encoder)
        for layer, given in ((model.qa_outputs, qa_outputs), (model.qa_classifier, qa_classifier)):
            if given is not None:
                layer.load_state_dict(given.state_dict())
        return model

    def get_input_embeddings(self) -> nn.Module:
        """Of the encoder."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace those of the encoder."""
        self.encoder.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> ReaderOutput:
        """Logits of start, end (Q, M, T) and relevance (Q, M) of passages that are read together with the question.

        Args:
            input_ids, attention_mask, token_type_ids: (Q, M, T), rows "[CLS] question [SEP] title [SEP] text"; or
                (Q, T) for one passage a question, and then nothing has the axis M. inputs_embeds has one axis more.
            start_positions, end_positions: (Q), where the answer is in the passage that holds it.
            labels: (Q), which passage that is; the first without it.
        """
        rows = input_ids if inputs_embeds is None else inputs_embeds
        is_flat = rows.ndim == (2 if inputs_embeds is None else 3)
        shape = (len(rows), 1) if is_flat else rows.shape[:2]

        def flat(value: Tensor | None) -> Tensor | None:
            return value if value is None or is_flat else value.flatten(0, 1)

        inputs = {"input_ids": input_ids, "token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds}
        inputs = {name: flat(value) for name, value in inputs.items() if value is not None}
        outputs = self.encoder(attention_mask=flat(attention_mask), **inputs, **kwargs)
        x = outputs.last_hidden_state
        start, end = self.qa_outputs(x).unflatten(0, shape).unbind(-1)  # (Q, M, T)
        relevance = self.qa_classifier(pool(x, flat(attention_mask), "cls")).view(shape)
        loss = None
        if start_positions is not None and end_positions is not None:
            if labels is None:
                labels = torch.zeros(shape[0], dtype=torch.long, device=x.device)
            own = torch.arange(shape[0], device=x.device), labels
            loss = self.loss_function(start[own], end[own], start_positions, end_positions)
            loss = loss + F.cross_entropy(relevance.float(), labels)
        return ReaderOutput(
            loss=loss,
            start_logits=start.squeeze(1) if is_flat else start,
            end_logits=end.squeeze(1) if is_flat else end,
            relevance_logits=relevance.squeeze(1) if is_flat else relevance,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
