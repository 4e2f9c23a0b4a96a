"""Texts to sentences, by rules: for models whose tokens are sentences."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "End of text."

_ENDS = re.compile(r"[.!?…]+[\"')\]»”’]*\s+|[。！？]+[」』”’]*\s*")
_PARAGRAPHS = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*•]|\d+[.)])\s)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:[A-Za-z]|e\.g|i\.e|a\.m|p\.m|etc|vs|cf|al|approx|Mr|Mrs|Ms|Dr|Prof|St|No|Nos|Fig|Figs|Eq|Eqs|"
    r"Sec|Ch|Vol|Jr|Sr|Inc|Ltd|Co|Corp|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|U\.S|U\.K)\.$"
)
_CLAUSES = re.compile(r"(?<=[;:,])\s+|\s+(?=[-–—]\s)")


class SentenceSegmenter:
    """Cuts a text at ends of sentences and of paragraphs; abbreviations, initials and numbers are no ends.

    Args:
        max_chars: a longer sentence is cut at its clauses, else at a space, else in the middle of a word.

    Raises:
        ValueError: `max_chars` leaves room for nothing.
    """

    def __init__(self, max_chars: int = 250) -> None:
        if max_chars < 1:
            raise ValueError(f"max_chars must be at least 1, got {max_chars}")
        self.max_chars = max_chars

    def __call__(self, text: str) -> list[str]:
        """The sentences of a text, in order, with single spaces and none that is empty."""
        sentences = []
        for paragraph in _PARAGRAPHS.split(text):
            for sentence in self._sentences(" ".join(paragraph.split())):
                sentences += self._pieces(sentence)
        return sentences

    def _sentences(self, paragraph: str) -> Iterable[str]:
        start = 0
        for end in _ENDS.finditer(paragraph):
            said, following = paragraph[start : end.end()].rstrip(), paragraph[end.end() :]
            if _ABBREVIATION.search(said) and not said.endswith(("!", "?")) or following[:1].islower():
                continue
            yield said
            start = end.end()
        if rest := paragraph[start:].strip():
            yield rest

    def _pieces(self, sentence: str) -> list[str]:
        if len(sentence) <= self.max_chars:
            return [sentence]
        pieces = [""]
        for clause in _CLAUSES.split(sentence):
            for word in [clause] if len(clause) <= self.max_chars else clause.split():
                joined = f"{pieces[-1]} {word}".strip()
                if len(joined) <= self.max_chars:
                    pieces[-1] = joined
                else:
                    cuts = range(0, len(word), self.max_chars)
                    pieces += [word[cut : cut + self.max_chars] for cut in cuts]
        return [piece for piece in pieces if piece]

    def batch(
        self,
        texts: Iterable[str],
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int = 64,
        end: str | None = END_OF_TEXT,
    ) -> dict[str, Tensor]:
        """Tokens of the sentences of texts, padded on the right in both directions.

        Args:
            texts: N of them.
            tokenizer: with a padding token.
            max_tokens: of a sentence; the rest is cut off.
            end: a sentence after the last one of each text, None for none.

        Returns:
            `input_ids` and `token_mask` (N, sentences, tokens), and `attention_mask` (N, sentences).

        Raises:
            ValueError: there is no text, or no sentence in any, or no padding token.
        """
        rows = [[*self(text), *([] if end is None else [end])] for text in texts]
        if not any(rows):
            raise ValueError("there is no sentence in these texts")
        if tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no pad_token, which batches need; set tokenizer.pad_token")
        tokens: list[list[Any]] = [
            tokenizer(row, truncation=True, max_length=max_tokens)["input_ids"] if row else [] for row in rows
        ]
        shape = (len(rows), max(map(len, rows)), max(len(ids) for row in tokens for ids in row))
        input_ids = torch.full(shape, tokenizer.pad_token_id)
        token_mask = torch.zeros(shape, dtype=torch.long)
        for i, row in enumerate(tokens):
            for j, ids in enumerate(row):
                input_ids[i, j, : len(ids)] = torch.tensor(ids)
                token_mask[i, j, : len(ids)] = 1
        return {"input_ids": input_ids, "token_mask": token_mask, "attention_mask": token_mask.any(-1).long()}
