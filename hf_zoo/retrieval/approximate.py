"""FAISS, through `datasets`: approximate search, for indexes too large to compare whole.

ivf     rows in sqrt(N) lists by their nearest centre, of which a question looks through a few
hnsw    a graph of neighbours; fastest, and needs the most memory
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MissingExtra, unknown_name

if TYPE_CHECKING:
    from datasets.search import FaissIndex

KINDS = ("ivf", "hnsw")
_CHUNK = 1 << 16
_TRAINED_ON = 64  # vectors for each centre, as FAISS advises at least 39
_LEAST_LISTS = 8  # that a question looks through


def approximate_index(kind: str, parts: list[np.ndarray]) -> "FaissIndex":
    """An index that looks at a part of the rows.

    Args:
        kind: "ivf" or "hnsw".
        parts: vectors (N, D), memory-mapped ones too.
    """
    if kind not in KINDS:
        raise unknown_name("kind of index", kind, KINDS)
    from datasets.search import FaissIndex

    faiss = import_faiss()
    num_rows, size = sum(map(len, parts)), parts[0].shape[1]
    if kind == "hnsw":
        native = faiss.index_factory(size, "HNSW32", faiss.METRIC_INNER_PRODUCT)
    else:
        centres = max(1, round(math.sqrt(num_rows)))
        native = faiss.index_factory(size, f"IVF{centres},Flat", faiss.METRIC_INNER_PRODUCT)
        native.train(_sample(parts, min(num_rows, _TRAINED_ON * centres)))
        native.nprobe = min(centres, max(_LEAST_LISTS, centres // 16))
    index = FaissIndex(custom_index=native)
    for vectors in parts:
        for start in range(0, len(vectors), _CHUNK):
            chunk = np.asarray(vectors[start : start + _CHUNK], np.float32)
            index.add_vectors(chunk, batch_size=_CHUNK, faiss_verbose=False)
    return index


def open_approximate(path: Path) -> "FaissIndex":
    """One that was saved; the lists of an IVF index stay on disk and are read as they are used."""
    from datasets.search import FaissIndex

    faiss = import_faiss()
    return FaissIndex(custom_index=faiss.read_index(str(path), faiss.IO_FLAG_MMAP))


def search_faiss(
    index: "FaissIndex", questions: np.ndarray, deleted: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (Q, k) and row numbers (Q, k), -1 where fewer were found; deleted rows are passed over."""
    faiss = import_faiss()
    options = {}
    if len(deleted):
        selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(deleted))
        native = index.faiss_index
        if isinstance(native, faiss.IndexIVF):
            options["params"] = faiss.SearchParametersIVF(sel=selector, nprobe=native.nprobe)
        elif isinstance(native, faiss.IndexHNSW):
            options["params"] = faiss.SearchParametersHNSW(sel=selector, efSearch=native.hnsw.efSearch)
        else:
            options["params"] = faiss.SearchParameters(sel=selector)
    found = index.search_batch(np.ascontiguousarray(questions, np.float32), k, **options)
    return np.asarray(found.total_scores, np.float32), np.asarray(found.total_indices, np.int64)


def import_faiss():
    """FAISS, or the error that names the extra."""
    try:
        import faiss
    except ImportError:
        raise MissingExtra("faiss", "retrieval") from None
    return faiss


def _sample(parts: list[np.ndarray], size: int) -> np.ndarray:
    """`size` rows, evenly from all parts; the same at every call."""
    num_rows = sum(map(len, parts))
    rows = np.linspace(0, num_rows - 1, size).astype(np.int64)
    starts = np.cumsum([0, *map(len, parts)])
    taken = [part[rows[(rows >= a) & (rows < a + len(part))] - a] for a, part in zip(starts, parts, strict=False)]
    return np.concatenate(taken).astype(np.float32)
