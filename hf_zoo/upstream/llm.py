"""Llama, Mistral, OLMo, GPT-2, StarCoder and BLOOM as `zoo_llm`."""

from transformers.core_model_loading import Chunk, Transpose, WeightConverter, WeightRenaming, WeightTransform

from .operations import SplitByHead, SplitByTarget
from .table import Upstream

QKV = [f"self_attn.{name}_proj" for name in "qkv"]
FINAL_NORM = r"(?<!_)norm\."  # not `mixer_norm.` and `mlp_norm.`


def llama_weights() -> list[WeightTransform]:
    """Only the names of the norms differ."""
    return [
        WeightRenaming(r"input_layernorm\.", r"mixer_norm\."),
        WeightRenaming(r"post_attention_layernorm\.", r"mlp_norm\."),
    ]


def olmo_weights() -> list[WeightTransform]:
    """Its norms have no weights, so no name differs."""
    return []


def gpt_names() -> list[WeightTransform]:
    """What GPT-2 and StarCoder share."""
    return [
        WeightRenaming(r"wte\.", r"embed_tokens\."),
        WeightRenaming(r"wpe\.", r"embed_positions\."),
        WeightRenaming(r"h\.(\d+)\.", r"layers\.\1\."),
        WeightRenaming(r"ln_1\.", r"mixer_norm\."),
        WeightRenaming(r"ln_2\.", r"mlp_norm\."),
        WeightRenaming(r"ln_f\.", FINAL_NORM),
    ]


def gpt2_weights() -> list[WeightTransform]:
    """GPT-2's linear layers are stored (in, out), with queries, keys and values side by side."""
    return [
        *gpt_names(),
        WeightRenaming(r"attn\.c_proj\.bias", r"self_attn\.o_proj\.bias"),
        WeightRenaming(r"mlp\.c_fc\.bias", r"mlp\.up_proj\.bias"),
        WeightRenaming(r"mlp\.c_proj\.bias", r"mlp\.down_proj\.bias"),
        WeightConverter("attn.c_attn.weight", [f"{n}.weight" for n in QKV], [Transpose(0, 1), Chunk(dim=0)]),
        WeightConverter("attn.c_attn.bias", [f"{n}.bias" for n in QKV], [Chunk(dim=0)]),
        WeightConverter("attn.c_proj.weight", "self_attn.o_proj.weight", [Transpose(0, 1)]),
        WeightConverter("mlp.c_fc.weight", "mlp.up_proj.weight", [Transpose(0, 1)]),
        WeightConverter("mlp.c_proj.weight", "mlp.down_proj.weight", [Transpose(0, 1)]),
    ]


def starcoder_weights() -> list[WeightTransform]:
    """One fused projection: all query heads, then one key head and one value head."""
    return [
        *gpt_names(),
        WeightRenaming(r"attn\.c_proj\.", r"self_attn\.o_proj\."),
        WeightRenaming(r"mlp\.c_fc\.", r"mlp\.up_proj\."),
        WeightRenaming(r"mlp\.c_proj\.", r"mlp\.down_proj\."),
        WeightConverter("attn.c_attn.weight", [f"{n}.weight" for n in QKV], [SplitByTarget()]),
        WeightConverter("attn.c_attn.bias", [f"{n}.bias" for n in QKV], [SplitByTarget()]),
    ]


def bloom_weights() -> list[WeightTransform]:
    """One fused projection, head by head."""
    fused = "self_attention.query_key_value"
    return [
        WeightRenaming(r"word_embeddings_layernorm\.", r"embed_norm\."),
        WeightRenaming(r"word_embeddings\.", r"embed_tokens\."),
        WeightRenaming(r"h\.(\d+)\.", r"layers\.\1\."),
        WeightRenaming(r"input_layernorm\.", r"mixer_norm\."),
        WeightRenaming(r"post_attention_layernorm\.", r"mlp_norm\."),
        WeightRenaming(r"ln_f\.", FINAL_NORM),
        WeightRenaming(r"self_attention\.dense\.", r"self_attn\.o_proj\."),
        WeightRenaming(r"mlp\.dense_h_to_4h\.", r"mlp\.up_proj\."),
        WeightRenaming(r"mlp\.dense_4h_to_h\.", r"mlp\.down_proj\."),
        WeightConverter(f"{fused}.weight", [f"{n}.weight" for n in QKV], [SplitByHead()]),
        WeightConverter(f"{fused}.bias", [f"{n}.bias" for n in QKV], [SplitByHead()]),
    ]


GPT = {
    "renamed": {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "hidden_act": "activation_function",
        "norm_eps": "layer_norm_epsilon",
        "embedding_dropout": "embd_pdrop",
        "attention_dropout": "attn_pdrop",
        "residual_dropout": "resid_pdrop",
    },
    "fixed": {
        "norm": "layer_norm",
        "is_gated_mlp": False,
        "positions": "learned",
        "attention_bias": True,
        "mlp_bias": True,
        "scale_residual_init": True,
    },
    "derived": {"intermediate_size": ("n_inner", lambda config: config.n_inner or 4 * config.n_embd)},
}

UPSTREAM = [
    Upstream("llama", llama_weights, renamed={"norm_eps": "rms_norm_eps"}),
    Upstream("mistral", llama_weights, renamed={"norm_eps": "rms_norm_eps"}),
    Upstream(
        "olmo",
        olmo_weights,
        # Upstream's norm has this eps whatever the config says
        fixed={"norm": "layer_norm_without_affine", "norm_eps": 1e-5},
    ),
    Upstream("gpt2", gpt2_weights, **GPT, required={"scale_attn_weights": True, "add_cross_attention": False}),
    Upstream("gpt_bigcode", starcoder_weights, **GPT, required={"multi_query": True, "add_cross_attention": False}),
    Upstream(
        "bloom",
        bloom_weights,
        renamed={
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "norm_eps": "layer_norm_epsilon",
            "residual_dropout": "hidden_dropout",
        },
        fixed={
            "norm": "layer_norm",
            "hidden_act": "gelu_new",
            "is_gated_mlp": False,
            "positions": "alibi",
            "attention_bias": True,
            "mlp_bias": True,
            "norm_embeddings": True,
        },
        derived={"intermediate_size": (None, lambda config: 4 * config.hidden_size)},
        required={"apply_residual_connection_post_layernorm": False},
    ),
]
