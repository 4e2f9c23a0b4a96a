"""Fusion-in-Decoder: passages are read one by one, and the decoder attends to all of them at once.

Izacard and Grave 2020, https://arxiv.org/abs/2007.01282; scores of passages after Izacard and Grave 2020,
https://arxiv.org/abs/2012.04584.

    H_p = encoder(question, passage p),  p = 1 .. n          no token sees another passage
    decoder(concat_p H_p)                                    cross-attention over n L tokens
    score(p) = mean over layers, heads and tokens j of p of  q_1 k_pj scale,   q_1 of the first token to be written

Reading grows with n, not with n^2, and no position tells passages apart: their order does not matter.

Shapes: B batch, n passages, L tokens a passage, T target tokens, D hidden size, H heads, K head size.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling, Seq2SeqModelOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..seq2seq.modeling_seq2seq import Seq2seqEncoder, ZooSeq2seqForConditionalGeneration, ZooSeq2seqModel
from .configuration_fid import ZooFidConfig


class PassageEncoder(Seq2seqEncoder):
    """The encoder, once for every passage."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Hidden states (B, n L, D) of all passages, one after the other.

        Args:
            input_ids: (B, n, L), or (B, L) for a single passage.
            attention_mask: of the same shape or (B, n L), 1 on real tokens; a passage may be all padding.
            inputs_embeds: with one axis more, instead of input_ids.
        """
        is_embedded = input_ids is None
        given = inputs_embeds if is_embedded else input_ids
        if given is not None and given.ndim == 3 + is_embedded:
            given = given.flatten(0, 1)
            num_rows, num_passages = (inputs_embeds if is_embedded else input_ids).shape[:2]
            if attention_mask is not None:
                attention_mask = attention_mask.reshape(given.shape[:2])
            inputs = {"inputs_embeds" if is_embedded else "input_ids": given}
            outputs = super().forward(**inputs, attention_mask=attention_mask, **kwargs)
            x = outputs.last_hidden_state
            outputs["last_hidden_state"] = x.reshape(num_rows, num_passages * x.shape[1], x.shape[2])
            return outputs
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )


class ZooFidModel(ZooSeq2seqModel):
    """Encoder of passages and decoder without a head."""

    config_class = ZooFidConfig
    config: ZooFidConfig
    encoder_class = PassageEncoder

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
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqModelOutput:
        """Hidden states (B, T, D) of the decoder's last layer.

        Args:
            input_ids: (B, n, L), or (B, L) for a single passage.
            attention_mask: of the same shape, 1 on real tokens; rows of fewer passages end in passages of padding.
            decoder_input_ids: (B, T); needed for more than one passage.
            encoder_outputs: what the encoder made of all passages, (B, n L, D), instead of them.
            inputs_embeds: (B, n, L, D) or (B, L, D), instead of input_ids.
            kwargs: see the encoder-decoder for the rest.
        """
        is_many = attention_mask is not None and attention_mask.ndim == 3
        is_many |= (
            input_ids is not None and input_ids.ndim == 3 or inputs_embeds is not None and inputs_embeds.ndim == 4
        )
        if is_many:
            if encoder_outputs is None:
                encoder_outputs = self.encoder(input_ids, attention_mask, inputs_embeds, **kwargs)
            attention_mask = None if attention_mask is None else attention_mask.flatten(1)
            input_ids = inputs_embeds = None
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **{**kwargs, "return_dict": True},
        )


class ZooFidForConditionalGeneration(ZooSeq2seqForConditionalGeneration, GenerationMixin):
    """The language model that answers from passages."""

    config_class = ZooFidConfig
    config: ZooFidConfig
    backbone_class = ZooFidModel

    def generate(self, *args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """As ever, with a mask (B, n, L) or (B, n L): transformers wants two axes."""
        if attention_mask is not None:
            attention_mask = attention_mask.flatten(1)
        return super().generate(*args, attention_mask=attention_mask, **kwargs)

    @torch.no_grad()
    def passage_scores(self, input_ids: Tensor, attention_mask: Tensor, **kwargs: Any) -> Tensor:
        """How much the first token of the answer attends to each passage (B, n), before softmax: a lesson for whoever
        retrieved them.

        Args:
            input_ids: (B, n, L).
            attention_mask: (B, n, L); passages of padding score minus infinity.
        """
        queries: list[Tensor] = []
        layers = [block.cross_attn for block in self.model.decoder.layers]
        hooks = [layer.q_proj.register_forward_hook(lambda _, __, q: queries.append(q)) for layer in layers]
        start = torch.full((len(input_ids), 1), self.config.decoder_start_token_id, device=input_ids.device)
        try:
            outputs = self.model(input_ids, attention_mask, start, use_cache=True, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        cache = outputs.past_key_values.cross_attention_cache
        total = 0
        for layer, query, stored in zip(layers, queries, cache.layers, strict=True):
            query = query.view(len(query), 1, -1, layer.head_dim).transpose(1, 2)  # (B, H, 1, K)
            total = total + (query @ stored.keys.mT).float().mean(1)[:, 0] * layer.scaling  # (B, n L)
        real = attention_mask.to(total.dtype)
        scores = (total.view(real.shape) * real).sum(-1) / real.sum(-1) / len(layers)
        return scores.masked_fill(real.sum(-1) == 0, -torch.inf)
