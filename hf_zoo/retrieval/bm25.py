"""BM25, the baseline that knows words and no meaning, by the `bm25s` library.

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond",
https://doi.org/10.1561/1500000019.
"""

from collections.abc import Iterable

import numpy as np

from ..errors import MissingExtra


class Bm25:
    """Search by the words that a question and a passage share.

    Args:
        texts: the passages.
        k1: how fast the weight of a repeated word saturates.
        b: how much long passages are held back, 0 to 1.
    """

    def __init__(self, texts: Iterable[str], k1: float = 1.5, b: float = 0.75) -> None:
        try:
            import bm25s
        except ImportError:
            raise MissingExtra("bm25s", "retrieval") from None
        self._split = bm25s.tokenize
        self._index = bm25s.BM25(k1=k1, b=b)
        self._index.index(self._split(list(texts), show_progress=False), show_progress=False)

    def search(self, questions: list[str], k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """Scores (Q, k) and numbers (Q, k) of the best passages, best first."""
        k = min(k, self._index.scores["num_docs"])
        words = self._split(questions, show_progress=False)
        rows, scores = self._index.retrieve(words, k=k, show_progress=False)
        return scores, rows.astype(np.int64)
