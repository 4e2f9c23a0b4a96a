"""Configuration of the hybrid."""

from difflib import get_close_matches
from typing import Any

from huggingface_hub.dataclasses import strict

from ..llm.configuration_llm import ZooLlmConfig
from ..routed_config import RoutedConfig
from .parts import ATTENTION, CHANNEL_MIXERS, FEED_FORWARD, MIXERS, part_config


@strict
class ZooHybridConfig(ZooLlmConfig):
    """The fields of the dense decoder (llm), and what stands in each layer.

    Args:
        layer_types: the token mixer of each layer: "full_attention" and "sliding_attention", those of the dense
            decoder, or "mamba", "mamba2", "s4", "rwkv4", "rwkv6", "rwkv7", "linear_attention", "conv",
            "mla", "latent_attention", "sparse_attention". Afterwards it holds what they are to caches and masks, in
            transformers' words; their own names are in `mixer_types`.
        mixer_types: the same; what is saved.
        mlp_types: the channel mixer of each layer: "mlp", that of the dense decoder, "moe", "rwkv4", "rwkv6",
            "rwkv7", "conv", or "none".
        options: name of a part -> fields of its own architecture's configuration, such as
            {"mamba": {"state_size": 32}, "moe": {"num_experts": 16}}.
        output_router_logits: whether the output has the routers' logits, and their losses in evaluation too.
    """

    model_type = "zoo_hybrid"

    hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 8
    num_attention_heads: int = 16
    mixer_types: list[str] | None = None
    mlp_types: list[str] | None = None
    options: dict[str, Any] | None = None
    output_router_logits: bool = False

    def __post_init__(self, **kwargs) -> None:
        self.options = {kind: dict(fields) for kind, fields in (self.options or {}).items()}
        self.mlp_types = self.mlp_types or ["mlp"] * self.num_hidden_layers
        attention = "full_attention" if self.sliding_window is None else "sliding_attention"
        given = self.layer_types or self.mixer_types or [attention] * self.num_hidden_layers
        if self.mixer_types is None:
            self.mixer_types = given
        self._refuse_unknown("layer_types", self.mixer_types, (*ATTENTION, *MIXERS))
        self._refuse_unknown("mlp_types", self.mlp_types, (*FEED_FORWARD, *CHANNEL_MIXERS))
        self.layer_types = [self._layer_type(*kinds) for kinds in zip(self.mixer_types, self.mlp_types, strict=False)]
        if given not in (self.mixer_types, self.layer_types):
            raise ValueError(f"layer_types and mixer_types say different things: {given} and {self.mixer_types}")
        super().__post_init__(**kwargs)

    @staticmethod
    def _refuse_unknown(field: str, kinds: list[str], known: tuple[str, ...]) -> None:
        for kind in kinds:
            if kind not in known:
                near = "".join(f"; did you mean {match!r}?" for match in get_close_matches(kind, known, 1))
                raise ValueError(f"{field} may hold {', '.join(known)}, got {kind!r}{near}")

    def _layer_type(self, mixer: str, mlp: str) -> str:
        """What a layer keeps, in transformers' words: keys and values, a state, or both."""
        kind = mixer if mixer in ATTENTION else MIXERS[mixer].layer_type
        keeps_state = mlp in CHANNEL_MIXERS and CHANNEL_MIXERS[mlp].has_state
        both = {"full_attention": "hybrid", "sliding_attention": "hybrid_sliding"}
        return both.get(kind, kind) if keeps_state else kind

    def validate_architecture(self) -> None:
        """How the sizes fit together, and whether each part can be made."""
        for field in ("mixer_types", "mlp_types"):
            if len(getattr(self, field)) != self.num_hidden_layers:
                raise ValueError(
                    f"{'layer_types' if field == 'mixer_types' else field} must name one part for each of the "
                    f"num_hidden_layers={self.num_hidden_layers}, got {len(getattr(self, field))}"
                )
        used = {*self.mixer_types, *self.mlp_types}
        for kind in self.options:
            if kind not in used:
                raise ValueError(f"options has {kind!r}, but no layer has that part")
        if "none" in self.mlp_types and self.block_layout != "pre":
            raise ValueError(f"mlp_types has 'none', which needs block_layout='pre', got {self.block_layout!r}")
        for parts, kinds in ((MIXERS, self.mixer_types), (CHANNEL_MIXERS, self.mlp_types)):
            for kind in dict.fromkeys(kinds):
                if kind in parts:
                    part_config(self, kind, parts[kind], kinds.count(kind))
        dense = ZooLlmConfig.validate_architecture
        kept, self.layer_types = self.layer_types, [k if k in ATTENTION else ATTENTION[0] for k in self.mixer_types]
        try:
            dense(self)
        finally:
            self.layer_types = kept

    @property
    def number_of_conv_states(self) -> int:
        """States of a layer: one of the token mixer, and one of a channel mixer that remembers."""
        return 2 if any(k in CHANNEL_MIXERS and CHANNEL_MIXERS[k].has_state for k in self.mlp_types) else 1

    @property
    def routing(self) -> RoutedConfig | None:
        """The configuration of the routed experts, None where no layer has any."""
        count = self.mlp_types.count("moe")
        return part_config(self, "moe", CHANNEL_MIXERS["moe"], count) if count else None

    @property
    def router_aux_loss_coef(self) -> float:
        """Weight of the routers' balance loss."""
        return self.routing.router_aux_loss_coef if "moe" in self.mlp_types else 0.0

    @property
    def router_z_loss_coef(self) -> float:
        """Weight of the routers' z-loss."""
        return self.routing.router_z_loss_coef if "moe" in self.mlp_types else 0.0
