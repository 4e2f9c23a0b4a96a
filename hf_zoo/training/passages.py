"""Questions with passages as batches for Fusion-in-Decoder.

Izacard and Grave 2020, https://arxiv.org/abs/2007.01282, section 3: each passage is read with the question, in the
words "question: ... title: ... context: ...".
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .collators import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PassageCollator:
    """Joins rows of a question, its passages and, where known, an answer.

    Args:
        tokenizer: with a padding token; its end token closes every passage and answer.
        max_passages: those beyond are left out.
        max_length: most tokens of a passage, its question included; the end of the passage is cut.
        max_answer_length: most tokens of an answer.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        max_passages: int = 100,
        max_length: int = 200,
        max_answer_length: int = 50,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_passages = max_passages
        self.max_length = max_length
        self.max_answer_length = max_answer_length

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows {"question", "passages": [{"title", "text"}, ...], "answer"} -> a batch.

        Titles and answers may be missing.

        Returns:
            `input_ids` and `attention_mask` (B, n, L), padded where a row has fewer passages; `labels` (B, T).

        Raises:
            ValueError: a row has no passage.
        """
        for row in rows:
            if not row["passages"]:
                raise ValueError(f"question {row['question']!r} has no passage to answer from.")
        texts = [[self.text(row["question"], p) for p in row["passages"][: self.max_passages]] for row in rows]
        encoded = [[self._encode(text, self.max_length) for text in passages] for passages in texts]
        num_passages, length = max(map(len, encoded)), max(len(ids) for passages in encoded for ids in passages)
        input_ids = torch.full((len(rows), num_passages, length), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for i, passages in enumerate(encoded):
            for j, ids in enumerate(passages):
                input_ids[i, j, : len(ids)] = torch.tensor(ids)
                attention_mask[i, j, : len(ids)] = 1
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "answer" in rows[0]:
            answers = [torch.tensor(self._encode(row["answer"], self.max_answer_length)) for row in rows]
            batch["labels"] = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=IGNORED)
        return batch

    @staticmethod
    def text(question: str, passage: dict[str, str]) -> str:
        """What the encoder reads of one passage."""
        title = f" title: {passage['title']}" if passage.get("title") else ""
        return f"question: {question}{title} context: {passage['text']}"

    def _encode(self, text: str, max_length: int) -> list[int]:
        end = [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids[: max_length - len(end)] + end
