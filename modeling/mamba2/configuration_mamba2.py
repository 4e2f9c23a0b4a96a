"""Configuration of Mamba-2."""

import math

from huggingface_hub.dataclasses import strict

from ..base_config import ZooConfig


@strict
class ZooMamba2Config(ZooConfig):
    """Sizes of Mamba-2; the defaults are those of mamba2-130m.

    Args:
        state_size: numbers that each channel remembers (N).
        expand: channels a hidden unit (E / D).
        head_dim: channels that share a decay (P); there are `expand * hidden_size / head_dim` heads.
        num_groups: how many B and C there are, each shared by as many heads.
        conv_kernel: tokens that the short convolution sees, the present one included (K).
        time_step_limit: smallest and largest step.
        residual_in_fp32: whether the residual stream stays in float32 when the weights are not.
        scale_residual_init: whether out_proj starts smaller by sqrt(layers).
    """

    model_type = "zoo_mamba2"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 50288
    hidden_size: int = 768
    num_hidden_layers: int = 24
    state_size: int = 128
    expand: int = 2
    head_dim: int = 64
    num_groups: int = 1
    conv_kernel: int = 4
    use_bias: bool = False
    use_conv_bias: bool = True
    time_step_limit: list[float] | tuple[float, ...] = (0.0, math.inf)
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
        self.time_step_limit = tuple(self.time_step_limit)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        for field in ("expand", "head_dim", "num_groups", "conv_kernel"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.intermediate_size % self.head_dim:
            raise ValueError(
                f"expand * hidden_size, {self.intermediate_size}, must be a multiple of head_dim, got {self.head_dim}"
            )
        if self.num_heads % self.num_groups:
            raise ValueError(
                f"the {self.num_heads} heads must be a multiple of num_groups, got num_groups={self.num_groups}"
            )
        if len(self.time_step_limit) != 2 or not 0 <= self.time_step_limit[0] < self.time_step_limit[1]:
            raise ValueError(f"time_step_limit must be (smallest, largest) from 0 on, got {self.time_step_limit}")

    @property
    def intermediate_size(self) -> int:
        """Channels of the mixer (E)."""
        return self.expand * self.hidden_size

    @property
    def num_heads(self) -> int:
        """Heads of the mixer (H), each with a decay of its own."""
        return self.intermediate_size // self.head_dim

    @property
    def layer_types(self) -> list[str]:
        """All layers keep a state of fixed size, which is what tells caches and masks so."""
        return ["linear_attention"] * self.num_hidden_layers
