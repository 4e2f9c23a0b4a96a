"""Exact search over vectors that may be larger than memory, in plain torch.

The scores of a block are one matrix product; of those only the best of each group of 64 rows are compared at first,
because the k best rows of a block lie in the k groups whose best is best. So all but one of the passes over the
scores are over a 64th of them.

Shapes: Q questions, N rows, D vector size.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_GROUP = 64
_SCORES = 1 << 22  # numbers that a block's scores may take: more leave the cache before they are compared


def search_exactly(
    questions: np.ndarray, parts: Iterable[tuple[int, np.ndarray]], deleted: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows with the greatest inner products, best first; of those alike any.

    Args:
        questions: (Q, D).
        parts: pairs of the number of the first row and vectors (N, D).
        deleted: sorted numbers of rows that are never found.
        k: how many; fewer come back where there are fewer rows.

    Returns:
        Scores (Q, k) in float32 and row numbers (Q, k).
    """
    q = torch.from_numpy(np.ascontiguousarray(questions, np.float32))
    size = max(_GROUP, _SCORES // max(1, len(q)) // _GROUP * _GROUP)
    scores, rows = torch.empty(len(q), 0), torch.empty(len(q), 0, dtype=torch.long)
    for first, vectors in parts:
        for start in range(0, len(vectors), size):
            block = torch.from_numpy(np.asarray(vectors[start : start + size]))
            own = q @ block.float().T  # (Q, n)
            gone = deleted[
                np.searchsorted(deleted, first + start) : np.searchsorted(deleted, first + start + len(block))
            ]
            own[:, torch.from_numpy(gone - first - start)] = -torch.inf
            best, where = _top(own, k)
            scores, rows = torch.cat([scores, best], 1), torch.cat([rows, where + first + start], 1)
            scores, order = scores.topk(min(k, scores.shape[1]), dim=1)
            rows = rows.gather(1, order)
    found = int((scores > -torch.inf).sum(1).min()) if len(q) else 0
    return scores[:, :found].numpy(), rows[:, :found].numpy()


def _top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k greatest of each row of scores (Q, n), and where they are."""
    num_rows = scores.shape[1]
    if num_rows <= 4 * k * _GROUP:
        return scores.topk(min(k, num_rows), dim=1)
    scores = F.pad(scores, (0, -num_rows % _GROUP), value=-torch.inf).unflatten(1, (-1, _GROUP))  # (Q, n / 64, 64)
    groups = scores.amax(-1).topk(k, dim=1).indices  # (Q, k)
    kept = scores.gather(1, groups[..., None].expand(-1, -1, _GROUP)).flatten(1)
    best, where = kept.topk(k, dim=1)
    return best, groups.gather(1, where // _GROUP) * _GROUP + where % _GROUP
