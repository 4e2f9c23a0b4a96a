"""Configuration of Longformer."""

from huggingface_hub.dataclasses import strict

from ..bert_config import BertLikeConfig


@strict
class ZooLongformerConfig(BertLikeConfig):
    """The fields of BERT and those of windows and global tokens; the defaults are longformer-base-4096's.

    Args:
        attention_window: how many neighbours a token sees, half of them to each side; one even number for all layers
            or one for each.
        attention_dilation: the gap between neighbours that are seen; one number for all layers or one for each, and
            for a layer one number for all heads or one for each.
        global_positions: positions whose tokens are global in every text, 0 being the first.
        global_token_ids: tokens that are global wherever they stand.
        sep_token_id: what ends a question, whose tokens are global in question answering.
    """

    model_type = "zoo_longformer"

    vocab_size: int = 50265
    attention_window: int | list[int] = 512
    attention_dilation: int | list[int | list[int]] = 1
    global_positions: list[int] | None = None
    global_token_ids: list[int] | None = None
    max_position_embeddings: int = 4098
    position_offset: int = 2
    type_vocab_size: int = 1
    norm_eps: float = 1e-5
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    sep_token_id: int | None = 2

    def window_of(self, layer_idx: int) -> int:
        """Neighbours that a token of a layer sees."""
        window = self.attention_window
        return window[layer_idx] if isinstance(window, list) else window

    def dilations_of(self, layer_idx: int) -> list[int]:
        """The gap between neighbours for each head of a layer."""
        dilation = self.attention_dilation
        dilation = dilation[layer_idx] if isinstance(dilation, list) else dilation
        return dilation if isinstance(dilation, list) else [dilation] * self.num_attention_heads

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        super().validate_architecture()
        for field in ("attention_window", "attention_dilation"):
            value = getattr(self, field)
            if isinstance(value, list) and len(value) != self.num_hidden_layers:
                raise ValueError(
                    f"{field} must be one value or one for each of num_hidden_layers={self.num_hidden_layers} layers, "
                    f"got {len(value)}"
                )
        for i in range(self.num_hidden_layers):
            window, dilations = self.window_of(i), self.dilations_of(i)
            if window < 2 or window % 2:
                raise ValueError(f"attention_window must be even and at least 2, half to each side, got {window}")
            if len(dilations) != self.num_attention_heads or min(dilations) < 1:
                raise ValueError(
                    f"attention_dilation of a layer must be at least 1 for each of num_attention_heads="
                    f"{self.num_attention_heads} heads, got {dilations}"
                )
        if min(self.global_positions or [0]) < 0:
            raise ValueError(f"global_positions are counted from 0, got {self.global_positions}")
