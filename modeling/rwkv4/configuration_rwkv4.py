"""Configuration of RWKV-4."""

from huggingface_hub.dataclasses import strict

from ..base_config import ZooConfig


@strict
class ZooRwkv4Config(ZooConfig):
    """Sizes of RWKV-4; the defaults are those of rwkv-4-169m.

    Args:
        intermediate_size: hidden units of the channel mixing, four times hidden_size without it.
        l2_wrap_coefficient: how hard training pulls the largest logit towards 0.
    """

    model_type = "zoo_rwkv4"
    keys_to_ignore_at_inference = ["past_key_values"]
    number_of_conv_states = 2  # time mixing and channel mixing each remember the last token

    vocab_size: int = 50277
    hidden_size: int = 768
    num_hidden_layers: int = 12
    intermediate_size: int | None = None
    norm_eps: float = 1e-5
    classifier_dropout: float = 0.0
    l2_wrap_coefficient: float = 1e-4
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 0

    def __post_init__(self, **kwargs) -> None:
        self.intermediate_size = self.intermediate_size or 4 * self.hidden_size
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """What the sizes cannot say."""
        if self.l2_wrap_coefficient < 0:
            raise ValueError(f"l2_wrap_coefficient must be at least 0, got {self.l2_wrap_coefficient}")

    @property
    def layer_types(self) -> list[str]:
        """All layers keep a state of fixed size, which is what tells caches and masks so."""
        return ["linear_attention"] * self.num_hidden_layers
