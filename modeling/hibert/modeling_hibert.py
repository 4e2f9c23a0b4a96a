"""Hi-BERT: an encoder of long texts and records that reads segments one by one, and then their summaries together.

Chalkidis et al. 2022, "An Exploration of Hierarchical Attention Transformers", https://arxiv.org/abs/2210.05529 (HAT,
of texts), and Li et al. 2021, "Hi-BEHRT", https://arxiv.org/abs/2106.11360 (of health records):

    e = LayerNorm(Tok[code] + Pos[place in the segment, or visit] + Seg[type, or parity of the visit] + Age[age])
    S:  h_s = Block(h_s)                                       each segment alone, S K^2 pairs of tokens
    D:  g' = Block(g + P[1..S]),  g = summaries of h           all segments together, S^2 pairs
    pooled = tanh(W pool(g))

Blocks are those of BERT (bert.py); how rows are cut and summaries written back is in layers/segments.py.

Shapes: B rows, T tokens of a row, N documents, S segments, K tokens of a segment, D hidden size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from ..base_model import ZooPreTrainedModel, embed_tokens
from ..bert import BertBlock, BertTrunk, make_attention
from ..classifiers import (
    MultipleChoiceHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from ..heads import MaskedLMHead
from ..layers.momentum_target import MomentumTarget, Projection, view_loss
from ..layers.positions import LearnedPositions
from ..layers.segments import SegmentPooler, Segments, cut, summarise, write_back
from ..masks import drop_useless_mask, encoder_mask, packed_positions, token_positions
from .configuration_hibert import ZooHibertConfig


class HibertBlock(BertBlock):
    """BERT's block, over the tokens of each segment or over the summaries of each document."""

    def __init__(self, config: ZooHibertConfig, layer_idx: int) -> None:
        super().__init__(config, make_attention(config, layer_idx))
        self.kind = config.layout[layer_idx]
        self.summary = config.segment_summary
        if self.kind == "D":
            self.embed_segments = LearnedPositions(config.max_segments + 1, config.hidden_size)

    def forward(self, x: Tensor, segments: Segments, **kwargs: Any) -> Tensor:
        """x (N, S K, D) -> (N, S K, D)."""
        num_documents, num_segments, size = segments.shape
        if self.kind == "S":
            parts = x.view(num_documents * num_segments, size, x.shape[-1])
            return super().forward(parts, segments.token_mask, **kwargs).view_as(x)
        before = summarise(x, segments, self.summary)
        is_real = segments.is_real
        if is_real is None:
            number = torch.arange(1, num_segments + 1, device=x.device)[None]
        else:
            number = is_real.long().cumsum(-1) * is_real  # empty segments take no number, and share row 0
        after = super().forward(before + self.embed_segments(number), segments.segment_mask, **kwargs)
        return write_back(x, before, after, segments, self.summary)


class ZooHibertPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooHibertConfig
    config: ZooHibertConfig
    may_be_missing = ("pooler",)  # a masked LM alone does not train it
    _no_split_modules = ["HibertBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": HibertBlock}


class ZooHibertModel(BertTrunk, ZooHibertPreTrainedModel):
    """The encoder without a head; with `add_pooling_layer=False` without its pooler."""

    block_class = HibertBlock

    def __init__(self, config: ZooHibertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, add_pooling_layer=False)
        if config.num_ages:
            self.embed_ages = LearnedPositions(config.num_ages, config.hidden_size)
        self.pooler = SegmentPooler(config.hidden_size, config.pooling) if add_pooling_layer else None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        age_ids: Tensor | None = None,
        visit_ids: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Hidden states (B, T, D) of the last layer, and from the pooler one vector (B, D) a row.

        A row is cut into segments from its first real token on. Inputs that are cut already come as (B, S, K), with
        padding anywhere in a segment and empty segments anywhere; their outputs are (B, S K, ...). In overlapping
        segments a token's hidden state is that of the segment whose middle is nearest.

        Args:
            input_ids: (B, T) or (B, S, K).
            attention_mask: like input_ids, 1 on real tokens; padding on either side gives the answer of none.
            token_type_ids: like input_ids; the first type without it, or the parity of the visit.
            position_ids: (B, T); where they restart at 0, another document starts. Places in a segment are counted.
            inputs_embeds: (B, T, D) or (B, S, K, D), instead of input_ids.
            age_ids: like input_ids, the age at each event, below num_ages; for models of records.
            visit_ids: like input_ids, the number of each event's visit, which takes the part of its place; visits
                beyond the table of positions share its last row.
        """
        rows = input_ids if inputs_embeds is None else inputs_embeds[..., 0]
        given = rows.shape[1:] if rows is not None and rows.ndim == 3 else None
        if given is not None:
            flat = (input_ids, attention_mask, token_type_ids, inputs_embeds, age_ids, visit_ids)
            flat = (None if value is None else value.flatten(1, 2) for value in flat)
            input_ids, attention_mask, token_type_ids, inputs_embeds, age_ids, visit_ids = flat
        x = embed_tokens(self.embed_tokens, input_ids, inputs_embeds)
        if self.config.num_ages and age_ids is not None:
            x = x + self.embed_ages(age_ids)
        elif age_ids is not None:
            raise ValueError("age_ids are given to a model without ages: set num_ages in its config")
        segments = self.cut(x, attention_mask, position_ids, given)
        x, token_type_ids, visit_ids = (
            None if value is None else segments.lay_out(value) for value in (x, token_type_ids, visit_ids)
        )
        outputs = self.encode(x, segments, token_type_ids, visit_ids, **{**kwargs, "return_dict": True})
        if self.pooler is not None:
            g = summarise(outputs.last_hidden_state, segments, self.config.segment_summary)
            pooled = self.pooler(g, segments.is_real)
            first = segments.first_document
            outputs.pooler_output = pooled if first is None else pooled[first]
        if segments.place is not None:
            outputs.last_hidden_state = segments.bring_back(outputs.last_hidden_state)
            if outputs.hidden_states is not None:
                outputs.hidden_states = tuple(map(segments.bring_back, outputs.hidden_states))
        return outputs

    def cut(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        given: tuple[int, int] | None = None,
    ) -> Segments:
        """How the rows of x (B, T, D) are cut, with what hides padding from attention.

        Args:
            given: (S, K) of rows that are cut already.

        Raises:
            ValueError: there are more segments than document blocks can tell apart.
        """
        attention_mask = drop_useless_mask(attention_mask)
        if given is not None:
            shape = (len(x), *given)
            segments = Segments(shape, None if attention_mask is None else attention_mask.bool().view(shape))
        else:
            starts = packed_positions(position_ids, attention_mask, has_past=False)
            if starts is not None:
                starts = (starts == 0).expand(x.shape[:2])
                starts = starts | (torch.arange(x.shape[1], device=x.device) == 0)
                starts = starts if bool(starts[:, 1:].any()) else None
            size, stride = self.config.segment_size, self.config.segment_stride
            segments = cut(*x.shape[:2], size, stride, attention_mask, starts, x.device)
        num_documents, num_segments, size = segments.shape
        if num_segments > self.config.max_segments and self.config.has_document_blocks:
            raise ValueError(
                f"{num_segments} segments of {size} tokens are more than max_segments={self.config.max_segments}: "
                "shorten the rows, or build the model with more"
            )
        tokens = segments.mask
        if tokens is None:
            return segments.with_masks(None, None)
        hidden, dim = x.new_empty(0), x.shape[-1]  # masks depend on shapes alone
        token_mask = encoder_mask(
            self.config, hidden.new_empty(num_documents * num_segments, size, dim), tokens.flatten(0, 1).long(), None
        )
        real = segments.is_real.long()
        segment_mask = encoder_mask(self.config, hidden.new_empty(num_documents, num_segments, dim), real, None)
        return segments.with_masks(token_mask, segment_mask)

    @capture_outputs
    def encode(
        self,
        x: Tensor,
        segments: Segments,
        token_type_ids: Tensor | None,
        visit_ids: Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Hidden states (N, S K, D) of places, from their embeddings x; the types and visits are (N, S K)."""
        if visit_ids is None:
            size = segments.shape[2]
            parts = x.view(-1, size, x.shape[-1])
            mask = None if segments.mask is None else segments.mask.flatten(0, 1)
            places = token_positions(parts, mask, 0)  # (N S or 1, K)
            places = places.repeat(1, segments.shape[1]) if mask is None else places.view(x.shape[:2])
        else:
            places = visit_ids.clamp_max(self.config.max_position_embeddings - self.config.position_offset - 1)
            if token_type_ids is None:
                token_type_ids = visit_ids % self.config.type_vocab_size
        x = self.place(x, places, token_type_ids)
        for block in self.layers:
            x = block(x, segments, **kwargs)
        return BaseModelOutputWithPooling(last_hidden_state=x if self.norm is None else self.norm(x))


class EventInputs:
    """What all heads of Hi-BERT take beside the others' arguments."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        age_ids: Tensor | None = None,
        visit_ids: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ModelOutput:
        """What the head returns.

        Args:
            age_ids, visit_ids: like input_ids, see `ZooHibertModel`.
            kwargs: see the head for the rest.
        """
        if labels is not None:
            kwargs["labels"] = labels
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            age_ids=age_ids,
            visit_ids=visit_ids,
            **kwargs,
        )


class ZooHibertForMaskedLM(EventInputs, MaskedLMHead, ZooHibertPreTrainedModel):
    """The masked language model."""

    backbone_class = ZooHibertModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooHibertForSequenceClassification(EventInputs, SequenceClassificationHead, ZooHibertPreTrainedModel):
    """A label for the row, from its pooled segments."""

    backbone_class = ZooHibertModel


class ZooHibertForTokenClassification(EventInputs, TokenClassificationHead, ZooHibertPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooHibertModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooHibertForQuestionAnswering(EventInputs, QuestionAnsweringHead, ZooHibertPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooHibertModel
    backbone_arguments = {"add_pooling_layer": False}

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        age_ids: Tensor | None = None,
        visit_ids: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ModelOutput:
        """Start and end logits, each (B, T); see `EventInputs` and `QuestionAnsweringHead`."""
        return super().forward(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            age_ids=age_ids,
            visit_ids=visit_ids,
            start_positions=start_positions,
            end_positions=end_positions,
            **kwargs,
        )


class ZooHibertForMultipleChoice(EventInputs, MultipleChoiceHead, ZooHibertPreTrainedModel):
    """Which of several texts fits best."""

    backbone_class = ZooHibertModel

    def encode(self, *args: Any, **kwargs: Any) -> ModelOutput:
        """As other heads, with the events (B, choices, T) of each choice as a row."""
        for name in ("age_ids", "visit_ids"):
            if kwargs.get(name) is not None:
                kwargs[name] = kwargs[name].flatten(0, 1)
        return super().encode(*args, **kwargs)


@dataclass
class TwoViewsOutput(ModelOutput):
    """Of a model that learns from two views of each row.

    Args:
        loss: of predicting either view from the other.
        last_hidden_state: (B, T, D) of the whole row, outside training.
        hidden_states: of the whole row, one (B, T, D) a layer, and the embeddings.
    """

    loss: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class ZooHibertForPreTraining(ZooHibertPreTrainedModel):
    """Two views of each row, each predicted from the other, without labels (Li et al. 2021, section III).

    The target network follows by `update_target`, once a step of the optimiser. Until it is called for the first time
    the encoder is its own target, without gradient.
    """

    accepts_loss_kwargs = False  # the loss is a mean over rows

    def __init__(self, config: ZooHibertConfig) -> None:
        super().__init__(config)
        size = config.projection_size
        self.model = ZooHibertModel(config)
        self.projector, self.predictor = Projection(config.hidden_size, size), Projection(size, size)
        self.target = MomentumTarget(ZooHibertModel(config), Projection(config.hidden_size, size))
        self.post_init()

    def update_target(self, decay: float | None = None) -> None:
        """One step of the target network towards the encoder; `config.target_decay` of it stays by default."""
        self.target.follow([self.model, self.projector], self.config.target_decay if decay is None else decay)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> torch.nn.Module:
        """Resize the vocabularies of the encoder and of its target."""
        self.target.network[0].resize_token_embeddings(*args, **kwargs)
        self.target.requires_grad_(False)
        return super().resize_token_embeddings(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        age_ids: Tensor | None = None,
        visit_ids: Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TwoViewsOutput:
        """The loss, and outside training the hidden states of the whole row.

        Args:
            return_loss: whether to draw two views; outside training they are always the same.
            kwargs: see `ZooHibertModel`, as for the rest.
        """
        inputs = {"input_ids": input_ids, "token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds}
        inputs |= {"age_ids": age_ids, "visit_ids": visit_ids}
        outputs = None if self.training else self.model(attention_mask=attention_mask, **inputs, **kwargs)
        loss = None
        if return_loss:
            rows = input_ids if inputs_embeds is None else inputs_embeds[..., 0]
            mask = torch.ones_like(rows, dtype=torch.long) if attention_mask is None else attention_mask
            generator = None if self.training else torch.Generator(mask.device).manual_seed(0)
            views = [self.view(mask, generator) for _ in range(2)]
            online = [self.projector(self.model(attention_mask=v, **inputs).pooler_output) for v in views]
            predicted = [self.predictor(z) for z in online]
            if self.target.num_updates:
                model, projector = self.target.network
                with torch.no_grad():
                    targets = [projector(model(attention_mask=v, **inputs).pooler_output) for v in views]
            else:
                targets = online
            loss = view_loss(predicted[0], targets[1]) + view_loss(predicted[1], targets[0])
        return TwoViewsOutput(
            loss=loss,
            last_hidden_state=None if outputs is None else outputs.last_hidden_state,
            hidden_states=None if outputs is None else outputs.hidden_states,
        )

    def view(self, mask: Tensor, generator: torch.Generator | None) -> Tensor:
        """Real tokens (B, ...) of which a share is hidden; the first of each row always stays."""
        kept = torch.rand(mask.shape, device=mask.device, generator=generator) >= self.config.view_masking
        is_first = (mask.flatten(1).cumsum(1) == 1).view_as(mask)
        return mask * (kept | is_first)
