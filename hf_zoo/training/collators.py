"""Masked language modelling and next-sentence pairs, as BERT trains.

Devlin et al. 2018, https://arxiv.org/abs/1810.04805: 15 % of the tokens are to be predicted; of those 80 % become
[MASK], 10 % a random token, 10 % stay. The whole-word variant, released with BERT's code in 2019, picks words and
treats each of their tokens alone.

Shapes: B batch, T tokens.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label that no loss counts
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


class WholeWordMaskCollator:
    """Pads rows and masks words, or single tokens, for a masked language model.

    Every other column of numbers (`token_type_ids`, `next_sentence_label`) goes through, so it also serves
    `sentence_pairs`. It differs from transformers' `DataCollatorForLanguageModeling`, which

    * replaces by [MASK] alone when it masks whole words, and takes "don't!" as one word with its punctuation;
    * draws special tokens among the random ones;
    * depends on the random state that earlier batches left. The mask here depends on `seed` and on the batch's
      tokens alone: worker processes and resumed runs make the same ones, and an evaluation is the same each time.
      Shuffling gives a row other neighbours and so another mask in every epoch; a batch of one row keeps its mask.

    Args:
        tokenizer: with a mask token, and a padding token where rows differ in length.
        mask_probability: share of the non-special tokens to predict; at least one word a row, as in BERT.
        whole_words: pick words: runs of equal `word_ids` where rows have that column (-1 for special tokens), or a
            token and the `##` pieces after it. In a Trainer that column needs `remove_unused_columns=False`.
        seed: of the masks.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        mask_probability: float = 0.15,
        whole_words: bool = True,
        seed: int = 0,
    ) -> None:
        if tokenizer.mask_token_id is None:
            raise ValueError(
                f"tokenizer {tokenizer.name_or_path!r} has no mask token: masked language modelling needs one, "
                "for instance tokenizer.add_special_tokens({'mask_token': '[MASK]'})."
            )
        if not 0 < mask_probability < 1:
            raise ValueError(f"mask_probability is {mask_probability}, not between 0 and 1; BERT's is 0.15.")
        self.tokenizer = tokenizer
        self.mask_probability = mask_probability
        self.whole_words = whole_words
        self.seed = seed
        self._special = torch.tensor(tokenizer.all_special_ids)
        vocabulary = tokenizer.get_vocab()
        self._ordinary = torch.tensor(sorted(set(vocabulary.values()) - set(tokenizer.all_special_ids)))
        self._pieces = torch.tensor([id for token, id in vocabulary.items() if token.startswith("##")])

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows with `input_ids`, perhaps `word_ids` -> `input_ids`, `labels`, `attention_mask` (B, T) and the rest."""
        rows = [dict(row) for row in rows]
        word_ids = [row.pop("word_ids") for row in rows] if "word_ids" in rows[0] else None
        batch = dict(self.tokenizer.pad(rows, return_tensors="pt"))
        ids = batch["input_ids"]
        special = torch.isin(ids, self._special)
        words = self._words(ids, special, word_ids)

        generator = torch.Generator().manual_seed(self._seed_of(ids))
        draw = torch.rand(ids.shape, generator=generator).gather(1, words)  # (B, T), one draw a word
        draw = draw.masked_fill(special, 1.0)
        picked = (draw < self.mask_probability) | (draw == draw.amin(1, keepdim=True))
        picked &= ~special
        batch["labels"] = ids.masked_fill(~picked, IGNORED)

        fate = torch.rand(ids.shape, generator=generator)
        others = self._ordinary[torch.randint(len(self._ordinary), ids.shape, generator=generator)]
        masked = ids.masked_fill(picked & (fate < 0.8), self.tokenizer.mask_token_id)
        batch["input_ids"] = torch.where(picked & (fate >= 0.9), others, masked)
        return batch

    def _words(self, ids: Tensor, special: Tensor, word_ids: list[list[int]] | None) -> Tensor:
        """(B, T): which word of its row a token belongs to."""
        if not self.whole_words:
            return torch.arange(ids.shape[1]).expand_as(ids)
        if word_ids is not None:
            padded = torch.full_like(ids, -1)
            for row, numbers in zip(padded, word_ids, strict=True):
                place = slice(len(numbers)) if self.tokenizer.padding_side == "right" else slice(-len(numbers), None)
                row[place] = torch.as_tensor(numbers)
            starts = padded != padded.roll(1, dims=1)
        elif len(self._pieces):
            starts = ~torch.isin(ids, self._pieces)
        else:
            raise ValueError(
                f"rows have no word_ids column, and no token of {self.tokenizer.name_or_path!r} starts with '##', so "
                "where words end is not known: add the column (with remove_unused_columns=False), or pass "
                "whole_words=False."
            )
        starts |= special | special.roll(1, dims=1)
        starts[:, 0] = True
        return starts.cumsum(1) - 1

    def _seed_of(self, ids: Tensor) -> int:
        digest = hashlib.blake2b(ids.numpy().tobytes(), digest_size=7, salt=str(self.seed).encode()[:16])
        return int.from_bytes(digest.digest(), "big")


def sentence_pairs(
    dataset: "Dataset", tokenizer: "PreTrainedTokenizerBase", max_length: int, seed: int = 0
) -> "Dataset":
    """Rows of two text segments for BERT's next-sentence prediction.

    In half of the rows B is what follows A (`next_sentence_label` 0), in the other half it comes from another document
    (1). Segments are whole sentences, as many as fit; a sentence too long for its row loses its end. BERT shortens a
    tenth of its rows at random; here none is.

    Args:
        dataset: a text column with one document a row; or with one sentence a row and an empty row between documents,
            the layout of BERT's own files.
        tokenizer: one that joins a pair: [CLS] A [SEP] B [SEP].
        max_length: most tokens a row, special ones included.
        seed: of the draws.

    Returns:
        `input_ids`, `token_type_ids` (0 in A, 1 in B), `attention_mask`, `word_ids`, each (T,), and
        `next_sentence_label`.

    Raises:
        ValueError: fewer than two documents, none with two sentences, or a tokenizer that does not mark pairs.
    """
    from datasets import Dataset

    from ..data import text_column

    if 1 not in tokenizer("a", "b", return_token_type_ids=True)["token_type_ids"]:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path!r} gives both sentences of a pair token type 0: next-sentence "
            "prediction needs a template such as [CLS] A [SEP] B [SEP]:1."
        )
    documents = _documents(dataset[text_column(dataset)])
    if len(documents) < 2:
        raise ValueError(f"{len(documents)} document in the dataset: a random sentence must come from another one.")
    if all(len(sentences) < 2 for sentences in documents):
        raise ValueError(
            f"none of the {len(documents)} documents has two sentences. A row is a document, unless empty rows "
            "separate documents."
        )
    arguments = {"documents": tuple(documents), "tokenizer": tokenizer, "max_length": max_length, "seed": seed}
    return Dataset.from_generator(_pairs, gen_kwargs=arguments)


def _documents(rows: list[str]) -> list[list[str]]:
    """The sentences of each document."""
    if any(not row.strip() for row in rows):
        rows = re.split(r"\n\s*\n", "\n".join(rows))
    documents = ([part.strip() for part in _SENTENCE_END.split(row) if part.strip()] for row in rows)
    return [sentences for sentences in documents if sentences]


def _pairs(
    documents: tuple[list[str], ...], tokenizer: "PreTrainedTokenizerBase", max_length: int, seed: int
) -> Iterator[dict[str, Any]]:
    rng = random.Random(seed)
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    lengths = [
        [len(ids) for ids in tokenizer(sentences, add_special_tokens=False, verbose=False).input_ids]
        for sentences in documents
    ]

    def fill(document: int, start: int, room: int, at_least: int) -> int:
        """Where the sentences end that fit from `start` on."""
        end, used = start, 0
        for length in lengths[document][start:]:
            used += length
            if used > room and end - start >= at_least:
                break
            end += 1
        return end

    for number, sentences in enumerate(documents):
        start = 0
        while start + 1 < len(sentences):
            end = fill(number, start, room, at_least=2)
            cut = rng.randrange(start + 1, end)
            a, b = sentences[start:cut], sentences[cut:end]
            is_random = rng.random() < 0.5
            if is_random:
                other = (number + rng.randrange(1, len(documents))) % len(documents)
                place = rng.randrange(len(documents[other]))
                b = documents[other][place : fill(other, place, room - sum(lengths[number][start:cut]), at_least=1)]
                end = cut  # what really follows is not used up, it starts the next pair
            yield _encode_pair(" ".join(a), " ".join(b), tokenizer, max_length) | {
                "next_sentence_label": int(is_random)
            }
            start = end


def _encode_pair(a: str, b: str, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> dict[str, list[int]]:
    encoded = tokenizer(a, b, truncation="longest_first", max_length=max_length, return_token_type_ids=True)
    return {**encoded, "word_ids": word_numbers(encoded.word_ids())}


def word_numbers(word_ids: list[int | None]) -> list[int]:
    """A fast tokenizer's `word_ids()` as a column of integers, -1 for special tokens."""
    return [-1 if number is None else number for number in word_ids]
