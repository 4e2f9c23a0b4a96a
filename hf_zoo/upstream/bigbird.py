"""BigBird as `zoo_bigbird`."""

from functools import partial

from .mlm import BERT_HEADS, ENCODER_ONLY, NAMES, RENAMED, renamings
from .table import Upstream

POOLER = {r"pooler\.(weight|bias)": r"pooler\.dense\.\1"}
CLASSIFIER = {r"^score\.dense\.": r"^dense\.", r"^score\.out_proj\.": r"^score\."}
SPANS = {r"^qa_classifier\.": r"^qa_outputs\."}  # the names inside are those of a block
UPSTREAM = [
    Upstream(
        "big_bird",
        partial(renamings, POOLER, NAMES, BERT_HEADS),
        renamed=RENAMED,
        fixed={"block_layout": "post", "position_offset": 0, "random_seed": 0},
        required={**ENCODER_ONLY, "use_bias": True, "rescale_embeddings": False},
        task_weights={
            "sequence-classification": partial(renamings, CLASSIFIER),
            "question-answering": partial(renamings, SPANS),
        },
        unused=("pooler",),
    )
]
