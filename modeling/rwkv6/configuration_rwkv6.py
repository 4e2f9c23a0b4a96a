"""Configuration of RWKV-6 and RWKV-5."""

from huggingface_hub.dataclasses import strict

from ..base_config import ZooConfig


@strict
class ZooRwkv6Config(ZooConfig):
    """Sizes of RWKV-6 and 5; the defaults are those of the 1.6B model of World.

    Args:
        is_data_dependent: whether shift and decay depend on the token, as in RWKV-6, or are constant, as in RWKV-5.
        head_size: channels of a head, whose memory is a square of that side.
        intermediate_size: hidden units of the channel mixing; 3.5 times hidden_size, down to a multiple of 32,
            without it.
        shift_rank, decay_rank: hidden units of the small networks that make shifts and decays.
        l2_wrap_coefficient: how hard training pulls the largest logit towards 0.
    """

    model_type = "zoo_rwkv6"
    keys_to_ignore_at_inference = ["past_key_values"]
    number_of_conv_states = 2  # time mixing and channel mixing each remember the last token

    vocab_size: int = 65536
    hidden_size: int = 2048
    num_hidden_layers: int = 24
    is_data_dependent: bool = True
    head_size: int = 64
    intermediate_size: int | None = None
    shift_rank: int = 32
    decay_rank: int = 64
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
        self.intermediate_size = self.intermediate_size or int(3.5 * self.hidden_size) // 32 * 32
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        self.require_multiple("hidden_size", of="head_size")
        for field in ("shift_rank", "decay_rank"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.l2_wrap_coefficient < 0:
            raise ValueError(f"l2_wrap_coefficient must be at least 0, got {self.l2_wrap_coefficient}")

    @property
    def layer_types(self) -> list[str]:
        """All layers keep a state of fixed size, which is what tells caches and masks so."""
        return ["linear_attention"] * self.num_hidden_layers
