"""transformers' DeBERTa, version 1 ("deberta") and versions 2 and 3 ("deberta-v2"), as `zoo_deberta`."""

from typing import Any

from transformers.core_model_loading import WeightConverter, WeightRenaming, WeightTransform

from .operations import SplitByHead
from .table import Upstream

NAMES = {
    r"embeddings\.word_embeddings\.": r"embed_tokens\.",
    r"embeddings\.position_embeddings\.": r"embed_positions\.",
    r"embeddings\.token_type_embeddings\.": r"embed_types\.",
    r"embeddings\.embed_proj\.": r"embed_proj\.",
    r"embeddings\.LayerNorm\.": r"embed_norm\.",
    r"encoder\.rel_embeddings\.": r"relative\.embedding\.",
    r"encoder\.layer\.(\d+)\.": r"layers\.\1\.",
    r"attention\.output\.dense\.": r"self_attn\.o_proj\.",
    r"attention\.output\.LayerNorm\.": r"mixer_norm\.",
    r"intermediate\.dense\.": r"mlp\.up_proj\.",
    r"output\.dense\.": r"mlp\.down_proj\.",
    r"output\.LayerNorm\.": r"mlp_norm\.",
}
VERSION_1 = {
    r"attention\.self\.q_bias": r"self_attn\.q_proj\.bias",
    r"attention\.self\.v_bias": r"self_attn\.v_proj\.bias",
    r"attention\.self\.pos_proj\.": r"self_attn\.pos_k_proj\.",
    r"attention\.self\.pos_q_proj\.": r"self_attn\.pos_q_proj\.",
}
VERSION_2 = {
    r"attention\.self\.query_proj\.": r"self_attn\.q_proj\.",
    r"attention\.self\.key_proj\.": r"self_attn\.k_proj\.",
    r"attention\.self\.value_proj\.": r"self_attn\.v_proj\.",
    r"attention\.self\.pos_key_proj\.": r"self_attn\.pos_k_proj\.",
    r"attention\.self\.pos_query_proj\.": r"self_attn\.pos_q_proj\.",
    r"encoder\.LayerNorm\.": r"relative\.norm\.",
    r"encoder\.conv\.conv\.": r"layers\.0\.local\.conv\.",
    r"encoder\.conv\.LayerNorm\.": r"layers\.0\.local\.norm\.",
}
LEGACY_HEAD = {
    r"^cls\.predictions\.transform\.dense\.": r"^transform\.dense\.",
    r"^cls\.predictions\.transform\.LayerNorm\.": r"^transform\.norm\.",
    r"^cls\.predictions\.decoder\.weight": r"^lm_head\.weight",
    r"^cls\.predictions\.bias": r"^lm_head\.bias",
}
AUTHORS_HEAD = {
    r"^lm_predictions\.lm_head\.dense\.": r"^transform\.dense\.",
    r"^lm_predictions\.lm_head\.LayerNorm\.": r"^transform\.norm\.",
    r"^lm_predictions\.lm_head\.bias": r"^lm_head\.bias",
}


def _renamings(names: dict[str, str]) -> list[WeightTransform]:
    return [WeightRenaming(theirs, ours) for theirs, ours in names.items()]


def version_1_weights() -> list[WeightTransform]:
    """Queries, keys and values are one projection upstream, ordered head by head."""
    fused, parts = "attention.self.in_proj.weight", [f"self_attn.{name}_proj.weight" for name in "qkv"]
    return [*_renamings({**NAMES, **VERSION_1}), WeightConverter([fused], parts, [SplitByHead()])]


def version_2_weights() -> list[WeightTransform]:
    """Only names differ."""
    return _renamings({**NAMES, **VERSION_2})


def head_weights(config: Any) -> list[WeightTransform]:
    """Both heads of a masked LM are read: published files hold the authors' under configs that say legacy. The last
    one of the list is the one that is written."""
    heads = (AUTHORS_HEAD, LEGACY_HEAD) if config.legacy_head else (LEGACY_HEAD, AUTHORS_HEAD)
    return [renaming for head in heads for renaming in _renamings(head)]


def position_terms(config: Any) -> list[str]:
    """The terms of relative positions.

    Raises:
        ValueError: relative positions without a term, or a term without them.
    """
    if config.relative_attention != bool(config.pos_att_type):
        raise ValueError(
            f"{config.model_type} with relative_attention={config.relative_attention} and "
            f"pos_att_type={config.pos_att_type} cannot be opened: neither goes without the other"
        )
    return list(config.pos_att_type or [])


RENAMED = {
    "norm_eps": "layer_norm_eps",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "pooler_act": "pooler_hidden_act",
    "legacy_head": "legacy",
}
FIXED = {"p2c_index": "code", "mask_decoder_steps": 0, "generator": None}
REQUIRED = {"tie_word_embeddings": True}  # untied, upstream scores with another bias than it keeps
DERIVED = {
    "position_terms": (None, position_terms),
    "max_relative_positions": (
        "max_relative_positions",
        lambda c: c.max_relative_positions if c.max_relative_positions > 0 else c.max_position_embeddings,
    ),
    "embedding_size": (
        None,
        lambda c: None if getattr(c, "embedding_size", c.hidden_size) == c.hidden_size else c.embedding_size,
    ),
    "classifier_dropout": ("cls_dropout", lambda c: _or(getattr(c, "cls_dropout", None), c.hidden_dropout_prob)),
}
WRITTEN = {
    "relative_attention": lambda c: bool(c.position_terms),
    "pos_att_type": lambda c: c.position_terms or None,
    "embedding_size": lambda c: c.embedding_size or c.hidden_size,
}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


UPSTREAM = [
    Upstream(
        "deberta-v2",
        version_2_weights,
        sized_weights=head_weights,
        renamed=RENAMED,
        derived={
            **DERIVED,
            "position_buckets": ("position_buckets", lambda c: max(0, getattr(c, "position_buckets", 0))),
            "norm_relative": (None, lambda c: "layer_norm" in getattr(c, "norm_rel_ebd", "none").lower()),
            "share_projections": ("share_att_key", lambda c: getattr(c, "share_att_key", False)),
            "conv_kernel_size": ("conv_kernel_size", lambda c: getattr(c, "conv_kernel_size", 0)),
            "conv_groups": ("conv_groups", lambda c: getattr(c, "conv_groups", 1)),
            "conv_act": ("conv_act", lambda c: getattr(c, "conv_act", "tanh")),
        },
        written={**WRITTEN, "norm_rel_ebd": lambda c: "layer_norm" if c.norm_relative else "none"},
        fixed={**FIXED, "key_bias": True},
        required=REQUIRED,
        other_meaning=("pre-training",),
    ),
    Upstream(
        "deberta",
        version_1_weights,
        sized_weights=head_weights,
        renamed=RENAMED,
        derived=DERIVED,
        written=WRITTEN,
        fixed={
            **FIXED,
            **{"position_buckets": 0, "norm_relative": False, "share_projections": False, "key_bias": False},
            "conv_kernel_size": 0,
        },
        required={**REQUIRED, "talking_head": False},
        other_meaning=("pre-training",),
    ),
]
