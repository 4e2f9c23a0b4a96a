"""ALBERT as `zoo_slm`, and Llama, Mistral and Qwen3, the dense models that it makes smaller."""

from typing import Any

from transformers.core_model_loading import WeightRenaming, WeightTransform

from .llm import llama_weights
from .table import Upstream

ALBERT_NAMES = {
    r"embeddings\.word_embeddings\.": r"embed_tokens\.",
    r"embeddings\.position_embeddings\.": r"embed_positions\.",
    r"embeddings\.token_type_embeddings\.": r"embed_types\.",
    r"embeddings\.LayerNorm\.": r"embed_norm\.",
    r"encoder\.embedding_hidden_mapping_in\.": r"embed_proj\.",
    r"attention\.query\.": r"self_attn\.q_proj\.",
    r"attention\.key\.": r"self_attn\.k_proj\.",
    r"attention\.value\.": r"self_attn\.v_proj\.",
    r"attention\.dense\.": r"self_attn\.o_proj\.",
    r"attention\.LayerNorm\.": r"mixer_norm\.",
    r"ffn\.": r"mlp\.up_proj\.",
    r"ffn_output\.": r"mlp\.down_proj\.",
    r"full_layer_layer_norm\.": r"mlp_norm\.",
    r"pooler\.": r"pooler\.dense\.",
    r"predictions\.dense\.": r"transform\.dense\.",
    r"predictions\.LayerNorm\.": r"transform\.norm\.",
    r"predictions\.decoder\.weight": r"lm_head\.weight",
    r"predictions\.bias": r"lm_head\.bias",
    r"sop_classifier\.classifier\.": r"seq_relationship\.",
}


def albert_weights() -> list[WeightTransform]:
    """Only names differ."""
    return [WeightRenaming(theirs, ours) for theirs, ours in ALBERT_NAMES.items()]


def albert_groups(config: Any) -> list[WeightTransform]:
    """Blocks are numbered group by group, and in a group one by one."""
    each = config.layers_per_group
    return [
        WeightRenaming(
            rf"encoder\.albert_layer_groups\.{group}\.albert_layers\.{i}\.", rf"(?<!_)layers\.{group * each + i}\."
        )
        for group in range(config.num_layer_groups)
        for i in range(each)
    ]


UPSTREAM = [
    Upstream(
        "albert",
        albert_weights,
        sized_weights=albert_groups,
        renamed={
            "norm_eps": "layer_norm_eps",
            "hidden_dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
            "classifier_dropout": "classifier_dropout_prob",
            "num_layer_groups": "num_hidden_groups",
            "layers_per_group": "inner_group_num",
        },
        derived={"num_hidden_layers": (None, lambda config: config.num_hidden_layers * config.inner_group_num)},
        written={"num_hidden_layers": lambda config: config.num_hidden_layers // config.layers_per_group},
        fixed={
            "positions": "learned",
            "sharing": "all",
            "block_layout": "post",
            "norm": "layer_norm",
            "norm_embeddings": True,
            "feed_forward": "plain",
            "attention_bias": True,
            "mlp_bias": True,
            "is_causal": False,
        },
    ),
    Upstream("llama", llama_weights, renamed={"norm_eps": "rms_norm_eps"}),
    Upstream("mistral", llama_weights, renamed={"norm_eps": "rms_norm_eps"}),
    Upstream(
        "qwen3",
        llama_weights,
        renamed={"norm_eps": "rms_norm_eps"},
        fixed={"qk_norm": True},
        written={"use_sliding_window": lambda config: config.sliding_window is not None},
    ),
]
