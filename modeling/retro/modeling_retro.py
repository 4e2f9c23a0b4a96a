"""RETRO: a decoder that attends to what was retrieved for the chunks of its text.

Borgeaud et al. 2021, https://arxiv.org/abs/2112.04426. The text is cut into chunks C_1, C_2, ... of m tokens, and each
has k neighbours of r tokens, found by what they look like and continued by what came after them:

    H <- H + A(N1(H))                         every layer
    E_u = Encoder(neighbours of C_u, H of C_u)  in the first layer that attends to neighbours
    h_t <- h_t + CA(N2(h_t), E_u)             in these layers, t in u m - 1 ... u m + m - 2 (from 0): causal
    H <- H + F(N3(H))                         every layer

The encoder sees both ways, and attends to the activations of the chunk. Its output is made once a chunk, and its keys
and values are kept in the cache until the next chunk is complete.

Shapes: B batch, T tokens, D hidden size, N chunks, k neighbours, r tokens of a neighbour, S = k r, m tokens a chunk, E
encoder's hidden size, G groups of tokens (see layers/chunk_groups.py), H heads, K head size.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel, embed_tokens
from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..heads import CausalLMHead
from ..layers.attention import Attention
from ..layers.chunk_groups import ChunkGroups
from ..layers.chunked_cross_attention import ChunkedCrossAttention
from ..layers.norm import NORMS
from ..llm.modeling_llm import LlmBlock, LlmTrunk
from ..masks import drop_useless_mask, seen_tokens, token_positions
from .cache_retro import RetrievalState, RetroCache
from .configuration_retro import ZooRetroConfig
from .retrieval_retro import NeighbourEncoder, Retrieval, Retriever, check_inputs, find_neighbours, neighbours_of


class RetroBlock(LlmBlock):
    """The dense decoder's block, with attention to neighbours between its two branches in some layers."""

    def __init__(self, config: ZooRetroConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.is_first_cross = layer_idx == min(config.cross_layers)
        self.cross_attn = None
        if layer_idx in config.cross_layers:
            self.cross_norm = NORMS[config.norm](config.hidden_size, eps=config.norm_eps)
            self.cross_attn = ChunkedCrossAttention(
                config.hidden_size,
                config.encoder_hidden_size,
                config.num_attention_heads,
                config.head_dim,
                config.attention_dropout,
            )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        encoded: Tensor | None = None,
        past_key_values: Cache | None = None,
        retrieval: Retrieval | None = None,
        **kwargs: Any,
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """x (B, T, D) -> (B, T, D), and from the first layer that attends to neighbours what later ones attend to.

        Args:
            encoded: the neighbours (N, S, E).
            retrieval: which of them each token sees; None without any.
        """
        attend = self.attention_branch(mask, past_key_values, **kwargs)
        if retrieval is None or self.cross_attn is None:
            return self.add_branches(x, attend, self.feed_forward)

        def retrieve(x: Tensor) -> Tensor:
            nonlocal encoded
            if self.is_first_cross:
                encoded = retrieval.encode(x)
            return x + self.drop(retrieval.attend(self.cross_norm(x), encoded, self.cross_attn, self.layer_idx))

        x = self.add_branches(x, attend, self.feed_forward, retrieve)
        return (x, encoded) if self.is_first_cross else x


class ZooRetroPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooRetroConfig
    config: ZooRetroConfig
    _no_split_modules = ["RetroBlock", "NeighbourBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": RetroBlock, "attentions": Attention}

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two rows of two chunks (of 8 tokens, where chunks are short) with two neighbours for each chunk."""
        generator = torch.Generator().manual_seed(0)
        size, vocab = self.config.chunk_size, self.config.vocab_size
        ids = torch.randint(0, vocab, (2, max(8, 2 * size)), generator=generator)
        # ids that are left when a vocabulary is cut by less than half
        neighbours = torch.randint(0, max(1, vocab // 2), (2, ids.shape[1] // size, 2, 2 * size), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "neighbour_ids": neighbours}


class ZooRetroModel(LlmTrunk, ZooRetroPreTrainedModel):
    """The decoder without a head."""

    block_class = RetroBlock
    num_carried = 1

    def __init__(self, config: ZooRetroConfig) -> None:
        super().__init__(config)
        self.neighbour_encoder = NeighbourEncoder(config)
        self.post_init()

    def make_cache(self) -> RetroCache:
        """An empty cache."""
        return RetroCache(config=self.config)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        neighbour_ids: Tensor | None = None,
        neighbour_mask: Tensor | None = None,
        retriever: Retriever | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Hidden states (B, T, D) of the last layer, normalised; without neighbours those of the dense decoder.

        Args:
            neighbour_ids: (B, l, k, r), k neighbours for each complete chunk of a row, from its first on (those in a
                cache too); chunks count real tokens, and start anew in each document of a packed row. -1 stands where
                a neighbour is shorter than r, or where there is none; chunks after the l-th have none.
            neighbour_mask: (B, l, k, r), 1 on real tokens, in place of -1 where there are none.
            retriever: finds them instead: tokens of chunks (n, m) -> neighbours (n, k, r), as above.
            past_key_values: what earlier tokens left. With neighbours the output's takes the place of an empty one.
            kwargs: see `DecoderTrunk.forward`, as for the rest.

        Raises:
            ValueError: neighbours of another shape, both ways to give them, or a cache that cannot hold them.
        """
        past = past_key_values.state if isinstance(past_key_values, RetroCache) else None
        retrieval = None
        if neighbour_ids is not None or retriever is not None or past is not None:
            if type(past_key_values) is DynamicCache and not past_key_values.get_seq_length():
                past_key_values = self.make_cache()  # in place of the empty one that `generate` brings
            check_inputs(self.config, past_key_values, past, input_ids, neighbour_ids, neighbour_mask, retriever)
            groups = self._groups(input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, past)
            chunks, chunk_ids = None, None
            if input_ids is not None and (past is None or past.ids is not None):
                chunks, chunk_ids = groups.chunks(input_ids, None if past is None else past.ids)
            if retriever is not None:
                found = find_neighbours(retriever, chunks)
            else:
                found = neighbours_of(groups, past, neighbour_ids, neighbour_mask)
            retrieval = Retrieval(groups, chunk_ids, found, self._encode, past, self.config.head_dim)
            kwargs["retrieval"] = retrieval
        outputs = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        if retrieval is not None and isinstance(outputs.past_key_values, RetroCache):
            outputs.past_key_values.state = retrieval.state
        return outputs

    def _groups(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past_key_values: Cache | None,
        inputs_embeds: Tensor | None,
        past: RetrievalState | None,
    ) -> ChunkGroups:
        x = input_ids if inputs_embeds is None else inputs_embeds
        attention_mask = drop_useless_mask(attention_mask)
        if position_ids is None:
            num_seen = seen_tokens(past_key_values, self.config.layer_types)
            position_ids = token_positions(x, attention_mask, num_seen)
        real = None if attention_mask is None else attention_mask[:, -x.shape[1] :].bool()
        return ChunkGroups(position_ids.expand(x.shape[:2]), real, self.config.chunk_size, past is not None)

    def _encode(self, neighbours: Tensor, mask: Tensor | None, chunk: Tensor) -> Tensor:
        x = embed_tokens(self.embed_tokens, neighbours.flatten(1), None)
        return self.neighbour_encoder(x.unflatten(1, neighbours.shape[1:]), mask, chunk)


class ZooRetroForCausalLM(CausalLMHead, ZooRetroPreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooRetroModel

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
        neighbour_ids: Tensor | None = None,
        neighbour_mask: Tensor | None = None,
        retriever: Retriever | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, vocab_size) and, with labels, the mean cross-entropy of the next token.

        Args:
            neighbour_ids, neighbour_mask, retriever: see `ZooRetroModel.forward`; `generate` takes them too, and asks
                the retriever once a chunk.
            kwargs: see `CausalLMHead.forward`, as for the rest.
        """
        return super().forward(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            labels,
            use_cache,
            logits_to_keep,
            neighbour_ids=neighbour_ids,
            neighbour_mask=neighbour_mask,
            retriever=retriever,
            return_dict=True,
            **kwargs,
        )


class ZooRetroForSequenceClassification(SequenceClassificationHead, ZooRetroPreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooRetroModel
    score_has_bias = False


class ZooRetroForTokenClassification(TokenClassificationHead, ZooRetroPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooRetroModel


class ZooRetroForQuestionAnswering(QuestionAnsweringHead, ZooRetroPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooRetroModel
