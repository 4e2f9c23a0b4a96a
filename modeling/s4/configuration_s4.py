"""Configuration of S4 and S4D."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ..base_config import ZooConfig


@strict
class ZooS4Config(ZooConfig):
    """Sizes of S4; the defaults are those of the long-range arena's text task, as a language model over bytes.

    Args:
        state_size: numbers that each channel remembers (N), even: conjugate pairs.
        state_space: "dplr" is S4, diagonal plus low rank; "diagonal" is S4D.
        spectrum: where the diagonal starts: "legs" as HiPPO-LegS, for S4D also "lin" and "inv".
        dt_min, dt_max: between which the step sizes start, log-uniform.
        residual_dropout: after the activation of each layer.
    """

    model_type = "zoo_s4"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 256
    hidden_size: int = 256
    num_hidden_layers: int = 6
    state_size: int = 64
    state_space: Literal["dplr", "diagonal"] = "dplr"
    spectrum: Literal["legs", "lin", "inv"] = "legs"
    dt_min: float = 1e-3
    dt_max: float = 0.1
    norm_eps: float = 1e-5
    residual_dropout: float = 0.0
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        if self.state_size < 2 or self.state_size % 2:
            raise ValueError(f"state_size must be even, for conjugate pairs, got {self.state_size}")
        if self.state_space == "dplr" and self.spectrum != "legs":
            raise ValueError(f"spectrum {self.spectrum!r} has no low-rank part: it needs state_space='diagonal'")
        if not 0 < self.dt_min < self.dt_max:
            raise ValueError(f"dt_min must be above 0 and below dt_max, got {self.dt_min} and {self.dt_max}")

    @property
    def layer_types(self) -> list[str]:
        """All layers keep a state of fixed size, which is what tells caches and masks so."""
        return ["linear_attention"] * self.num_hidden_layers
