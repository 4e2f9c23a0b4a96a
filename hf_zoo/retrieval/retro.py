"""Neighbours for RETRO: a database of the chunks of tokenised texts, each with what comes after it.

    database = build_chunks(texts, tokenizer, encoder, "chunks", document_column="path")
    rows = add_neighbours(rows, database, k=2, document_column="path")      # a column for training
    model.generate(**prompt, retriever=database.retriever(k=2))             # asked once a chunk

It is a `PassageIndex` whose passages are the chunks. Neighbours are nearest by Euclidean distance, which a product
finds too once each vector has one more number: -|x - y|^2 / 2 = [x, -|x|^2 / 2] . [y, 1] + a constant.

Shapes: n chunks, m tokens a chunk, k neighbours, D vector size, l chunks of a row.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.text import text_column
from .checks import check_columns
from .encoder import TextEncoder
from .index import PassageIndex, build_index

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_SHARD = 2048  # rows that get their neighbours between two marks in the cache of `datasets`
_PROBE = ["def f(x):\n    return x + 1\n", "The quick brown fox."]

Embedding = Callable[[list[str]], np.ndarray]  # n texts -> (n, D)


class _Keys:
    """An encoder, or a function, as an index wants it: vectors whose products are distances."""

    def __init__(self, encoder: TextEncoder | Embedding) -> None:
        self.encoder = encoder

    def description(self) -> dict[str, Any]:
        """What the index remembers, see `TextEncoder.description`."""
        if isinstance(self.encoder, TextEncoder):
            return {**self.encoder.description(), "distance": "euclidean"}
        vectors = np.ascontiguousarray(self.encoder(_PROBE), np.float32)
        name = getattr(self.encoder, "__name__", type(self.encoder).__name__)
        settings = {"pooling": "function", "max_length": 0, "is_normalised": False, "distance": "euclidean"}
        return {"name": name, "fingerprint": hashlib.sha256(vectors.tobytes()).hexdigest()[:32], **settings}

    def passages(self, texts: list[str], batch_size: int = 32) -> np.ndarray:
        """Vectors of what is found (n, D + 1)."""
        x = self._encode(texts, batch_size)
        return np.concatenate([x, -0.5 * np.square(x).sum(1, keepdims=True)], axis=1)

    def questions(self, texts: list[str], batch_size: int = 32) -> np.ndarray:
        """Vectors of what neighbours are looked for (n, D + 1)."""
        x = self._encode(texts, batch_size)
        return np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)

    def _encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        if isinstance(self.encoder, TextEncoder):
            return self.encoder.passages(texts, batch_size)
        return np.asarray(self.encoder(texts), np.float32)


def build_chunks(
    texts: "Dataset",
    tokenizer: "PreTrainedTokenizerBase",
    encoder: TextEncoder | Embedding,
    folder: str | Path,
    chunk_size: int = 64,
    column: str | None = None,
    document_column: str | None = None,
    batch_size: int = 32,
) -> "ChunkDatabase":
    """Cut texts into chunks and build an index of them; the same call goes on with one that was cut off.

    Args:
        texts: one document a row; what is left of one after its last whole chunk only continues that chunk.
        tokenizer: of the model that will read the neighbours.
        encoder: makes the keys and is not trained: a mean of BERT's hidden states as published, any `TextEncoder`, or
            a function from texts to vectors (n, D), the same at every call.
        folder: new, empty, or half built by the same call.
        chunk_size: m.
        column: of the text, found by its name without it.
        document_column: what tells documents apart, strings or numbers; without it the number of the row.
        batch_size: chunks that are encoded at once.

    Raises:
        ValueError: a column is missing, or no text has as many tokens as a chunk.
    """
    column = text_column(texts) if column is None else column
    check_columns(texts, column, document_column)

    def cut(rows: dict[str, list], numbers: list[int]) -> dict[str, list]:
        found = {"text": [], "tokens": [], "document": []}
        ids = tokenizer(rows[column], add_special_tokens=False, return_attention_mask=False, verbose=False).input_ids
        for document, tokens in zip(rows[document_column] if document_column else numbers, ids, strict=True):
            for start in range(0, len(tokens) - chunk_size + 1, chunk_size):
                chunk = tokens[start : start + 2 * chunk_size]
                found["text"].append(tokenizer.decode(chunk[:chunk_size]))
                found["tokens"].append(chunk + [-1] * (2 * chunk_size - len(chunk)))
                found["document"].append(document)
        return found

    chunks = texts.map(
        cut, batched=True, with_indices=True, remove_columns=texts.column_names, batch_size=64, desc="Cutting"
    )
    if not len(chunks):
        raise ValueError(f"no text has chunk_size={chunk_size} tokens")
    index = build_index(chunks, _Keys(encoder), folder, batch_size=batch_size)
    return ChunkDatabase(index, tokenizer)


class ChunkDatabase:
    """Chunks with their continuations, by what they look like; read from disk as they are found.

    Args:
        index: of chunks, see `build_chunks`. One that is changed later must be opened again.
        tokenizer: of the model.
    """

    def __init__(self, index: PassageIndex, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.index = index
        self.tokenizer = tokenizer
        self._numbers = index.numbers()
        self._rows = index.passages().with_format("numpy")
        self._documents = index.passages().with_format("arrow")
        self.chunk_size = len(self._rows[0]["tokens"]) // 2

    @classmethod
    def open(
        cls, folder: str | Path, tokenizer: "PreTrainedTokenizerBase", encoder: TextEncoder | Embedding
    ) -> "ChunkDatabase":
        """One that was built, with the encoder that made it.

        Raises:
            ValueError: another encoder, or no index.
        """
        return cls(PassageIndex.open(folder, _Keys(encoder)), tokenizer)

    def __len__(self) -> int:
        """Chunks that can be found."""
        return len(self.index)

    def neighbours(
        self, chunks: "Tensor | np.ndarray", k: int = 2, documents: Iterable[Any] | None = None
    ) -> np.ndarray:
        """The k nearest chunks to each of some, nearest first, with their continuations.

        Args:
            chunks: (n, m), tokens.
            k: how many.
            documents: n documents, or lists of documents, whose own chunks are not wanted: what is to be predicted
                stands there. None where the chunks are of none.

        Returns:
            (n, k, 2 m) token ids, -1 after the end of a document, and throughout where there are fewer than k.
        """
        texts = [self.tokenizer.decode(chunk) for chunk in chunks]
        found = np.full((len(texts), k, 2 * self.chunk_size), -1, np.int64)
        if not len(texts):
            return found
        vectors = self.index.encoder.questions(texts)
        own = [set()] * len(texts) if documents is None else [_as_set(document) for document in documents]
        if len(own) != len(texts):
            raise ValueError(f"documents must have one entry for each of the {len(texts)} chunks, got {len(own)}")
        open_rows, wanted = np.arange(len(texts)), k if documents is None else 2 * k
        while len(open_rows):
            wanted = min(wanted, len(self))
            rows = np.searchsorted(self._numbers, self.index.search_vectors(vectors[open_rows], wanted)[1])
            again = []
            for i, near in zip(open_rows, rows, strict=True):
                if own[i]:
                    names = self._documents[near.tolist()]["document"].to_pylist()
                    near = np.array([n for n, name in zip(near, names, strict=True) if name not in own[i]], int)
                if len(near) < k and wanted < len(self):
                    again.append(i)
                elif len(near):
                    tokens = self._rows[near[:k].tolist()]["tokens"]
                    found[i, : len(tokens)] = tokens
            open_rows, wanted = np.array(again, int), 4 * wanted
        return found

    def retriever(self, k: int = 2, document: Any = None) -> Callable[[Tensor], Tensor]:
        """What a model's `retriever` is: chunks (n, m) -> neighbours (n, k, 2 m), none of them of a document."""

        def retrieve(chunks: Tensor) -> Tensor:
            documents = None if document is None else [document] * len(chunks)
            return torch.from_numpy(self.neighbours(chunks.cpu(), k, documents)).to(chunks.device)

        return retrieve

    def fingerprint(self) -> str:
        """Changes with what is found: for caches of neighbours."""
        record = (self.index.folder / "index.json").read_bytes()
        segments = [segment.record for segment in self.index.segments]
        return hashlib.sha256(record + json.dumps(segments, sort_keys=True).encode()).hexdigest()[:32]


def _as_set(document: Any) -> set:
    return set(document) if isinstance(document, list | tuple | set) else {document}


def add_neighbours(
    rows: "Dataset", database: ChunkDatabase, k: int = 2, document_column: str | None = None
) -> "Dataset":
    """Rows of tokens with a column `neighbour_ids` (l, k, 2 m), as the model takes it, for training.

    Neighbours are found once, with progress, and stay in the cache of `datasets`: the same call finds them there, and
    goes on where an earlier one was cut off if the rows come from disk.

    Args:
        rows: with `input_ids` and, where documents are packed, `position_ids`; as `hf_zoo.data.pack` makes them.
        database: where to look.
        k: neighbours of a chunk.
        document_column: which document a row is of, or a list of them; their own chunks are left out. Without it a
            row may get its own continuation as a neighbour, if the database holds it.

    Raises:
        ValueError: a column is missing.
    """
    from datasets import concatenate_datasets

    check_columns(rows, "input_ids", document_column)
    size = database.chunk_size

    def find(batch: dict[str, list]) -> dict[str, list]:
        chunks, where, documents = [], [], []
        for i, ids in enumerate(batch["input_ids"]):
            positions = batch["position_ids"][i] if "position_ids" in batch else range(len(ids))
            ends = [t for t, position in enumerate(positions) if (position + 1) % size == 0]
            chunks += [ids[t - size + 1 : t + 1] for t in ends]
            where += [(i, u) for u in range(len(ends))]
            documents += [batch[document_column][i] if document_column else None] * len(ends)
        near = database.neighbours(np.array(chunks), k, documents if document_column else None)
        made = [np.full((len(ids) // size, k, 2 * size), -1, np.int64) for ids in batch["input_ids"]]
        for (i, u), one in zip(where, near, strict=True):
            made[i][u] = one
        return {"neighbour_ids": made}

    parts = []
    num_shards = -(-len(rows) // _SHARD)
    for i in range(num_shards):
        shard = rows.shard(num_shards, i, contiguous=True)
        key = f"{shard._fingerprint} {database.fingerprint()} {k} {document_column}"
        name = hashlib.sha256(key.encode()).hexdigest()[:16]
        desc = f"Finding neighbours, part {i + 1} of {num_shards}"
        parts.append(shard.map(find, batched=True, batch_size=64, new_fingerprint=name, desc=desc))
    return concatenate_datasets(parts)
