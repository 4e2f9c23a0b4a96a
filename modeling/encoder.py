"""The trunk of every encoder of tokens: embeddings, blocks that see both ways, an optional final norm.

A Block is called as `block(x, mask, **attention arguments)`, unless the architecture has its own `run`.

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from .base_model import embed_tokens, embedding_size
from .masks import drop_useless_mask, encoder_mask, packed_positions, token_positions


class EncoderTrunk:
    """Mixin for `class ZooXModel(EncoderTrunk, ZooXPreTrainedModel)`; the subclass ends its `__init__` with
    `self.post_init()`."""

    def __init__(
        self,
        config: PreTrainedConfig,
        block_class: type[nn.Module],
        norm: nn.Module | None = None,
        pooler: nn.Module | None = None,
    ) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, embedding_size(config))
        self.layers = nn.ModuleList(block_class(config, i) for i in range(config.num_hidden_layers))
        self.norm = norm  # None where blocks end with theirs
        self.pooler = pooler
        self.gradient_checkpointing = False

    def place(self, x: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """x as the blocks want it (B, T, D), with what the architecture adds; position_ids, token_type_ids (B, T)."""
        return x

    def run(
        self,
        x: Tensor,
        mask: Tensor | None,
        position_ids: Tensor,
        padding: Tensor | None,
        packed: Tensor | None,
        **kwargs: Any,
    ) -> Tensor:
        """x (B, T, D) through all blocks.

        Args:
            mask: as the attention backend wants it.
            position_ids: (B or 1, T), the place of each token in its document.
            padding: (B, T) with 1 on real tokens; None where all are.
            packed: (B, T), the positions that tell packed documents apart; None where a row is one.
        """
        for block in self.layers:
            x = block(x, mask, **kwargs)
        return x

    def make_mask(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        input_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the blocks' attention wants to know of padding and packing; by default the set backend's mask.

        Args:
            x: embedded tokens (B, T, D).
            attention_mask: (B, T) with 1 on real tokens; None where all are.
            position_ids: (B, T) as the caller gave them: where they restart at 0, a packed document starts.
            input_ids: (B, T), if the caller gave them.
            kwargs: what else the caller gave.
        """
        return encoder_mask(self.config, x, attention_mask, position_ids)

    def finish(self, x: Tensor) -> Tensor:
        """x (B, T, D) after the last block -> the last hidden state (B, T, D)."""
        return x if self.norm is None else self.norm(x)

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Hidden states (B, T, D) of the last layer, and from the pooler one vector (B, D) a row.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 1 on real tokens; padding on either side gives the answer of none.
            token_type_ids: (B, T), which of two sentences a token is of; the first without it.
            position_ids: (B, T); by default real tokens are counted.
            inputs_embeds: (B, T, D), instead of input_ids.
        """
        x = embed_tokens(self.embed_tokens, input_ids, inputs_embeds)
        attention_mask = drop_useless_mask(attention_mask)
        mask = self.make_mask(x, attention_mask, position_ids, input_ids, **kwargs)
        packed = packed_positions(position_ids, attention_mask, has_past=False)
        if position_ids is None:
            position_ids = token_positions(x, attention_mask, 0)
        x = self.place(x, position_ids, token_type_ids)
        x = self.run(x, mask, position_ids, attention_mask, packed, **kwargs)
        x = self.finish(x)
        return BaseModelOutputWithPooling(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x, attention_mask),
        )
