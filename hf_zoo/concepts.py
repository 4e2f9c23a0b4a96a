"""Texts as rows of sentence vectors, by any encoder: what `zoo_concept_predictor` learns from and goes on with.

Shapes: N texts, M sentences, S size of a sentence's vector.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .tokenization.sentence_segmenter import END_OF_TEXT, SentenceSegmenter

if TYPE_CHECKING:
    import torch


class SentenceEncoder(Protocol):
    """What makes vectors: a `SentenceTransformer`, or anything with its `encode`."""

    def encode(self, sentences: list[str], **options: Any) -> Any:
        """Sentences -> an array (sentences, S)."""
        ...


class ConceptEncoder:
    """Cuts texts into sentences and makes a vector of each.

    Args:
        encoder: a model of sentence-transformers, or a `hf_zoo.retrieval.encoder.TextEncoder` around any encoder of
            the zoo or of transformers.
        segment: text -> sentences.
        end: the sentence after the last one of each text, None for none.

    Raises:
        ValueError: the encoder is neither.
    """

    def __init__(
        self,
        encoder: Any,
        segment: Callable[[str], list[str]] | None = None,
        end: str | None = END_OF_TEXT,
    ) -> None:
        self._encode = getattr(encoder, "encode", None) or getattr(encoder, "passages", None)
        if self._encode is None:
            raise ValueError(f"{type(encoder).__name__} makes no vectors: give a SentenceTransformer or a TextEncoder")
        self.segment, self.end = segment or SentenceSegmenter(), end

    def vectors(self, sentences: Sequence[str]) -> "torch.Tensor":
        """Vectors (sentences, S) in float32."""
        import torch

        return torch.from_numpy(np.array(self._encode(list(sentences)), dtype=np.float32))

    def end_vector(self) -> "torch.Tensor":
        """The vector (S) of the end of a text, for `model.model.space.set_end`.

        Raises:
            ValueError: texts have no such end.
        """
        if self.end is None:
            raise ValueError("texts have no end here: give end=... to the ConceptEncoder")
        return self.vectors([self.end])[0]

    def __call__(self, texts: Sequence[str]) -> dict[str, "torch.Tensor"]:
        """`concepts` (N, M, S), zeros after the last sentence of a text, and their `attention_mask` (N, M).

        Raises:
            ValueError: there is a text without a sentence, or no text.
        """
        import torch

        rows = [[*self.segment(text), *([] if self.end is None else [self.end])] for text in texts]
        if not rows or not all(rows):
            raise ValueError("there are no texts" if not rows else f"text {rows.index([])} has no sentence")
        known = {sentence: number for number, sentence in enumerate(dict.fromkeys(s for row in rows for s in row))}
        vectors = self.vectors(list(known))
        length = max(map(len, rows))
        concepts = vectors.new_zeros(len(rows), length, vectors.shape[-1])
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for i, row in enumerate(rows):
            concepts[i, : len(row)] = vectors[[known[sentence] for sentence in row]]
            mask[i, : len(row)] = 1
        return {"concepts": concepts, "attention_mask": mask}
