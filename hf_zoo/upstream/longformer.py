"""Longformer as `zoo_longformer`."""

from functools import partial

from .mlm import NAMES, RENAMED, ROBERTA_CLASSIFIER, ROBERTA_HEADS, offset_of, renamings
from .table import Upstream

GLOBAL_NAMES = {
    rf"attention\.self\.{theirs}_global\.": rf"self_attn\.{ours}_global_proj\."
    for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v"))
}
UPSTREAM = [
    Upstream(
        "longformer",
        partial(renamings, GLOBAL_NAMES, NAMES, ROBERTA_HEADS),
        renamed=RENAMED,
        fixed={"block_layout": "post", "attention_dilation": 1, "global_positions": None, "global_token_ids": None},
        derived={"position_offset": (None, offset_of)},
        required={"hidden_act": "gelu"},  # of its masked LM, whatever the config says
        task_weights={"sequence-classification": partial(renamings, ROBERTA_CLASSIFIER)},
    )
]
