"""Configuration of Hi-BERT."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ..bert_config import BertLikeConfig


@strict
class ZooHibertConfig(BertLikeConfig):
    """The fields of BERT and those of segments and documents; the defaults are those of HAT base-4096.

    Args:
        num_hidden_layers: blocks of both kinds together.
        layout: their kinds in order, repeated as often as needed: "S" reads each segment alone, "D" the segments'
            summaries together. "SSSD" is HAT's interleaved form, all "S" and then all "D" is Hi-BEHRT.
        segment_size: tokens of a segment.
        segment_stride: how far apart segments start; segment_size without it, less makes them overlap.
        max_segments: rows of the tables that tell document blocks which segment is which.
        segment_summary: what stands for a segment: its "first" token (HAT), or the "mean" of all (Hi-BEHRT).
        pooling: how the summaries become one vector: "first", "mean", "max" or "attentive".
        max_position_embeddings: rows of the table of positions inside a segment, or of visits in a record.
        num_ages: ages that events may have; 0 for texts, which have none.
        view_masking: share of tokens that each of the two views of pre-training hides.
        projection_size: of the vectors that pre-training compares.
        target_decay: how much of the target network stays at the first steps of pre-training; it rises to 1.
    """

    model_type = "zoo_hibert"
    may_be_zero = ("num_ages",)

    vocab_size: int = 50265
    num_hidden_layers: int = 16
    layout: str = "SSSD"
    segment_size: int = 128
    segment_stride: int | None = None
    max_segments: int = 32
    segment_summary: Literal["first", "mean"] = "first"
    pooling: Literal["first", "mean", "max", "attentive"] = "max"
    num_ages: int = 0
    view_masking: float = 0.5
    projection_size: int = 256
    target_decay: float = 0.996
    max_position_embeddings: int = 130
    position_offset: int = 2
    type_vocab_size: int = 1
    norm_eps: float = 1e-5
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, **kwargs) -> None:
        if self.segment_stride is None:
            self.segment_stride = self.segment_size
        num_layers = max(self.num_hidden_layers, 1)
        self.layout = (self.layout * num_layers)[:num_layers]
        super().__post_init__(**kwargs)

    @property
    def has_document_blocks(self) -> bool:
        """Whether segments see each other."""
        return "D" in self.layout

    @property
    def max_row_length(self) -> int | None:
        """Most tokens of a row; None where segments never meet, and there may be any number."""
        if not self.has_document_blocks:
            return None
        return self.segment_size + (self.max_segments - 1) * self.segment_stride

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        super().validate_architecture()
        if not self.layout or set(self.layout) - {"S", "D"}:
            raise ValueError(f"layout must be a word of S (segment) and D (document), such as 'SSSD': {self.layout!r}")
        places = self.max_position_embeddings - self.position_offset
        if self.segment_size > places:
            raise ValueError(
                f"segment_size={self.segment_size} is more than the {places} places that max_position_embeddings="
                f"{self.max_position_embeddings} leaves after position_offset={self.position_offset}"
            )
        if not 1 <= self.segment_stride <= self.segment_size:
            raise ValueError(
                f"segment_stride must be from 1 to segment_size={self.segment_size}, or tokens between segments are "
                f"lost; got {self.segment_stride}"
            )
        for name in ("view_masking", "target_decay"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
