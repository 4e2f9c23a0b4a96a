"""Batches for dual encoders and readers, from rows of text.

Shapes: Q questions, P passages, M passages a question, T tokens.
"""

import zlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RetrievalCollator:
    """Questions, each with its passage and its hard negatives, for `ZooDprModel`.

    Rows have `question`, `positive` and, where hard negatives are wanted, `negatives`, a list of at least as many
    texts. A title goes before its text, with the separator between. In a Trainer the columns need
    `remove_unused_columns=False`.

    Args:
        tokenizer: the model's.
        num_negatives: hard negatives of each question, the first ones of its list.
        max_length: tokens of a question or a passage; the rest is cut off.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", num_negatives: int = 0, max_length: int = 256) -> None:
        self.tokenizer = tokenizer
        self.num_negatives = num_negatives
        self.max_length = max_length

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Inputs of the model: (Q, T), and passages (Q (1 + negatives), T) with numbers by which copies are known.

        Raises:
            ValueError: a question has too few negatives.
        """
        passages = []
        for row in rows:
            negatives = list(row.get("negatives") or [])[: self.num_negatives]
            if len(negatives) < self.num_negatives:
                has = f"question {row['question']!r} has {len(negatives)} negatives"
                raise ValueError(f"{has}, and num_negatives is {self.num_negatives}")
            passages += [row["positive"], *negatives]
        batch = self._tokens([row["question"] for row in rows])
        batch |= {f"passage_{name}": value for name, value in self._tokens(passages).items()}
        batch["passage_ids"] = torch.tensor([zlib.crc32(text.encode()) for text in passages])
        return batch

    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        options = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}
        return dict(self.tokenizer(texts, **options))


class ReaderCollator:
    """Questions read together with passages, and where the answer stands, for `ZooDprForQuestionAnswering`.

    Rows have `question`, `passages`, a list of texts of which the first holds the answer, and `answer`, a part of it.
    In a Trainer the columns need `remove_unused_columns=False`.

    Args:
        tokenizer: a fast one, for only those know which letters a token is of.
        num_passages: of each question, the first ones of its list.
        max_length: tokens of question and passage; the passage is cut off.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", num_passages: int, max_length: int = 256) -> None:
        self.tokenizer = tokenizer
        self.num_passages = num_passages
        self.max_length = max_length

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Inputs of the model (Q, M, T) with start_positions and end_positions (Q,).

        An answer that was cut off gets positions beyond the row, which the loss leaves out.

        Raises:
            ValueError: a question has too few passages, or the first does not hold the answer.
        """
        for row in rows:
            if len(row["passages"]) < self.num_passages:
                raise ValueError(
                    f"question {row['question']!r} has {len(row['passages'])} passages, not {self.num_passages}"
                )
            if row["answer"] not in row["passages"][0]:
                raise ValueError(
                    f"the first passage of {row['question']!r} does not hold its answer {row['answer']!r}"
                )
        pairs = [(row["question"], passage) for row in rows for passage in row["passages"][: self.num_passages]]
        options = {"padding": True, "truncation": "only_second", "max_length": self.max_length, "return_tensors": "pt"}
        encoded = self.tokenizer(*map(list, zip(*pairs, strict=True)), **options)
        spans, num_tokens = [], encoded["input_ids"].shape[1]
        for number, row in enumerate(rows):
            first = row["passages"][0].index(row["answer"])
            ends = (first, first + len(row["answer"]) - 1)
            place = number * self.num_passages
            tokens = [encoded.char_to_token(place, letter, sequence_index=1) for letter in ends]
            spans.append([num_tokens if None in tokens else token for token in tokens])
        start, end = torch.tensor(spans).unbind(1)
        batch = {name: value.unflatten(0, (len(rows), self.num_passages)) for name, value in encoded.items()}
        return {**batch, "start_positions": start, "end_positions": end}
