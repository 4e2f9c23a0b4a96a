"""Configuration that BERT and the encoders after it share."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN

from .base_config import ZooConfig


@strict
class BertLikeConfig(ZooConfig):
    """Sizes of a BERT; the defaults are those of bert-base-uncased.

    Args:
        type_vocab_size: kinds of sentences in a row (2: the first and the second of a pair).
        max_position_embeddings: rows of the table of positions.
        position_offset: the row of position 0; the first two of RoBERTa's table stand for no position.
        block_layout: "post" norm as published, or "pre" norm, which trains without warm-up.
        classifier_dropout: before the score of a classifier; hidden_dropout without it.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 512
    position_offset: int = 0
    type_vocab_size: int = 2
    block_layout: Literal["post", "pre"] = "post"
    hidden_act: str = "gelu"
    norm_eps: float = 1e-12
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs) -> None:
        if self.classifier_dropout is None:
            self.classifier_dropout = self.hidden_dropout
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        self.require_multiple("hidden_size", of="num_attention_heads")
        if not 0 <= self.position_offset < self.max_position_embeddings:
            raise ValueError(
                f"position_offset must be a row of the table of positions, from 0 to max_position_embeddings - 1 = "
                f"{self.max_position_embeddings - 1}, got {self.position_offset}"
            )
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not an activation that transformers knows")
