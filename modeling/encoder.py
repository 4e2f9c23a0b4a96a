"""The trunk of every encoder of tokens: embeddings, blocks that see both ways, an optional final norm.

A Block is called as `block(x, mask, **attention arguments)`; an architecture may give it more beside the mask.

Shapes: B batch, T tokens, D hidden size.
"""

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import capture_outputs

from .base_model import embed_tokens
from .masks import drop_useless_mask, encoder_mask, token_positions


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
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(block_class(config, i) for i in range(config.num_hidden_layers))
        self.norm = norm  # None where blocks end with theirs
        self.pooler = pooler
        self.gradient_checkpointing = False

    def place(self, x: Tensor, position_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """x (B, T, D) with whatever the architecture adds to embeddings; position_ids and token_type_ids (B, T)."""
        return x

    def make_masks(
        self, x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """What blocks get beside x: the mask of `encoder_mask`."""
        return (encoder_mask(self.config, x, attention_mask, position_ids),)

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
        masks = self.make_masks(x, attention_mask, position_ids)
        if position_ids is None:
            position_ids = token_positions(x, attention_mask, 0)
        x = self.place(x, position_ids, token_type_ids)
        for block in self.layers:
            x = block(x, *masks, **kwargs)
        x = self.finish(x)
        return BaseModelOutputWithPooling(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x, attention_mask),
        )
