"""An index in a vector database instead of a folder: the same words, any size, shared by many.

The database is Chroma, spoken to over HTTP by its own client. Start one with `chroma run --path FOLDER`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from ..errors import MissingExtra
from .checks import check_columns, check_encoder
from .encoder import TextEncoder
from .index import Hit

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 512  # passages in a request


class ServerIndex:
    """A collection of a Chroma server as an index.

    Args:
        url: of the server, such as http://localhost:8000.
        name: of the collection, which is made if it does not exist.
        encoder: makes the vectors; a collection of another encoder is refused.
        column: which column of passages is encoded.

    Raises:
        ConnectionError: nobody answers at the address.
        ValueError: the collection was made by another encoder.
    """

    def __init__(self, url: str, name: str, encoder: TextEncoder, column: str = "text") -> None:
        try:
            import chromadb
        except ImportError:
            raise MissingExtra("chromadb-client", "vector-database") from None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url must be like http://host:8000, got {url!r}")
        is_safe = parts.scheme == "https"
        port = parts.port or (443 if is_safe else 8000)
        try:
            client = chromadb.HttpClient(host=parts.hostname, port=port, ssl=is_safe)
        except ValueError as error:  # what the client raises when nobody answers
            raise ConnectionError(f"no Chroma server answers at {url}: {error}") from None
        self.encoder, self.column = encoder, column
        asked = {f"encoder_{key}": value for key, value in encoder.description().items()}
        self._collection = client.get_or_create_collection(
            name, metadata={"hnsw:space": "ip", **asked}, embedding_function=None
        )
        made_by = {key.removeprefix("encoder_"): value for key, value in (self._collection.metadata or {}).items()}
        check_encoder(name, {key: made_by.get(key) for key in encoder.description()}, encoder)

    def __len__(self) -> int:
        """Passages that can be found."""
        return self._collection.count()

    def add(self, passages: "Dataset", numbers: Iterable[int] | None = None, batch_size: int = 32) -> None:
        """Encode passages and send them; those with a number that exists take its place.

        Args:
            passages: rows; columns of text, numbers and truth values are kept.
            numbers: one for each; by default they are counted on.
            batch_size: texts that are encoded at once.
        """
        check_columns(passages, self.column)
        start = len(self)
        numbers = list(range(start, start + len(passages))) if numbers is None else list(numbers)
        for first in range(0, len(passages), _BATCH):
            rows = passages.select(range(first, min(first + _BATCH, len(passages)))).to_list()
            texts = [row[self.column] for row in rows]
            self._collection.upsert(
                ids=[str(number) for number in numbers[first : first + _BATCH]],
                embeddings=self.encoder.passages(texts, batch_size),
                documents=texts,
                metadatas=[{k: v for k, v in row.items() if isinstance(v, (str, int, float, bool))} for row in rows],
            )

    def delete(self, numbers: Iterable[int]) -> None:
        """Remove passages by their numbers."""
        self._collection.delete(ids=[str(number) for number in numbers])

    def search(self, questions: list[str], k: int = 5, batch_size: int = 32) -> list[list[Hit]]:
        """The k best passages for each question, best first."""
        vectors: np.ndarray = self.encoder.questions(questions, batch_size)
        found: dict[str, Any] = self._collection.query(
            query_embeddings=vectors, n_results=k, include=["metadatas", "distances"]
        )
        return [
            [Hit(int(number), 1.0 - far, dict(row)) for number, far, row in zip(*one, strict=True)]
            for one in zip(found["ids"], found["distances"], found["metadatas"], strict=True)
        ]
