"""Configuration of the Multihead Latent Transformer."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import RopeParameters

from ..base_config import ZooConfig


def latent_sizes(config: "ZooLatentConfig") -> tuple[int, ...]:
    """The size of each head's latent space."""
    if isinstance(config.latent_dim, int):
        return (config.latent_dim,) * config.num_attention_heads
    return tuple(config.latent_dim)


@strict
class ZooLatentConfig(ZooConfig):
    """Sizes of a Multihead Latent Transformer.

    Args:
        latent_dim: numbers of each head's latent space (r), or a list with one size a head.
        qk_dim, v_dim: of queries and keys, and of values, in each space; the largest latent_dim by default.
        has_interaction: whether heads exchange their latents of a token before they attend.
        interaction_rank: numbers in which heads are compared for that (a).
        latent_act: activation on the latents; None for none.
        latent_norm: whether latents are normalised in each head.
        latent_stochastic: whether latents are drawn in training, and pulled towards N(0, 1) by `kl_weight`.
        kl_weight: weight of that divergence in the loss, a mean over tokens, heads and layers.
        diversity_weight: weight of what heads have in common, which keeps their spaces apart; 0 for none.
        positions: "rotary" turns queries and keys; "alibi" and "none" leave keys as they are, so that decoding
            never makes them.
        modalities: name -> numbers in each of its tokens, beside text. Their tokens go before the text.
        align_weight: weight of the loss that brings paired modalities of a row together in each latent space.
        align_temperature: of that loss.
    """

    model_type = "zoo_latent"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 32000
    hidden_size: int = 768
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    latent_dim: int | list[int] = 64
    qk_dim: int | None = None
    v_dim: int | None = None
    has_interaction: bool = True
    interaction_rank: int = 32
    latent_act: str | None = None
    latent_norm: bool = True
    latent_stochastic: bool = False
    kl_weight: float = 1e-3
    diversity_weight: float = 0.0
    positions: Literal["rotary", "alibi", "none"] = "rotary"
    rope_parameters: RopeParameters | dict | None = None
    max_position_embeddings: int = 2048
    modalities: dict[str, int] | None = None
    align_weight: float = 0.1
    align_temperature: float = 0.1
    hidden_act: str = "silu"
    norm_eps: float = 1e-6
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, **kwargs) -> None:
        largest = max(latent_sizes(self), default=0)
        self.qk_dim = largest if self.qk_dim is None else self.qk_dim
        self.v_dim = largest if self.v_dim is None else self.v_dim
        self.modalities = self.modalities or {}
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        sizes = latent_sizes(self)
        if len(sizes) != self.num_attention_heads or min(sizes, default=0) < 1:
            raise ValueError(
                f"latent_dim must be a size of at least 1, or one for each of the {self.num_attention_heads} heads, "
                f"got {self.latent_dim}"
            )
        if self.positions == "rotary" and self.qk_dim % 2:
            raise ValueError(f"qk_dim must be even for rotary positions, got {self.qk_dim}")
        if self.has_interaction and self.interaction_rank < 1:
            raise ValueError(f"interaction_rank must be at least 1, got {self.interaction_rank}")
        for field in ("hidden_act", "latent_act"):
            if getattr(self, field) not in (None, *ACT2FN):
                raise ValueError(f"{field} {getattr(self, field)!r} is not an activation that transformers knows")
        for name in self.modalities:  # they become names of modules
            if name == "text" or not name.isidentifier() or hasattr(nn.ModuleDict, name):
                raise ValueError(f"modalities: {name!r} cannot be a name; one word that is not 'text' can, as 'image'")
        if self.align_temperature <= 0:
            raise ValueError(f"align_temperature must be positive, got {self.align_temperature}")

    @property
    def head_dim(self) -> int:
        """What rotary positions turn."""
        return self.qk_dim

    @property
    def layer_types(self) -> list[str]:
        """All layers see everything before."""
        return ["full_attention"] * self.num_hidden_layers
