"""From rows of text to rows of tokens."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_TEXT_COLUMNS = ("text", "content", "document", "code", "sentence")
_STRINGS = ("string", "large_string")


def text_column(dataset: "Dataset") -> str:
    """The column that holds the text: one of the usual names, or the only column of strings.

    Raises:
        ValueError: there is none, or there are several and none has a usual name.
    """
    strings = [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) in _STRINGS]
    for name in _TEXT_COLUMNS:
        if name in strings:
            return name
    if len(strings) == 1:
        return strings[0]
    columns = ", ".join(f"{name} ({getattr(kind, 'dtype', kind)})" for name, kind in dataset.features.items())
    reason = "several columns hold strings" if strings else "no column holds strings"
    raise ValueError(f"which column is the text? {reason}: {columns}. Rename it to 'text'.")


def pack(
    dataset: "Dataset",
    tokenizer: "PreTrainedTokenizerBase",
    block_size: int,
    separate_documents: bool = True,
    column: str | None = None,
) -> "Dataset":
    """Rows of exactly `block_size` tokens for causal language modelling, with no padding.

    Every document becomes bos, its tokens, eos (as far as the tokenizer has them); a thousand documents at a time
    are joined and cut, and the incomplete row at the end of each thousand is dropped. A document that is longer than
    a row continues in the next.

    Args:
        dataset: rows of text, one document each; empty ones are left out.
        tokenizer: any, its own template of special tokens is not used.
        block_size: tokens a row.
        separate_documents: add `position_ids`, which restart at 0 where a document or a row starts: models of the
            zoo let no token see across such a restart. Without it a row is one text to them.
        column: of the text, found by `text_column` without it.

    Returns:
        `input_ids`, `labels` (equal to them: the model shifts) and, if wanted, `position_ids`, each (block_size,).

    Raises:
        ValueError: no text column, or fewer tokens in all than one row.
    """
    column = text_column(dataset) if column is None else column
    packed = dataset.map(
        _pack_batch,
        batched=True,
        remove_columns=dataset.column_names,
        fn_kwargs={
            "tokenizer": tokenizer,
            "block_size": block_size,
            "separate_documents": separate_documents,
            "column": column,
        },
        desc="Packing",
    )
    if len(packed) == 0:
        raise ValueError(f"{len(dataset)} documents have fewer than block_size={block_size} tokens in all.")
    return packed


def _pack_batch(
    batch: dict[str, list[str]],
    tokenizer: "PreTrainedTokenizerBase",
    block_size: int,
    separate_documents: bool,
    column: str,
) -> dict[str, np.ndarray]:
    texts = [text for text in batch[column] if text]
    bos = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    eos = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    # verbose=False: documents longer than the model are the rule here, and are cut below
    documents = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False).input_ids
    documents = [bos + ids + eos for ids in documents]
    num_rows = sum(map(len, documents)) // block_size
    ids = _join(documents)[: num_rows * block_size].reshape(num_rows, block_size)
    rows = {"input_ids": ids, "labels": ids}
    if separate_documents:
        places = _join([np.arange(len(ids)) for ids in documents])  # of each token in its document
        places = places[: num_rows * block_size].reshape(num_rows, block_size)
        columns = np.arange(block_size)
        # Positions count from the start of the document or, for its rest, from the start of the row
        rows["position_ids"] = np.minimum(places, columns)
    return rows


def _join(parts: list) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int32), *(np.asarray(part, dtype=np.int32) for part in parts)])
