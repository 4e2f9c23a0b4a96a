"""Configuration of RWKV-7."""

from huggingface_hub.dataclasses import strict

from ..base_config import ZooConfig


@strict
class ZooRwkv7Config(ZooConfig):
    """Sizes of RWKV-7; the defaults are those of the 0.1B model of World.

    Args:
        head_size: channels of a head, whose memory is a square of that side.
        intermediate_size: hidden units of the channel mixing, four times hidden_size without it.
        decay_rank, rate_rank, value_rank, gate_rank: hidden units of the small networks that make decays, in-context
            learning rates, the share of the first layer's values, and gates.
        rate_limit: what in-context learning rates stay below. The published models have 1; with 2 a token may turn
            the memory over along a key, so that the model can follow permutations of any length.
        l2_wrap_coefficient: how hard training pulls the largest logit towards 0.
    """

    model_type = "zoo_rwkv7"
    keys_to_ignore_at_inference = ["past_key_values"]
    number_of_conv_states = 2  # time mixing and channel mixing each remember the last token

    vocab_size: int = 65536
    hidden_size: int = 768
    num_hidden_layers: int = 12
    head_size: int = 64
    intermediate_size: int | None = None
    decay_rank: int = 64
    rate_rank: int = 64
    value_rank: int = 32
    gate_rank: int = 128
    rate_limit: float = 1.0
    norm_eps: float = 1e-5
    classifier_dropout: float = 0.0
    l2_wrap_coefficient: float = 1e-4
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 0

    def __post_init__(self, **kwargs) -> None:
        self.intermediate_size = self.intermediate_size or 4 * self.hidden_size
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        self.require_multiple("hidden_size", of="head_size")
        for field in ("decay_rank", "rate_rank", "value_rank", "gate_rank"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if not 0 < self.rate_limit <= 2:
            raise ValueError(f"rate_limit must be above 0 and at most 2, got {self.rate_limit}")
        if self.l2_wrap_coefficient < 0:
            raise ValueError(f"l2_wrap_coefficient must be at least 0, got {self.l2_wrap_coefficient}")

    @property
    def layer_types(self) -> list[str]:
        """All layers keep a state of fixed size, which is what tells caches and masks so."""
        return ["linear_attention"] * self.num_hidden_layers
