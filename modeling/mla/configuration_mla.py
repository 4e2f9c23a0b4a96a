"""Configuration of the decoder with multi-head latent attention."""

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RopeParameters

from ..routed_config import RoutedConfig, RouterType


@strict
class ZooMlaConfig(RoutedConfig):
    """Sizes of latent attention, and of the feed-forward layers behind it; the defaults are DeepSeek-V2-Lite's.

    All layers are dense with `first_k_dense_replace` at `num_hidden_layers`.

    Args:
        kv_lora_rank: numbers of a token that keys and values of all heads are made from, and that the cache keeps.
        q_lora_rank: the same for queries, which nothing keeps; None for queries straight from the hidden state.
        qk_nope_head_dim, qk_rope_head_dim: sizes of the plain and of the rotary part of a key; the latter is one for
            all heads, and kept beside the latent.
        v_head_dim: size of a value.
        rope_interleave: whether RoPE turns pairs of neighbours, as in the published weights, or halves.
        is_causal: False makes an encoder, where every token sees all of its document.
        num_nextn_predict_layers: modules that predict the tokens after the next in training (V3).
        mtp_loss_coef: weight of their mean loss.
    """

    model_type = "zoo_mla"
    keys_to_ignore_at_inference = ["past_key_values"]
    may_be_zero = ("num_nextn_predict_layers",)

    vocab_size: int = 102400
    hidden_size: int = 2048
    intermediate_size: int = 10944
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    kv_lora_rank: int = 512
    q_lora_rank: int | None = None
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    rope_interleave: bool = True
    rope_parameters: RopeParameters | dict | None = None
    max_position_embeddings: int = 163840
    is_causal: bool = True
    router_type: RouterType = "deepseek"
    num_experts: int = 64
    num_experts_per_tok: int = 6
    moe_intermediate_size: int | None = 1408
    n_shared_experts: int = 2
    first_k_dense_replace: int = 1
    num_nextn_predict_layers: int = 0
    mtp_loss_coef: float = 0.3
    norm_eps: float = 1e-6
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    classifier_dropout: float = 0.0
    initializer_range: float = 0.006
    tie_word_embeddings: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1

    def __post_init__(self, **kwargs) -> None:
        if not self.is_causal:
            self.use_cache = False
        super().__post_init__(**kwargs)

    @property
    def head_dim(self) -> int:
        """What rotary positions turn."""
        return self.qk_rope_head_dim

    @property
    def layer_types(self) -> list[str]:
        """All layers see everything before them."""
        return ["full_attention"] * self.num_hidden_layers

    @property
    def attention_tp_plan(self) -> dict[str, str]:
        """Heads are split over devices; what makes the latent is on each."""
        queries = "q_proj" if self.q_lora_rank is None else "q_b_proj"
        split = {
            queries: "colwise",
            "kv_a_proj_with_mqa": "mla_kv_a_proj",
            "kv_b_proj": "colwise",
            "o_proj": "rowwise",
        }
        return {f"layers.*.self_attn.{name}": how for name, how in split.items()}

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        for field in ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")
        if self.qk_rope_head_dim % 2:
            raise ValueError(f"qk_rope_head_dim must be even for rotary positions, got {self.qk_rope_head_dim}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is not an activation that transformers knows")
        rope_type = (self.rope_parameters or {}).get("rope_type", "default")
        if rope_type != "default" and rope_type not in ROPE_INIT_FUNCTIONS:
            known = ", ".join(sorted(ROPE_INIT_FUNCTIONS))
            raise ValueError(f"rope_parameters: rope_type {rope_type!r} is not one of default, {known}")
        self.validate_routing()
