"""Configuration of the dense decoder."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import RopeParameters

from ..base_config import ZooConfig


@strict
class ZooLlmConfig(ZooConfig):
    """Sizes and choices of a dense decoder; the defaults are LLaMA's.

    Args:
        block_layout: "pre" norm (GPT-2, LLaMA), "post" norm (the 2017 transformer, GPT-1), "parallel" attention and
            MLP on one norm (GPT-J, PaLM), or "output" norm inside the residual branch (OLMo-2).
        positions: "rotary" takes its angles from `rope_parameters` (`partial_rotary_factor` turns part of each head).
        layer_types: "full_attention" or "sliding_attention" for each layer; all sliding if `sliding_window` is set.
        attention_softmax: "off_by_one" adds `softmax_offset` to the denominator, so that a head may attend to
            nothing; "learned_sink" learns that number for each head.
        attention_scaling: factor on the scores, 1 / sqrt(head_dim) by default (muP has 1 / head_dim).
        clip_qkv: queries, keys and values are clamped to plus and minus this.
        norm_embeddings: whether the embeddings are normalised (BLOOM).
        embedding_multiplier, logit_multiplier: factors of muP on the embeddings and on the logits.
        scale_residual_init: whether projections onto the residual stream start smaller by sqrt(2 layers) (GPT-2).
        z_loss_coefficient: weight of log(sum exp logits)^2 in the loss, for instance 1e-4 (PaLM).
    """

    model_type = "zoo_llm"
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
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    block_layout: Literal["pre", "post", "parallel", "output"] = "pre"
    norm: Literal["rms_norm", "layer_norm", "layer_norm_without_affine"] = "rms_norm"
    norm_eps: float = 1e-6
    hidden_act: str = "silu"
    is_gated_mlp: bool = True
    positions: Literal["rotary", "learned", "sinusoidal", "alibi", "none"] = "rotary"
    rope_parameters: RopeParameters | dict | None = None
    sliding_window: int | None = None
    layer_types: list[str] | None = None
    attention_softmax: Literal["standard", "off_by_one", "learned_sink"] = "standard"
    softmax_offset: float = 1.0
    attention_scaling: float | None = None
    clip_qkv: float | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_embeddings: bool = False
    embedding_multiplier: float = 1.0
    logit_multiplier: float = 1.0
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    classifier_dropout: float = 0.0
    initializer_range: float = 0.02
    scale_residual_init: bool = False
    z_loss_coefficient: float = 0.0
    tie_word_embeddings: bool = False
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
        if not self.is_gated_mlp:
            plan = self.base_model_tp_plan.items()
            self.base_model_tp_plan = {name: style for name, style in plan if not name.endswith("gate_proj")}
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        self.require_multiple("hidden_size", of="num_attention_heads")
        self.require_multiple("num_attention_heads", of="num_key_value_heads")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not an activation that transformers knows")
        if "sliding_attention" in self.layer_types and self.sliding_window is None:
            raise ValueError("layer_types has 'sliding_attention', so sliding_window must be set")
        if unknown := set(self.layer_types) - {"full_attention", "sliding_attention"}:
            raise ValueError(
                f"layer_types may hold 'full_attention' and 'sliding_attention', got {sorted(unknown)[0]!r}"
            )
        if self.softmax_offset <= 0:
            raise ValueError(f"softmax_offset must be positive, got {self.softmax_offset}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        self.require_known_rope_type()
