"""From a dataset of text to the rows and the collator that a task trains on. All use of `hf_zoo.data` is here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import unknown_name

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase

TRAINABLE_TASKS = (
    *("causal-lm", "masked-lm", "pre-training", "next-sentence-prediction"),
    *("sequence-classification", "token-classification"),
)
_LABEL_COLUMNS = {
    "sequence-classification": ("label", "labels"),
    "token-classification": ("labels", "ner_tags", "tags"),
}
_WORDS = "tokens"  # the column of words in token classification


def check_task(task: str) -> None:
    """Raise a ValueError that names the nearest task that rows can be made for."""
    if task not in TRAINABLE_TASKS:
        raise unknown_name("task to train", task, TRAINABLE_TASKS, f"It is one of {', '.join(TRAINABLE_TASKS)}.")


def load_splits(dataset: "str | Dataset | DatasetDict") -> "tuple[Dataset, Dataset | None]":
    """The train and, where there is one, the validation split of a dataset or of its name."""
    from datasets import Dataset

    if isinstance(dataset, str):
        from ..data import load_dataset

        name = dataset
        try:
            dataset = load_dataset(name)
        except ConnectionError as error:
            raise ValueError(f"dataset {name!r} is neither built in nor a file, and cannot be had: {error}") from error
    if isinstance(dataset, Dataset):
        return dataset, None
    if "train" not in dataset:
        raise ValueError(f"the dataset has no train split, only {', '.join(dataset)}.")
    return dataset["train"], dataset.get("validation")


@dataclass(frozen=True)
class Labels:
    """The labels of a classification dataset.

    Args:
        column: that holds them.
        names: of the classes, in the order of their ids; none for a number to be predicted.
        is_encoded: the column holds ids, not names.
    """

    column: str
    names: tuple[str, ...]
    is_encoded: bool

    @property
    def config(self) -> dict[str, Any]:
        """Fields of a model's configuration."""
        if not self.names:
            return {"num_labels": 1, "problem_type": "regression"}
        return {"id2label": dict(enumerate(self.names)), "label2id": {name: i for i, name in enumerate(self.names)}}

    def ids(self, value: Any) -> Any:
        """A label, or a list of them, as ids."""
        if isinstance(value, list):
            return [self.ids(one) for one in value]
        return value if self.is_encoded else self.names.index(value)


def read_labels(dataset: "Dataset", task: str) -> Labels | None:
    """The labels that a classification task predicts; None for other tasks.

    Raises:
        ValueError: no column of labels.
    """
    if task not in _LABEL_COLUMNS:
        return None
    from datasets import ClassLabel

    columns = _LABEL_COLUMNS[task]
    column = next((name for name in columns if name in dataset.column_names), None)
    if column is None:
        raise ValueError(f"{task} needs a column {' or '.join(columns)}; there are {', '.join(dataset.column_names)}.")
    feature = dataset.features[column]
    feature = getattr(feature, "feature", feature)  # of a list: of its items
    if isinstance(feature, ClassLabel):
        return Labels(column, tuple(feature.names), is_encoded=True)
    if feature.dtype.startswith("float"):
        return Labels(column, (), is_encoded=True)
    values = {one for value in dataset[column] for one in (value if isinstance(value, list) else [value])}
    if feature.dtype.startswith("int") and min(values) >= 0:
        return Labels(column, tuple(f"LABEL_{i}" for i in range(max(values) + 1)), is_encoded=True)
    return Labels(column, tuple(sorted(values)), is_encoded=False)


def make_rows(
    dataset: "Dataset",
    task: str,
    tokenizer: "PreTrainedTokenizerBase",
    block_size: int,
    labels: Labels | None = None,
    seed: int = 0,
) -> "Dataset":
    """Tokenised rows, none longer than `block_size`, with every column that the task's model and collator read."""
    from ..data import pack, text_column

    if task == "causal-lm":
        return pack(dataset, tokenizer, block_size)
    if task in ("pre-training", "next-sentence-prediction"):
        from .collators import sentence_pairs

        return sentence_pairs(dataset, tokenizer, block_size, seed)

    options = {"tokenizer": tokenizer, "block_size": block_size}
    if task == "masked-lm":
        column = text_column(dataset)
        dataset = dataset.filter(lambda text: bool(text.strip()), input_columns=[column])
        encode, options = _encode_pieces, {**options, "column": column}
    elif task == "sequence-classification":
        encode, options = _encode_text, {**options, "column": text_column(dataset), "labels": labels}
    else:
        if _WORDS not in dataset.column_names:
            columns = ", ".join(dataset.column_names)
            raise ValueError(f"token-classification needs a column {_WORDS!r} of word lists; there are {columns}.")
        encode, options = _encode_words, {**options, "labels": labels}
    return dataset.map(encode, batched=True, remove_columns=dataset.column_names, fn_kwargs=options, desc="Tokenizing")


def _encode_pieces(batch: dict, tokenizer: "PreTrainedTokenizerBase", block_size: int, column: str) -> dict:
    """A text longer than a row goes on in the next, with special tokens of its own."""
    from .collators import word_numbers

    encoded = tokenizer(batch[column], truncation=True, max_length=block_size, return_overflowing_tokens=True)
    rows = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    return {**rows, "word_ids": [word_numbers(encoded.word_ids(i)) for i in range(len(rows["input_ids"]))]}


def _encode_text(
    batch: dict, tokenizer: "PreTrainedTokenizerBase", block_size: int, column: str, labels: Labels
) -> dict:
    encoded = tokenizer(batch[column], truncation=True, max_length=block_size)
    return {**encoded, "labels": [labels.ids(label) for label in batch[labels.column]]}


def _encode_words(batch: dict, tokenizer: "PreTrainedTokenizerBase", block_size: int, labels: Labels) -> dict:
    """The first token of a word carries its label, as the scores of the task count words."""
    encoded = tokenizer(batch[_WORDS], is_split_into_words=True, truncation=True, max_length=block_size)
    rows = []
    for i, row in enumerate(batch[labels.column]):
        words, ids = encoded.word_ids(i), labels.ids(row)
        before = [None, *words[:-1]]
        rows.append([-100 if a is None or a == b else ids[a] for a, b in zip(words, before, strict=True)])
    return {**encoded, "labels": rows}


def make_collator(task: str, tokenizer: "PreTrainedTokenizerBase", seed: int) -> Callable[[list[dict]], dict]:
    """What joins rows of `make_rows` into a batch."""
    from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding, default_data_collator

    if task == "causal-lm":
        return default_data_collator  # packed rows are of one length
    if task in ("masked-lm", "pre-training"):
        from .collators import WholeWordMaskCollator

        return WholeWordMaskCollator(tokenizer, seed=seed)
    if task == "token-classification":
        return DataCollatorForTokenClassification(tokenizer)
    return DataCollatorWithPadding(tokenizer)
