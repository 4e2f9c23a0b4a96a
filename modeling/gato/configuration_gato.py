"""Configuration of Gato."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ..llm.configuration_llm import ZooLlmConfig


@strict
class ZooGatoConfig(ZooLlmConfig):
    """Sizes of the largest Gato; its vocabulary is text, then bins of continuous values, then discrete values, then
    the separator of observations and actions, then the placeholder of image patches.

    Args:
        text_vocab_size: ids of text, the first ones.
        num_bins: of continuous values.
        num_discrete: values that a button or a discrete action may have.
        separator_token_id, image_token_id: by default the two ids after all values.
        num_local_positions: most tokens that one observation may have.
        patch_size: side of an image patch, in pixels.
        patch_channels, patch_groups: of the residual block that embeds patches.
        num_patch_bins: into which the height and the width of an image are cut.
        stochastic_depth: how often a residual branch is left out in training.
    """

    model_type = "zoo_gato"

    vocab_size: int = 34050
    text_vocab_size: int = 32000
    num_bins: int = 1024
    num_discrete: int = 1024
    separator_token_id: int | None = None
    image_token_id: int | None = None
    hidden_size: int = 2048
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    max_position_embeddings: int = 1024
    norm: Literal["rms_norm", "layer_norm", "layer_norm_without_affine"] = "layer_norm"
    norm_eps: float = 1e-5
    hidden_act: str = "gelu"
    positions: Literal["rotary", "learned", "sinusoidal", "alibi", "none"] = "learned"
    attention_bias: bool = True
    mlp_bias: bool = True
    num_local_positions: int = 512
    patch_size: int = 16
    patch_channels: int = 96
    patch_groups: int = 32
    num_patch_bins: int = 128
    stochastic_depth: float = 0.1
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs) -> None:
        values_end = self.text_vocab_size + self.num_bins + self.num_discrete
        if self.separator_token_id is None:
            self.separator_token_id = values_end
        if self.image_token_id is None:
            self.image_token_id = values_end + 1
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the vocabulary and the sizes fit together."""
        super().validate_architecture()
        values_end = self.text_vocab_size + self.num_bins + self.num_discrete
        for name in ("separator_token_id", "image_token_id"):
            value = getattr(self, name)
            if not values_end <= value < self.vocab_size:
                raise ValueError(
                    f"{name} must be an id after text_vocab_size + num_bins + num_discrete = {values_end} and below "
                    f"vocab_size={self.vocab_size}, got {value}"
                )
        if self.separator_token_id == self.image_token_id:
            raise ValueError(f"separator_token_id and image_token_id are both {self.image_token_id}")
        self.require_multiple("patch_channels", of="patch_groups")
        if not 0.0 <= self.stochastic_depth < 1.0:
            raise ValueError(f"stochastic_depth must be at least 0 and below 1, got {self.stochastic_depth}")
