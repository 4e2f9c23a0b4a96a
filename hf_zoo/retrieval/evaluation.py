"""How well a search finds what it should.

    recall@k    share of the questions that have one of their passages among the first k
    MRR@k       mean of 1 / place of the first of them, 0 where it is beyond k

Shapes: Q questions.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .checks import check_columns

if TYPE_CHECKING:
    from datasets import Dataset


def evaluate(
    found: np.ndarray, relevant: Sequence[int | Sequence[int]], ks: Sequence[int] = (1, 5, 20)
) -> dict[str, float]:
    """Recall at each k, and MRR at the greatest.

    Args:
        found: (Q, n) numbers of passages, best first; n at least the greatest k, unless there are fewer passages.
        relevant: for each question the number of its passage, or several.
        ks: at how many passages to look.
    """
    if len(found) != len(relevant):
        raise ValueError(f"{len(found)} questions were searched, but {len(relevant)} have their passages named")
    wanted = [{row} if np.isscalar(row) else set(row) for row in relevant]
    places = np.full(len(found), np.inf)
    for question, (rows, right) in enumerate(zip(found[:, : max(ks)], wanted, strict=True)):
        hits = [place for place, row in enumerate(rows.tolist(), 1) if row in right]
        places[question] = min(hits, default=np.inf)
    measures = {f"recall@{k}": float((places <= k).mean()) for k in ks}
    return {**measures, f"mrr@{max(ks)}": float((1 / places).mean())}


def numbers_by_key(passages: "Dataset", numbers: np.ndarray, key: str, wanted: Iterable[object]) -> list[list[int]]:
    """For each question the numbers of the passages whose column `key` holds what the question's does.

    Args:
        passages: rows of an index.
        numbers: theirs.
        key: a column.
        wanted: the values of the questions.

    Raises:
        ValueError: there is no such column, or a question has no passage.
    """
    check_columns(passages, key)
    by_value: dict[object, list[int]] = {}
    for value, number in zip(passages[key], numbers.tolist(), strict=True):
        by_value.setdefault(value, []).append(number)
    found = [by_value.get(value, []) for value in wanted]
    if [] in found:
        missing = list(wanted)[found.index([])]
        raise ValueError(f"no passage has {key}={missing!r}, so what a question with it should find is unknown")
    return found
