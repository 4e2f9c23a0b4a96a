"""Configuration of the dense passage retriever."""

import copy
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..base_config import ZooConfig
from ..parts import PART, part_config


@strict
class ZooDprConfig(ZooConfig):
    """Two encoders, of any architecture of the zoo or of transformers, and how their vectors are compared.

    Args:
        question_config: config of the question encoder, or a dictionary with its `model_type`; the published one is
            bert-base-uncased, which it is without this. The reader reads with it, too.
        passage_config: of the passage encoder; by default a copy.
        share_encoders: whether one encoder serves both.
        pooling: the vector is the hidden state of the first token ("cls", as published), the last, or their mean.
        projection_dim: size of the vectors, by a linear layer; 0 for the hidden size and no layer.
        similarity: "dot" product as published, or "cosine".
        temperature: scores are divided by it in the loss; 1 as published, less (0.05) goes with cosines.
    """

    model_type = "zoo_dpr"
    sub_configs: ClassVar[dict[str, Any]] = {"question_config": PART, "passage_config": PART}
    may_be_zero = ("projection_dim",)

    question_config: dict | PreTrainedConfig | None = None
    passage_config: dict | PreTrainedConfig | None = None
    share_encoders: bool = False
    pooling: Literal["cls", "mean", "last"] = "cls"
    projection_dim: int = 0
    similarity: Literal["dot", "cosine"] = "dot"
    temperature: float = 1.0
    initializer_range: float = 0.02
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs: Any) -> None:
        self.question_config = part_config(self.question_config or {"model_type": "zoo_mlm"}, "question_config")
        passage = self.question_config if self.passage_config is None else self.passage_config
        self.passage_config = part_config(copy.deepcopy(passage), "passage_config")
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Of the question encoder."""
        return self.question_config.hidden_size

    @property
    def vocab_size(self) -> int:
        """Of the question encoder."""
        return self.question_config.vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.question_config.vocab_size = value

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """The question encoder's, which says what its tokenizer must know."""
        return self.question_config

    def validate_architecture(self) -> None:
        """How the parts fit together."""
        sizes = self.question_config.hidden_size, self.passage_config.hidden_size
        if sizes[0] != sizes[1] and not self.projection_dim:
            raise ValueError(f"hidden sizes {sizes[0]} and {sizes[1]} of the two encoders differ: set projection_dim")
        if self.share_encoders and self.question_config.to_dict() != self.passage_config.to_dict():
            raise ValueError("share_encoders needs one config for both, but passage_config differs")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
