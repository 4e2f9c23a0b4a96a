"""BERT and RoBERTa as `zoo_hibert` with one kind of block, which reads a segment as they read a row."""

from dataclasses import replace
from typing import Any

from .mlm import UPSTREAM as MLM
from .table import Upstream

SEGMENTS_ALONE = {
    **{"layout": "S", "segment_summary": "first", "pooling": "first", "num_ages": 0, "max_segments": 32},
    **{"view_masking": 0.5, "projection_size": 256, "target_decay": 0.996},
}


def places_of(upstream: Upstream) -> Any:
    """A function of an upstream config: how many tokens its row may have."""
    _, offset = upstream.derived.get("position_offset", (None, lambda config: 0))
    return lambda config: config.max_position_embeddings - offset(config)


def as_segments(upstream: Upstream) -> Upstream:
    """The line of zoo_mlm for one whose longest row is a segment."""
    size = (None, places_of(upstream))
    return replace(
        upstream,
        fixed={**upstream.fixed, **SEGMENTS_ALONE},
        other_meaning=("pre-training",),
        derived={**upstream.derived, "segment_size": size, "segment_stride": size},
    )


UPSTREAM = [as_segments(upstream) for upstream in MLM]
