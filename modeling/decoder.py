"""The trunk of every decoder: embeddings, blocks, final norm, and what they need of masks, positions and caches.

A decoder family is its config, its Block, and two-line classes. A Block is called as
`block(x, mask, *carried, past_key_values=..., packed_positions=..., **attention arguments)` and has a `layer_type`.
It returns x, or a tuple of x and what the blocks after it get as `carried`: tensors that a layer hands on beside x.

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from .base_model import embed_tokens
from .cache import StateCache, new_cache
from .masks import decoder_masks, drop_useless_mask, packed_positions, seen_tokens, token_positions


class DecoderTrunk:
    """Mixin for `class ZooXModel(DecoderTrunk, ZooXPreTrainedModel)`; the subclass ends its `__init__` with
    `self.post_init()`."""

    def __init__(self, config: PreTrainedConfig, block_class: type[nn.Module], norm: nn.Module | None) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(block_class(config, i) for i in range(config.num_hidden_layers))
        self.norm = norm  # None where blocks end with theirs
        self.gradient_checkpointing = False

    def place(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """x (B, T, D) with whatever the architecture adds to embeddings; position_ids (B or 1, T)."""
        return x

    def attention_arguments(
        self, x: Tensor, position_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None
    ) -> dict[str, Any]:
        """What all attention layers share, computed once: cos and sin, or a bias on the scores."""
        return {}

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
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
        """
        x = embed_tokens(self.embed_tokens, input_ids, inputs_embeds)
        attention_mask = drop_useless_mask(attention_mask)
        masks = decoder_masks(self.config, x, attention_mask, past_key_values, position_ids)
        packed = packed_positions(position_ids, attention_mask, has_past=past_key_values is not None)
        if position_ids is None:
            num_seen = seen_tokens(past_key_values, self.config.layer_types)
            position_ids = token_positions(x, attention_mask, num_seen)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = new_cache(self.config)

        shared = self.attention_arguments(x, position_ids, attention_mask, past_key_values)
        x = self.place(x, position_ids)
        dtype = x.dtype  # some blocks keep the residual stream in float32
        carried = ()
        for block in self.layers:
            x = block(
                x,
                masks[block.layer_type],
                *carried,
                past_key_values=past_key_values,
                packed_positions=packed,
                position_ids=position_ids,
                **shared,
                **kwargs,
            )
            if isinstance(x, tuple):
                x, *carried = x
        if isinstance(past_key_values, StateCache):
            past_key_values.num_seen += x.shape[1]
        return BaseModelOutputWithPast(
            last_hidden_state=x if self.norm is None else self.norm(x.to(dtype)),
            past_key_values=past_key_values if use_cache else None,
        )
