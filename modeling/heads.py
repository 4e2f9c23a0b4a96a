"""Heads that speak, and what all heads share: one mixin a task, so that an architecture's head is two lines.

    class ZooXForCausalLM(CausalLMHead, ZooXPreTrainedModel, GenerationMixin):
        backbone_class = ZooXModel

A mixin holds `backbone_class` and does not build the trunk through AutoModel, which refuses code from the Hub inside
another model; and `GenerationMixin` stays a direct base, because that is where transformers looks for it.

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast, MaskedLMOutput, NextSentencePredictorOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .base_model import embedding_size
from .layers.mlp import activation
from .losses import l2_wrap, z_loss
from .outputs import PreTrainingOutput, RoutedCausalLMOutput


class Head:
    """What all heads share: the trunk, as `self.model`."""

    backbone_class: type[nn.Module]
    backbone_arguments: dict[str, Any] = {}

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.model = self.backbone_class(self.config, **self.backbone_arguments)

    def encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        **kwargs: Any,
    ) -> ModelOutput:
        """The trunk's output, with `token_type_ids` left out where there are none: decoders know nothing of them."""
        if token_type_ids is not None:
            kwargs["token_type_ids"] = token_type_ids
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )


class LanguageModelHead(Head):
    """Scores over the vocabulary, on weights that may be the embedding's own."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(embedding_size(config), config.vocab_size, bias=False)

    def get_output_embeddings(self) -> nn.Linear:
        """The last layer, whose rows are the vocabulary."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the last layer, when the vocabulary is resized."""
        self.lm_head = new_embeddings


class CausalLMHead(LanguageModelHead):
    """Next-token prediction."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast | RoutedCausalLMOutput:
        """Logits (B, T, vocab_size) and, with labels, the mean cross-entropy of the next token.

        Args:
            labels: (B, T), usually input_ids; -100 where nothing is to be learnt. Shifted here, not by the caller.
            logits_to_keep: how many of the last positions to score, 0 for all; or their indices.
            kwargs: see the trunk for the rest.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(self.before_scores(outputs.last_hidden_state[:, kept]))
        logits = logits * getattr(self.config, "logit_multiplier", 1.0)  # muP
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
            if coefficient := getattr(self.config, "z_loss_coefficient", 0.0):
                loss = loss + z_loss(logits, labels, coefficient)
            if coefficient := getattr(self.config, "l2_wrap_coefficient", 0.0):
                loss = loss + l2_wrap(logits, labels, coefficient, kwargs.get("num_items_in_batch"))
            loss = self.complete_loss(
                loss,
                outputs,
                labels[:, 1:],
                kwargs.get("num_items_in_batch"),
                input_ids=input_ids,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
            )
        return self.report(loss, logits, outputs)

    def report(self, loss: Tensor | None, logits: Tensor, outputs: ModelOutput) -> CausalLMOutputWithPast:
        """The output of the head, from that of the trunk."""
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def before_scores(self, x: Tensor) -> Tensor:
        """x (B, T, D) in the size of the embedding; as it is, unless the architecture has embeddings of another."""
        return x


class MaskedTransform(nn.Module):
    """BERT's step before the vocabulary: LayerNorm(act(W x))."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, embedding_size(config))
        self.act_fn = activation(config.hidden_act)
        self.norm = nn.LayerNorm(embedding_size(config), eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> y (B, T, D), or in the size of the embedding."""
        return self.norm(self.act_fn(self.dense(x)))


class MaskedLMHead(LanguageModelHead):
    """Prediction of masked tokens from both sides."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.transform = MaskedTransform(config)
        self.lm_head = nn.Linear(embedding_size(config), config.vocab_size)  # BERT scores with a bias
        self.post_init()

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
    ) -> MaskedLMOutput:
        """Logits (B, T, vocab_size) and, with labels, the mean cross-entropy of the masked tokens.

        Args:
            labels: (B, T), the original token where one was masked and -100 elsewhere.
            kwargs: see the trunk for the rest.
        """
        outputs = self.encode(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits = self.lm_head(self.transform(outputs.last_hidden_state))
        return MaskedLMOutput(
            loss=self._loss(logits, labels, **kwargs),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _loss(self, logits: Tensor, labels: Tensor | None, **kwargs: Any) -> Tensor | None:
        if labels is None:
            return None
        return self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)


class PreTrainingHead(MaskedLMHead):
    """BERT's two lessons at once: masked tokens, and whether the second sentence follows the first."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> PreTrainingOutput:
        """Logits of both lessons; the loss is the sum over those whose labels are given.

        Args:
            labels: (B, T), the original token where one was masked and -100 elsewhere.
            next_sentence_label: (B), 0 where the second sentence follows the first, 1 where it is another's.
            kwargs: see the trunk for the rest.
        """
        outputs = self.encode(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits = self.lm_head(self.transform(outputs.last_hidden_state))
        follows = self.seq_relationship(outputs.pooler_output)
        losses = []
        if labels is not None:
            losses.append(self._loss(logits, labels, **kwargs))
        if next_sentence_label is not None:
            losses.append(F.cross_entropy(follows.float(), next_sentence_label.view(-1)))
        return PreTrainingOutput(
            loss=sum(losses) if losses else None,
            prediction_logits=logits,
            seq_relationship_logits=follows,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class NextSentenceHead(Head):
    """Whether the second sentence follows the first."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)
        self.post_init()

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
    ) -> NextSentencePredictorOutput:
        """Logits (B, 2): class 0 where it follows.

        Args:
            labels: (B), 0 or 1.
            kwargs: see the trunk for the rest.
        """
        outputs = self.encode(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **kwargs)
        logits = self.seq_relationship(outputs.pooler_output)
        loss = None if labels is None else F.cross_entropy(logits.float(), labels.view(-1))
        return NextSentencePredictorOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
