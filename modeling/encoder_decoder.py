"""What every encoder-decoder shares: the trunk of a decoder that attends to an encoder, the two joined, their heads.

The encoder owns the embeddings, and the decoder gets its tokens embedded: nothing stands twice in a checkpoint.

Shapes: B batch, S source tokens, T target tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
    Seq2SeqQuestionAnsweringModelOutput,
    Seq2SeqSequenceClassifierOutput,
)
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .base_model import embed_tokens
from .classifiers import ClassifierHead
from .heads import Head, LanguageModelHead
from .losses import classification_loss
from .masks import cross_mask, drop_useless_mask, packed_documents, token_positions


def shift_right(labels: Tensor, start_token_id: int, pad_token_id: int) -> Tensor:
    """Decoder inputs (B, T): the start token, then all labels but the last, padding where they are -100."""
    shifted = labels.roll(1, dims=-1)
    shifted[..., 0] = start_token_id
    return shifted.masked_fill(shifted == -100, pad_token_id)


class CrossDecoderTrunk:
    """Mixin for the decoder, `class XDecoder(CrossDecoderTrunk, ZooXPreTrainedModel)`; the subclass ends its
    `__init__` with `self.post_init()`.

    A Block is called as `block(x, mask, context, context_mask, position_bias, past_key_values=..., **arguments)`.
    """

    def __init__(
        self, config: PreTrainedConfig, block_class: type[nn.Module], num_blocks: int, norm: nn.Module | None = None
    ) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(block_class(config, i) for i in range(num_blocks))
        self.norm = norm  # None where blocks end with theirs
        self.gradient_checkpointing = False

    def place(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """x (B, T, D) with whatever the architecture adds to embeddings; position_ids (B or 1, T)."""
        return x

    def make_mask(
        self, x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The mask of self-attention as its backend wants it, and a bias on its scores that the mask does not hold."""
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x,
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=position_ids,
        )
        return mask, None

    def make_context_mask(
        self,
        x: Tensor,
        documents: Tensor | None,
        context: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
    ) -> Tensor | None:
        """The mask of cross-attention; packed target documents (B, T) see the source document of their number."""
        if documents is None:
            return cross_mask(self.config, x, context, attention_mask)
        context_documents = packed_documents(context, attention_mask, position_ids)
        if context_documents is None:
            raise ValueError("decoder_position_ids pack several documents in a row: position_ids must do so, too")
        return cross_mask(self.config, x, context, attention_mask, documents, context_documents)

    def finish(self, x: Tensor) -> Tensor:
        """x (B, T, D) after the last block -> the last hidden state (B, T, D)."""
        return x if self.norm is None else self.norm(x)

    @capture_outputs
    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        encoder_position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Hidden states (B, T, D) of the last layer.

        Args:
            inputs_embeds: (B, T, D).
            attention_mask: (B, past + T), 1 on real tokens.
            position_ids: (B, T); by default real tokens are counted. Where they restart at 0 in a row without
                padding, a packed document starts, which sees that of the same number in `encoder_position_ids`.
            encoder_hidden_states: (B, S, D), what the encoder made.
            encoder_attention_mask: (B, S), 1 on its real tokens.
            encoder_position_ids: (B, S), those of the encoder where its rows are packed.
            past_key_values: what earlier tokens left, and keys and values of the encoder's tokens.
            use_cache: whether to keep keys and values; by default as the config says, and not in training.
        """
        x = inputs_embeds
        attention_mask = drop_useless_mask(attention_mask)
        own_cache = getattr(past_key_values, "self_attention_cache", None)
        mask, position_bias = self.make_mask(x, attention_mask, position_ids, own_cache)
        context_mask = self.make_context_mask(
            x,
            None if own_cache is not None else packed_documents(x, attention_mask, position_ids),
            encoder_hidden_states,
            drop_useless_mask(encoder_attention_mask),
            encoder_position_ids,
        )
        if position_ids is None:
            position_ids = token_positions(x, attention_mask, 0 if own_cache is None else own_cache.get_seq_length())
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        x = self.place(x, position_ids)
        for block in self.layers:
            x = block(
                x,
                mask,
                encoder_hidden_states,
                context_mask,
                position_bias,
                past_key_values=past_key_values,
                **kwargs,
            )
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.finish(x), past_key_values=past_key_values if use_cache else None
        )


class EncoderDecoderTrunk:
    """Mixin for `class ZooXModel(EncoderDecoderTrunk, ZooXPreTrainedModel)`, which has `encoder` and `decoder`."""

    def get_input_embeddings(self) -> nn.Embedding:
        """The embeddings of both sides."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, new_embeddings: nn.Embedding) -> None:
        """Replace them, when the vocabulary is resized."""
        self.encoder.embed_tokens = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: ModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        decoder_position_ids: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqModelOutput:
        """Hidden states (B, T, D) of the decoder's last layer.

        Args:
            input_ids: (B, S).
            attention_mask: (B, S), 1 on real tokens; padding on either side gives the answer of none.
            decoder_input_ids: (B, T). Without any the decoder gets what the encoder got, one step later.
            decoder_attention_mask: (B, past + T), 1 on real tokens.
            encoder_outputs: what the encoder made of the source, instead of the source.
            past_key_values: what earlier target tokens left.
            inputs_embeds, decoder_inputs_embeds: (B, S, D) and (B, T, D), instead of ids.
            position_ids, decoder_position_ids: (B, S) and (B, T); where both restart at 0 in rows without padding,
                packed pairs start that see nothing of the ones before.
            use_cache: whether to keep keys and values; by default as the config says, and not in training.
        """
        if encoder_outputs is None:
            source = embed_tokens(self.get_input_embeddings(), input_ids, inputs_embeds)
            encoder_outputs = self.encoder(
                inputs_embeds=source, attention_mask=attention_mask, position_ids=position_ids, **kwargs
            )
        elif not isinstance(encoder_outputs, ModelOutput):
            names = ("last_hidden_state", "hidden_states", "attentions")
            encoder_outputs = BaseModelOutput(**dict(zip(names, encoder_outputs, strict=False)))
        context = encoder_outputs.last_hidden_state

        if decoder_input_ids is None and decoder_inputs_embeds is None:
            if input_ids is None and inputs_embeds is None:
                raise ValueError("give decoder_input_ids, decoder_inputs_embeds or labels beside encoder_outputs")
            source = embed_tokens(self.get_input_embeddings(), input_ids, inputs_embeds)
            decoder_inputs_embeds = self.one_step_later(source, attention_mask, position_ids)
            decoder_attention_mask, decoder_position_ids = attention_mask, position_ids
        else:
            decoder_inputs_embeds = embed_tokens(self.get_input_embeddings(), decoder_input_ids, decoder_inputs_embeds)
        outputs = self.decoder(
            inputs_embeds=decoder_inputs_embeds,
            attention_mask=decoder_attention_mask,
            position_ids=decoder_position_ids,
            encoder_hidden_states=context,
            encoder_attention_mask=attention_mask,
            encoder_position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.hidden_states,
            decoder_attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=context,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )

    def one_step_later(self, x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None) -> Tensor:
        """Embeddings x (B, T, D) moved right by one; where a document starts stands the start token's."""
        start = torch.full((1, 1), self.config.decoder_start_token_id, device=x.device)
        if position_ids is None:
            position_ids = token_positions(x, attention_mask, 0)
        return torch.where(position_ids[..., None] == 0, self.get_input_embeddings()(start), x.roll(1, dims=1))

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A complete, valid batch: 2 rows of 8 source tokens and 8 target tokens."""
        inputs = super().dummy_inputs
        return {**inputs, "decoder_input_ids": inputs["input_ids"].flip(-1)}


class Seq2SeqLMHead(LanguageModelHead):
    """Prediction of the target, token by token."""

    _tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.loss_type = "ForMaskedLM"  # labels are the targets themselves, what is shifted is the decoder's input
        self.post_init()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """What the decoder reads while it learns labels (B, T): the collators of transformers ask for it."""
        return shift_right(labels, self.config.decoder_start_token_id, self.config.pad_token_id)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: ModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqLMOutput:
        """Logits (B, T, vocab_size) and, with labels, the mean cross-entropy of the target.

        Args:
            labels: (B, T), the target, padded on the right with -100. Without decoder inputs the decoder reads them
                shifted right by one.
            logits_to_keep: how many of the last positions to score, 0 for all; or their indices.
            kwargs: see the trunk for the rest.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(self.before_scores(outputs.last_hidden_state[:, kept]))
        loss = None
        if labels is not None:
            labels = labels.contiguous()  # transformers takes a view of them
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )

    def before_scores(self, x: Tensor) -> Tensor:
        """x (B, T, D) as the scores want it, for instance scaled."""
        return x

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """That of the trunk."""
        return self.model.dummy_inputs


def _sides(outputs: Seq2SeqModelOutput) -> dict[str, Any]:
    """What the outputs of heads share with that of the trunk."""
    return {name: value for name, value in outputs.items() if name != "last_hidden_state"}


class Seq2SeqSequenceClassificationHead(ClassifierHead):
    """A label for the row: the decoder reads it once more and speaks at its last token (BART, T5)."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqSequenceClassifierOutput:
        """Logits (B, num_labels).

        Args:
            attention_mask: (B, S); padded rows need it, or `config.pad_token_id`.
            labels: (B) or (B, num_labels), see `classification_loss`.
            kwargs: see the trunk for the rest.
        """
        if attention_mask is None and input_ids is not None and self.config.pad_token_id is not None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        outputs = self.model(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, use_cache=False, **kwargs
        )
        logits = self.score(self.dropout(self.summary(outputs, attention_mask)))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch)
        return Seq2SeqSequenceClassifierOutput(loss=loss, logits=logits, **_sides(outputs))


class Seq2SeqQuestionAnsweringHead(Head):
    """Where the answer starts and ends in the row, from a decoder that reads it once more."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqQuestionAnsweringModelOutput:
        """Start and end logits, each (B, S).

        Args:
            start_positions, end_positions: (B); one beyond the row is ignored.
            kwargs: see the trunk for the rest.
        """
        outputs = self.model(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, use_cache=False, **kwargs
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions, **kwargs)
        return Seq2SeqQuestionAnsweringModelOutput(
            loss=loss, start_logits=start_logits, end_logits=end_logits, **_sides(outputs)
        )
