"""Configuration of the Sparse Transformer."""

import math
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN

from ..base_config import ZooConfig


@strict
class ZooSparseTransformerConfig(ZooConfig):
    """Sizes and pattern of a Sparse Transformer; the defaults are those of enwik8.

    Args:
        pattern: "strided" for texts with a period such as images, "fixed" for others.
        stride: tokens of a block or a period (l), best near the square root of the length.
        summary_size: for "fixed", columns at the end of each block that all later tokens see (c).
        num_summary_groups: for "fixed", heads take turns in using this many groups of `summary_size` columns.
        head_assignment: "merged", every head sees both sets of the pattern; "interleaved", layers take turns;
            "split", the first half of the heads sees the first set, the others the second.
        head_dim, value_head_dim: of queries and keys, and of values; hidden_size / num_attention_heads by default.
        position_shape: a position is written in these digits, and each digit has an embedding: (rows, columns) of a
            text, (rows, columns, channels) of an image. Their product is the longest text.
        residual_dropout: after attention and after the feed-forward network.
    """

    model_type = "zoo_sparse_transformer"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 256
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 30
    num_attention_heads: int = 8
    head_dim: int | None = None
    value_head_dim: int | None = None
    pattern: Literal["strided", "fixed"] = "fixed"
    stride: int = 128
    summary_size: int = 32
    num_summary_groups: int = 1
    head_assignment: Literal["merged", "interleaved", "split"] = "merged"
    position_shape: list[int] | tuple[int, ...] = (96, 128)
    hidden_act: str = "quick_gelu"
    norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    classifier_dropout: float = 0.0
    initializer_range: float = 0.125
    tie_word_embeddings: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs) -> None:
        size = self.hidden_size // max(self.num_attention_heads, 1)
        self.head_dim = size if self.head_dim is None else self.head_dim
        self.value_head_dim = size if self.value_head_dim is None else self.value_head_dim
        self.position_shape = tuple(self.position_shape)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        self.require_multiple("hidden_size", of="num_attention_heads")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not an activation that transformers knows")
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}")
        used = self.summary_size * self.num_summary_groups
        if self.pattern == "fixed" and not 0 < used <= self.stride:
            raise ValueError(
                f"summary_size * num_summary_groups must be from 1 to stride={self.stride}, got {self.summary_size} "
                f"* {self.num_summary_groups}"
            )
        if not self.position_shape or min(self.position_shape) < 1:
            raise ValueError(f"position_shape must hold sizes of at least 1, got {self.position_shape}")

    @property
    def max_position_embeddings(self) -> int:
        """The longest text."""
        return math.prod(self.position_shape)

    @property
    def layer_types(self) -> list[str]:
        """To caches all layers are attention; `pattern` says what they see."""
        return ["full_attention"] * self.num_hidden_layers
