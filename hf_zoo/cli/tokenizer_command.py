"""`hf-zoo tokenizer`: train a tokenizer on any dataset and save it for `AutoTokenizer`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

# All that `save_pretrained` of a tokenizer may write; one that is not written anew must not outlive an overwrite
_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def tokenizer_command(
    output: Annotated[Path, typer.Option(help="Folder to save it in.")],
    kind: Annotated[str, typer.Option(help="byte, char, bpe, wordpiece or unigram.")] = "bpe",
    vocab_size: Annotated[int, typer.Option(help="Most ids it may have, special tokens included.")] = 8000,
    dataset: Annotated[str, typer.Option(help="Built-in name, local file or folder, or name on the Hub.")] = (
        "python-source"
    ),
    text_column: Annotated[str | None, typer.Option(help="Column of the text, found without it.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the tokenizer in the folder.")] = False,
) -> None:
    """Train a tokenizer and save it for AutoTokenizer."""
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not overwrite):
        raise ValueError(f"{output} is {'a file' if output.is_file() else 'not empty: add --overwrite'}.")
    output.mkdir(parents=True, exist_ok=True)

    from ..data import load_dataset
    from ..data import text_column as find_text_column
    from ..tokenization.train import train_tokenizer

    rows = load_dataset(dataset)
    train = rows["train"] if "train" in rows else next(iter(rows.values()))
    held_out = next((rows[split] for split in ("validation", "test") if split in rows), None)
    if held_out is None:
        train, held_out = _hold_out(train)
    column = find_text_column(train) if text_column is None else text_column
    if column not in train.column_names:
        from ..errors import unknown_name

        raise unknown_name(f"column of {dataset}", column, train.column_names)

    tokenizer = train_tokenizer(train[column], kind, vocab_size, show_progress=sys.stderr.isatty())
    for file in _FILES:
        (output / file).unlink(missing_ok=True)
    tokenizer.save_pretrained(output)
    kept = "held-out text" if held_out is not train else "its own text"
    _print_summary(tokenizer, [text for text in held_out[column] if text], kept, output)


def _hold_out(train) -> tuple:
    """Without a split of its own the dataset lends a twentieth of its rows; a single row serves as both."""
    if len(train) == 1:
        return train, train
    parts = train.train_test_split(test_size=max(1, len(train) // 20), seed=0)
    return parts["train"], parts["test"]


def _print_summary(tokenizer, texts: list[str], kept: str, output: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    num_bytes = sum(len(text.encode()) for text in texts)
    num_tokens = sum(map(len, tokenizer(texts, add_special_tokens=False, verbose=False).input_ids))
    lines = (line.strip()[:60] for text in texts[:20] for line in text.splitlines()[:100])
    line = max(lines, key=lambda line: len(set(line)))  # the most varied one shows most
    example = Text(" ").join(
        Text(tokenizer.decode([token]), style="reverse" if i % 2 else "")
        for i, token in enumerate(tokenizer(line, add_special_tokens=False).input_ids)
    )
    table = Table(show_header=False, box=None)
    table.add_row("size", f"{len(tokenizer):,} ids")
    table.add_row(kept, f"{num_bytes / max(1, num_tokens):.2f} bytes per token")
    table.add_row("example", example)
    table.add_row("saved in", str(output))
    Console().print(table)
