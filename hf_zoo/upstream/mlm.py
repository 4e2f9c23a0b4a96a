"""BERT and RoBERTa as `zoo_mlm`."""

from functools import partial
from typing import Any

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
}
BERT_HEADS = {
    r"cls\.predictions\.transform\.dense\.": r"transform\.dense\.",
    r"cls\.predictions\.transform\.LayerNorm\.": r"transform\.norm\.",
    r"cls\.predictions\.decoder\.weight": r"lm_head\.weight",
    r"cls\.predictions\.bias": r"lm_head\.bias",
    r"cls\.seq_relationship\.": r"seq_relationship\.",
}
ROBERTA_HEADS = {
    r"^lm_head\.dense\.": r"^transform\.dense\.",
    r"^lm_head\.layer_norm\.": r"^transform\.norm\.",
    r"^lm_head\.decoder\.weight": r"^lm_head\.weight",
}
# A classifier of two layers: the pooler of BERT under another name
ROBERTA_CLASSIFIER = {
    r"^score\.dense\.": r"^model\.pooler\.dense\.",
    r"^score\.out_proj\.": r"^score\.",
}
RENAMED = {
    "norm_eps": "layer_norm_eps",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
ENCODER_ONLY = {"is_decoder": False, "add_cross_attention": False}


def renamings(*tables: dict[str, str]) -> list[WeightTransform]:
    """Only names differ."""
    return [WeightRenaming(theirs, ours) for table in tables for theirs, ours in table.items()]


def offset_of(config: Any) -> int:
    """RoBERTa counts positions from the one after that of padding."""
    return config.pad_token_id + 1


UPSTREAM = [
    Upstream(
        "bert",
        partial(renamings, NAMES, BERT_HEADS),
        renamed=RENAMED,
        fixed={"block_layout": "post", "position_offset": 0},
        required=ENCODER_ONLY,
    ),
    Upstream(
        "roberta",
        partial(renamings, NAMES, ROBERTA_HEADS),
        renamed=RENAMED,
        fixed={"block_layout": "post"},
        derived={"position_offset": (None, offset_of)},
        required={**ENCODER_ONLY, "hidden_act": "gelu"},  # of its masked LM, whatever the config says
        task_weights={"sequence-classification": partial(renamings, ROBERTA_CLASSIFIER)},
    ),
]
