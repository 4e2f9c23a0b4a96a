"""Configuration of the C-Former."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..base_config import ZooConfig
from ..parts import PART, part_config


@strict
class ZooCformerConfig(ZooConfig):
    """An acoustic encoder, what makes tokens of its frames, and what fits them to a language model.

    Args:
        encoder_config: of the acoustic encoder, any model of sounds, or a dictionary with its `model_type`; that of
            BEATs without it. Of a Whisper model it is the encoder.
        adaptor_config: of the encoder of tokens between integrate-and-fire and the language model (X-LLM has a BERT);
            without it there is one linear layer.
        freeze_encoder: whether the acoustic encoder does not learn.
        hidden_size: of frames and tokens.
        weight_kernel_size: frames that a frame's weight depends on, odd.
        threshold: weight of a token.
        least_tail: share of the threshold that must be left at the end to fire one more token.
        output_size: of the language model that reads the tokens.
        vocab_size: of the transcripts.
        pad_token_id: also CTC's blank.
        ctc_coefficient: of CTC's loss over frames.
        quantity_coefficient: of |sum of weights - number of tokens|.
    """

    model_type = "zoo_cformer"
    sub_configs: ClassVar[dict[str, Any]] = {"encoder_config": PART, "adaptor_config": PART}

    encoder_config: dict | PreTrainedConfig | None = None
    adaptor_config: dict | PreTrainedConfig | None = None
    freeze_encoder: bool = False
    hidden_size: int = 512
    weight_kernel_size: int = 3
    threshold: float = 1.0
    least_tail: float = 0.5
    output_size: int = 4096
    vocab_size: int = 21128
    pad_token_id: int | None = 0
    ctc_coefficient: float = 0.5
    quantity_coefficient: float = 1.0
    hidden_dropout: float = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.encoder_config = part_config(self.encoder_config or {"model_type": "zoo_beats"}, "encoder_config")
        if self.adaptor_config is not None:
            self.adaptor_config = part_config(self.adaptor_config, "adaptor_config")
        super().__post_init__(**kwargs)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """Its own: the transcripts are this model's."""
        return self

    def validate_architecture(self) -> None:
        """How the parts fit together."""
        if not self.weight_kernel_size % 2:
            raise ValueError(f"weight_kernel_size must be odd, got {self.weight_kernel_size}")
        if self.threshold <= 0.0:
            raise ValueError(f"threshold must be above 0, got {self.threshold}")
        if not 0.0 < self.least_tail <= 1.0:
            raise ValueError(f"least_tail must be above 0 and at most 1, got {self.least_tail}")
        if self.pad_token_id is None or not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id is CTC's blank and must be below vocab_size={self.vocab_size}, got {self.pad_token_id}"
            )
