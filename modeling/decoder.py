"""The trunk of every decoder: embeddings, blocks, final norm, and what they need of masks, positions and caches.

A decoder family is its config, its Block, and two-line classes. A Block is called as
`block(x, mask, *carried, past_key_values=..., packed_positions=..., **attention arguments)`, with the mask of its kind
in `config.layer_types`. It returns x, or a tuple: x, then what the blocks after it get as `carried` (as many tensors
as `num_carried` of the trunk says), then what `output` makes something of, such as the losses of a router.

Shapes: B batch, T tokens, D hidden size.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from .base_model import embed_tokens, embedding_size
from .cache import StateCache, new_cache
from .masks import decoder_masks, drop_useless_mask, packed_positions, seen_tokens, token_positions


class DecoderTrunk:
    """Mixin for `class ZooXModel(DecoderTrunk, ZooXPreTrainedModel)`; the subclass ends its `__init__` with
    `self.post_init()`."""

    has_local_attention = False  # whether layers with a sliding window are `LocalAttention`
    num_carried = 0  # tensors that a block hands on to the next one beside x

    def __init__(
        self,
        config: PreTrainedConfig,
        block_class: type[nn.Module],
        norm: nn.Module | None,
        num_blocks: int | None = None,
    ) -> None:
        super().__init__(config)
        self.embed_tokens = self.make_embeddings(config)
        self.layers = nn.ModuleList(block_class(config, i) for i in range(num_blocks or config.num_hidden_layers))
        self.norm = norm  # None where blocks end with theirs
        self.gradient_checkpointing = False

    def make_embeddings(self, config: PreTrainedConfig) -> nn.Module:
        """What makes x (B, T, D) of what comes in: a table of tokens."""
        return nn.Embedding(config.vocab_size, embedding_size(config))

    def blocks(self) -> Iterable[Callable[..., Tensor]]:
        """What is applied one after the other, as many as `config.layer_types`; some may share weights."""
        return self.layers

    def place(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """x (B, T, D) with whatever the architecture adds to embeddings; position_ids (B or 1, T)."""
        return x

    def make_masks(
        self,
        x: Tensor,
        attention_mask: Tensor | dict[str, Tensor] | None,
        past_key_values: Cache | None,
        position_ids: Tensor | None,
    ) -> dict[str, Tensor | None]:
        """The mask of each kind of layer in `config.layer_types`; see `decoder_masks`."""
        return decoder_masks(self.config, x, attention_mask, past_key_values, position_ids, self.has_local_attention)

    def make_cache(self) -> Cache:
        """An empty cache."""
        return new_cache(self.config)

    def attention_arguments(
        self, x: Tensor, position_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None
    ) -> dict[str, Any]:
        """What all attention layers share, computed once: cos and sin, or a bias on the scores."""
        return {}

    def output(
        self, x: Tensor, past_key_values: Cache | None, side_outputs: list[tuple[Tensor | None, ...]]
    ) -> BaseModelOutputWithPast:
        """The trunk's output, from the last hidden state (B, T, D) and what blocks returned beside theirs."""
        return BaseModelOutputWithPast(last_hidden_state=x, past_key_values=past_key_values)

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        carried: tuple[Tensor | None, ...] = (),
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Hidden states (B, T, D) of the last layer, normalised.

        Args:
            input_ids: (B, T).
            attention_mask: (B, past + T), 1 on real tokens; padding on either side gives the answer of none.
            position_ids: (B, T); by default real tokens are counted. Where they restart at 0 in a row without
                padding, a packed document starts that sees nothing of the ones before.
            past_key_values: what earlier tokens left.
            inputs_embeds: (B, T, D), instead of input_ids.
            use_cache: whether to keep keys, values and states; by default as the config says, and not in training.
            carried: what the first block gets beside x, from a trunk that has something to carry.
        """
        x = embed_tokens(self.embed_tokens, input_ids, inputs_embeds)
        attention_mask = drop_useless_mask(attention_mask)
        masks = self.make_masks(x, attention_mask, past_key_values, position_ids)
        packed = packed_positions(position_ids, attention_mask, has_past=past_key_values is not None)
        if position_ids is None:
            num_seen = seen_tokens(past_key_values, self.config.layer_types)
            position_ids = token_positions(x, attention_mask, num_seen)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = self.make_cache()

        shared = self.attention_arguments(x, position_ids, attention_mask, past_key_values)
        x = self.place(x, position_ids)
        dtype = x.dtype  # some blocks keep the residual stream in float32
        side_outputs = []
        for kind, block in zip(self.config.layer_types, self.blocks(), strict=True):
            x = block(
                x,
                masks[kind],
                *carried,
                past_key_values=past_key_values,
                packed_positions=packed,
                position_ids=position_ids,
                **shared,
                **kwargs,
            )
            if isinstance(x, tuple):
                x, *beside = x
                carried = beside[: self.num_carried]
                if len(beside) > self.num_carried:
                    side_outputs.append(tuple(beside[self.num_carried :]))
        if isinstance(past_key_values, StateCache):
            past_key_values.num_seen += x.shape[1]
        x = x if self.norm is None else self.norm(x.to(dtype))
        return self.output(x, past_key_values if use_cache else None, side_outputs)
