"""Configuration of Mamba."""

import math

from huggingface_hub.dataclasses import strict

from ..base_config import ZooConfig


@strict
class ZooMambaConfig(ZooConfig):
    """Sizes of Mamba; the defaults are those of mamba-130m.

    Args:
        state_size: numbers that each channel remembers (N).
        expand: channels a hidden unit (E / D).
        conv_kernel: tokens that the short convolution sees, the present one included (K).
        time_step_rank: rank of the projection that makes the step sizes; ceil(hidden_size / 16) without it.
        residual_in_fp32: whether the residual stream stays in float32 when the weights are not.
        scale_residual_init: whether out_proj starts smaller by sqrt(layers).
    """

    model_type = "zoo_mamba"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 50280
    hidden_size: int = 768
    num_hidden_layers: int = 24
    state_size: int = 16
    expand: int = 2
    conv_kernel: int = 4
    time_step_rank: int | None = None
    use_bias: bool = False
    use_conv_bias: bool = True
    norm_eps: float = 1e-5
    residual_in_fp32: bool = True
    classifier_dropout: float = 0.0
    initializer_range: float = 0.1
    scale_residual_init: bool = False
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 0

    def __post_init__(self, **kwargs) -> None:
        if self.time_step_rank is None:
            self.time_step_rank = max(1, math.ceil(self.hidden_size / 16))
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        for field in ("expand", "conv_kernel", "time_step_rank"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")

    @property
    def intermediate_size(self) -> int:
        """Channels of the mixer (E)."""
        return self.expand * self.hidden_size

    @property
    def layer_types(self) -> list[str]:
        """All layers keep a state of fixed size, which is what tells caches and masks so."""
        return ["linear_attention"] * self.num_hidden_layers
