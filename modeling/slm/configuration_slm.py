"""Configuration of small language models."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import RopeParameters

from ..base_config import ZooConfig
from ..cache import RECURRENT_LAYERS
from ..layers.low_rank import largest_rank

KINDS = ("full_attention", "sliding_attention", "linear_attention", "conv")


@strict
class ZooSlmConfig(ZooConfig):
    """Sizes and choices of a small language model; a decoder, or with `is_causal=False` an encoder such as ALBERT.

    Args:
        embedding_size: of the embeddings, which a matrix brings to the hidden size; equal to it without.
        layer_types: the token mixer of each layer: "full_attention", "sliding_attention" (exact, in blocks),
            "linear_attention" or "conv" (depth-wise separable convolution). All full, or all sliding if
            `sliding_window` is set.
        sliding_window: tokens that a local layer sees to one side, itself included.
        qk_norm: whether every head's queries and keys are normalised, before positions or feature map.
        feature_map: of linear attention, see layers/feature_maps.py.
        num_features: of the feature map "favor"; head_dim log(head_dim) without.
        linear_output: "average" divides by the sum of the weights; "rms_norm" normalises each head instead (retention
            style, and the choice for "identity", whose weights may be negative).
        linear_decay: "retnet" lets head h forget by 1 - 2^(-5-h) a token.
        linear_chunk_size: tokens that linear attention takes at a time; changes speed and memory, not results.
        conv_kernel: tokens that a separable convolution sees.
        feed_forward: "separable_conv" mixes neighbouring tokens too.
        low_rank: name of a projection ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
            -> its rank, or as a float the share of its full rank.
        sharing: which weights layers have in common. "all": in each of `num_layer_groups` groups of neighbours every
            layer is the same block (ALBERT), or the same `layers_per_group` blocks in turn; "attention" and "ffn": the
            layers of a group share the token mixer or the feed-forward network; "cyclic": layer l is block
            l mod `num_layer_groups`.
        norm_embeddings: whether the sum of embeddings is normalised.
        type_vocab_size: kinds of sentences in a row; without it none are told apart.
        chunk_size_feed_forward: tokens that the feed-forward network takes at a time, 0 for all; saves memory.
        is_causal: whether later tokens are hidden. The heads for masked tokens and sentence pairs set it to False,
            that for the next token to True.
    """

    model_type = "zoo_slm"
    keys_to_ignore_at_inference = ["past_key_values"]
    base_model_tp_plan = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }

    vocab_size: int = 32000
    hidden_size: int = 512
    embedding_size: int | None = None
    intermediate_size: int = 2048
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    type_vocab_size: int | None = None
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    qk_norm: bool = False
    feature_map: Literal["elu1", "relu", "relu2", "identity", "softmax", "taylor2", "favor"] = "elu1"
    num_features: int | None = None
    linear_output: Literal["average", "rms_norm"] = "average"
    linear_decay: Literal["none", "retnet"] = "none"
    linear_chunk_size: int = 64
    conv_kernel: int = 4
    feed_forward: Literal["gated", "plain", "separable_conv"] = "gated"
    low_rank: dict[str, int | float] | None = None
    sharing: Literal["none", "all", "attention", "ffn", "cyclic"] = "none"
    num_layer_groups: int = 1
    layers_per_group: int = 1
    block_layout: Literal["pre", "post"] = "pre"
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    norm_eps: float = 1e-6
    norm_embeddings: bool = False
    hidden_act: str = "silu"
    positions: Literal["rotary", "learned", "sinusoidal", "none"] = "rotary"
    rope_parameters: RopeParameters | dict | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    is_causal: bool = True
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, **kwargs) -> None:
        if self.head_dim is None:
            self.head_dim = self.hidden_size // max(self.num_attention_heads, 1)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.layer_types is None:
            kind = "full_attention" if self.sliding_window is None else "sliding_attention"
            self.layer_types = [kind] * self.num_hidden_layers
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        self.require_multiple("num_attention_heads", of="num_key_value_heads")
        for field in ("conv_kernel", "sliding_window", "layers_per_group"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not an activation that transformers knows")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        self.require_known_rope_type()
        if self.feature_map == "identity" and self.linear_output == "average":
            raise ValueError("feature_map='identity' has weights of both signs: it needs linear_output='rms_norm'")

    def validate_layers(self) -> None:
        """Whether each kind of layer has what it needs."""
        if unknown := set(self.layer_types) - set(KINDS):
            raise ValueError(f"layer_types may hold {', '.join(KINDS)}, got {sorted(unknown)[0]!r}")
        if "sliding_attention" in self.layer_types and self.sliding_window is None:
            raise ValueError("layer_types has 'sliding_attention', so sliding_window must be set")
        if self.feed_forward == "separable_conv" and self.is_causal and not self.is_recurrent:
            raise ValueError(
                "feed_forward='separable_conv' keeps a state in every layer, and the cache of an attention layer has "
                "no room for it: use layer_types of 'linear_attention' and 'conv', or is_causal=False"
            )

    def validate_sharing(self) -> None:
        """Whether layers that share a token mixer are of one kind."""
        groups, each = self.num_layer_groups, self.layers_per_group
        if self.sharing == "none" and groups != 1:
            raise ValueError(f"num_layer_groups={groups} needs a sharing other than 'none'")
        if self.sharing != "all" and each != 1:
            raise ValueError(f"layers_per_group={each} needs sharing='all', got {self.sharing!r}")
        if self.num_hidden_layers % each:
            raise ValueError(
                "num_hidden_layers must be a multiple of layers_per_group: "
                f"{self.num_hidden_layers} is not a multiple of {each}"
            )
        if groups * each > self.num_hidden_layers:
            raise ValueError(f"num_layer_groups={groups} is more than there are layers to share")
        if len(self.layer_types) != self.num_hidden_layers:
            return  # the base class says so
        kinds = {}
        for (mixer, _), kind in zip(sharing_plan(self), self.layer_types, strict=True):
            if kinds.setdefault(mixer, kind) != kind:
                raise ValueError(
                    f"sharing={self.sharing!r} lets a {kinds[mixer]!r} and a {kind!r} layer share a token mixer: "
                    "layer_types must be the same in all layers that share"
                )

    def validate_low_rank(self) -> None:
        """Whether every rank saves weights."""
        sizes = projection_sizes(self)
        for name, rank in low_ranks(self).items():
            most = largest_rank(*sizes[name])
            if not 1 <= rank <= most:
                raise ValueError(
                    f"low_rank[{name!r}]={self.low_rank[name]} is rank {rank}; from 1 to {most} it saves weights"
                )

    @property
    def is_recurrent(self) -> bool:
        """Whether every layer keeps a state, and none keys and values."""
        return all(kind in RECURRENT_LAYERS for kind in self.layer_types)

    @property
    def number_of_conv_states(self) -> int:
        """How many parts the state of a recurrent layer has."""
        return 2 if self.feed_forward == "separable_conv" else 1


def projection_sizes(config: ZooSlmConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every projection that may be of low rank."""
    inner, outer = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    hidden, wide = config.hidden_size, config.intermediate_size
    sizes = {"q_proj": (hidden, inner), "k_proj": (hidden, outer), "v_proj": (hidden, outer)}
    sizes |= {"o_proj": (inner, hidden), "up_proj": (hidden, wide), "down_proj": (wide, hidden)}
    return sizes | ({"gate_proj": (hidden, wide)} if config.feed_forward == "gated" else {})


def low_ranks(config: ZooSlmConfig) -> dict[str, int]:
    """Name of a projection -> its rank.

    Raises:
        ValueError: there is no such projection.
    """
    sizes, ranks = projection_sizes(config), {}
    for name, rank in (config.low_rank or {}).items():
        if name not in sizes:
            raise ValueError(f"low_rank may name {', '.join(sizes)}, got {name!r}")
        ranks[name] = rank if isinstance(rank, int) else max(1, round(rank * min(sizes[name])))
    return ranks


def sharing_plan(config: ZooSlmConfig) -> list[tuple[int, int]]:
    """For each layer, which block its token mixer is of, and which its feed-forward network."""
    layers, groups, each = config.num_hidden_layers, config.num_layer_groups, config.layers_per_group
    if config.sharing == "none":
        return [(i, i) for i in range(layers)]
    if config.sharing == "cyclic":
        return [(i % groups, i % groups) for i in range(layers)]
    if config.sharing == "all":
        rounds = layers // each
        blocks = [i // each * groups // rounds * each + i % each for i in range(layers)]
        return [(block, block) for block in blocks]
    firsts = [-(-(i * groups // layers) * layers // groups) for i in range(layers)]  # of the group of layer i
    return [(first, i) if config.sharing == "attention" else (i, first) for i, first in enumerate(firsts)]
