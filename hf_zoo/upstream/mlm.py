"""BERT as `zoo_mlm`."""

from transformers.core_model_loading import WeightRenaming, WeightTransform

from .table import Upstream

NAMES = {
    r"embeddings\.word_embeddings\.": r"embed_tokens\.",
    r"embeddings\.position_embeddings\.": r"embed_positions\.",
    r"embeddings\.token_type_embeddings\.": r"embed_types\.",
    r"embeddings\.LayerNorm\.": r"embed_norm\.",
    r"encoder\.layer\.(\d+)\.": r"layers\.\1\.",
    r"attention\.self\.query\.": r"self_attn\.q_proj\.",
    r"attention\.self\.key\.": r"self_attn\.k_proj\.",
    r"attention\.self\.value\.": r"self_attn\.v_proj\.",
    r"attention\.output\.dense\.": r"self_attn\.o_proj\.",
    r"attention\.output\.LayerNorm\.": r"mixer_norm\.",
    r"intermediate\.dense\.": r"mlp\.up_proj\.",
    r"output\.dense\.": r"mlp\.down_proj\.",
    r"output\.LayerNorm\.": r"mlp_norm\.",
    r"cls\.predictions\.transform\.dense\.": r"transform\.dense\.",
    r"cls\.predictions\.transform\.LayerNorm\.": r"transform\.norm\.",
    r"cls\.predictions\.decoder\.weight": r"lm_head\.weight",
    r"cls\.predictions\.bias": r"lm_head\.bias",
    r"cls\.seq_relationship\.": r"seq_relationship\.",
}


def bert_weights() -> list[WeightTransform]:
    """Only names differ."""
    return [WeightRenaming(theirs, ours) for theirs, ours in NAMES.items()]


UPSTREAM = [
    Upstream(
        "bert",
        bert_weights,
        renamed={
            "norm_eps": "layer_norm_eps",
            "hidden_dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
        },
        fixed={"block_layout": "post"},
        required={"is_decoder": False, "add_cross_attention": False},
    )
]
