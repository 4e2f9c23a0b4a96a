"""What a hybrid can be made of: every token mixer and every channel mixer of the zoo, by name.

A part is made by its own architecture, from that architecture's configuration: the sizes that it shares with the
hybrid are the hybrid's, all others are its own defaults unless `options` of the hybrid says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import nn

from ..base_config import ZooConfig
from ..latent.configuration_latent import ZooLatentConfig
from ..latent.modeling_latent import make_attention as make_latent_attention
from ..layers.rwkv7_mixer import Rwkv7Mixer
from ..mamba.configuration_mamba import ZooMambaConfig
from ..mamba.modeling_mamba import make_mixer as make_mamba
from ..mamba2.configuration_mamba2 import ZooMamba2Config
from ..mamba2.modeling_mamba2 import make_mixer as make_mamba2
from ..mla.configuration_mla import ZooMlaConfig
from ..mla.modeling_mla import make_attention as make_mla
from ..moe.configuration_moe import ZooMoeConfig
from ..routed import make_feed_forward
from ..rwkv4.configuration_rwkv4 import ZooRwkv4Config
from ..rwkv4.modeling_rwkv4 import make_channel_mix as make_rwkv4_channel_mix
from ..rwkv4.modeling_rwkv4 import make_mixer as make_rwkv4
from ..rwkv6.configuration_rwkv6 import ZooRwkv6Config
from ..rwkv6.modeling_rwkv6 import make_channel_mix as make_rwkv6_channel_mix
from ..rwkv6.modeling_rwkv6 import make_mixer as make_rwkv6
from ..rwkv7.configuration_rwkv7 import ZooRwkv7Config
from ..rwkv7.modeling_rwkv7 import make_channel_mix as make_rwkv7_channel_mix
from ..rwkv7.modeling_rwkv7 import make_mixer as make_rwkv7
from ..s4.configuration_s4 import ZooS4Config
from ..s4.modeling_s4 import make_mixer as make_s4
from ..slm.configuration_slm import ZooSlmConfig
from ..slm.modeling_slm import make_convolution, make_recurrent_mixer
from ..sparse_transformer.configuration_sparse_transformer import ZooSparseTransformerConfig
from ..sparse_transformer.modeling_sparse_transformer import make_attention as make_sparse_attention


@dataclass(frozen=True)
class Part:
    """A token mixer or a channel mixer of another architecture.

    Args:
        config_class: that architecture's configuration.
        make: from that configuration and the number of the layer among those with the same part.
        layer_type: of a token mixer, what it is to caches and masks, in transformers' words.
        has_state: of a channel mixer, whether it remembers tokens.
        fixed: fields that the part needs to have.
        exact: names of weights that stay in float32.
    """

    config_class: type[ZooConfig]
    make: Callable[[Any, int], nn.Module]
    layer_type: str = "linear_attention"
    has_state: bool = False
    fixed: tuple[tuple[str, Any], ...] = ()
    exact: tuple[str, ...] = ()


_NO_POSITIONS = (("positions", "none"),)  # those of a hybrid are for heads of its own size

MIXERS = {
    "linear_attention": Part(ZooSlmConfig, lambda config, _: make_recurrent_mixer(config, "linear_attention")),
    "conv": Part(ZooSlmConfig, lambda config, _: make_recurrent_mixer(config, "conv")),
    "mla": Part(ZooMlaConfig, make_mla, "full_attention"),
    "latent_attention": Part(ZooLatentConfig, make_latent_attention, "full_attention", fixed=_NO_POSITIONS),
    "sparse_attention": Part(ZooSparseTransformerConfig, make_sparse_attention, "full_attention"),
    "s4": Part(ZooS4Config, lambda config, _: make_s4(config), exact=("ssm",)),
    "mamba": Part(ZooMambaConfig, lambda config, _: make_mamba(config), exact=("A_log", "D")),
    "mamba2": Part(ZooMamba2Config, lambda config, _: make_mamba2(config), exact=("A_log", "D", "dt_bias")),
    "rwkv4": Part(ZooRwkv4Config, make_rwkv4, exact=("time_decay", "time_first")),
    "rwkv6": Part(ZooRwkv6Config, make_rwkv6, exact=("time_decay", "time_first")),
    "rwkv7": Part(
        ZooRwkv7Config,
        partial(make_rwkv7, value_rank=None, mixer=Rwkv7Mixer),
        exact=("decay.bias", "k_k", "k_a", "r_k"),
    ),
}
CHANNEL_MIXERS = {
    "moe": Part(
        ZooMoeConfig,
        lambda config, _: make_feed_forward(config, 0, config.is_gated_mlp, config.mlp_bias),
        fixed=(("first_k_dense_replace", 0), ("moe_layer_freq", 1)),  # where experts are is for `mlp_types` to say
    ),
    "conv": Part(ZooSlmConfig, lambda config, _: make_convolution(config, config.intermediate_size), has_state=True),
    "rwkv4": Part(ZooRwkv4Config, make_rwkv4_channel_mix, has_state=True),
    "rwkv6": Part(ZooRwkv6Config, make_rwkv6_channel_mix, has_state=True),
    "rwkv7": Part(ZooRwkv7Config, make_rwkv7_channel_mix, has_state=True),
}
ATTENTION = ("full_attention", "sliding_attention")  # the dense decoder's own, with every option it has
FEED_FORWARD = ("mlp", "none")  # the dense decoder's own, or nothing

# What a part has from the hybrid, where its architecture has such a field
_SHARED = (
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "hidden_act", "is_gated_mlp"),
    *("mlp_bias", "norm_eps", "initializer_range", "max_position_embeddings"),
)


def part_config(config: ZooConfig, kind: str, part: Part, num_layers: int) -> ZooConfig:
    """The configuration from which a part of a hybrid is made.

    Args:
        config: of the hybrid.
        kind: the part's name, under which `options` may hold fields of its own.
        num_layers: how many layers have the part.

    Raises:
        ValueError: a field that the part's architecture does not have, or a value that it refuses.
    """
    known = {field.name for field in fields(part.config_class)}
    options = config.options.get(kind, {})
    for name in options:
        if name not in known:
            near = "".join(f"; did you mean {match!r}?" for match in get_close_matches(name, known, 1))
            raise ValueError(f"options[{kind!r}]: {part.config_class.__name__} has no field {name!r}{near}")
    shared = {name: getattr(config, name) for name in _SHARED if name in known}
    values = {**shared, "num_hidden_layers": num_layers, **options, **dict(part.fixed)}
    try:
        return part.config_class(**values)
    except ValueError as error:
        raise ValueError(f"options[{kind!r}]: {error}") from None


def make_part(config: ZooConfig, parts: dict[str, Part], kinds: list[str], layer_idx: int) -> nn.Module:
    """The part of a layer, which reads what is set at run time (the attention backend, say) from the hybrid's config.

    Args:
        config: of the hybrid.
        parts: `MIXERS` or `CHANNEL_MIXERS`.
        kinds: the part of every layer.
        layer_idx: which layer.
    """
    kind = kinds[layer_idx]
    own = part_config(config, kind, parts[kind], kinds.count(kind))
    made = parts[kind].make(own, kinds[:layer_idx].count(kind))
    for module in made.modules():
        if getattr(module, "config", None) is own:
            module.config = config
        if hasattr(module, "layer_idx"):
            module.layer_idx = layer_idx
    return made
