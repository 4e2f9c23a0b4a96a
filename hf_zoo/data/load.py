"""`load_dataset`: built-in names, local files and folders, and the Hub behind one call."""

import difflib
import inspect
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import unknown_name
from .cache import cached_folder
from .glyphs import glyph_scenes, glyphs, moving_glyphs, split_by_words
from .graph import python_graph, python_graph_triples
from .solids import solids
from .splits import SPLITS, split_by_key
from .standard_library import python_docs, python_source
from .tables import sklearn_digits, sklearn_table
from .tones import tones
from .tools import TOOL_SHARES, split_of_tasks, tool_tasks

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


@dataclass(frozen=True)
class BuiltIn:
    """A dataset that is built from what is installed.

    Args:
        build: returns the rows and, for each, the key by which it is split; its keywords are the dataset's options.
        version: of what `build` makes; raising it leaves earlier caches behind.
        shares: of train, validation and test.
        splits: of items with these keys, for such shares.
    """

    build: Callable[..., tuple["Dataset", list[str]]]
    version: int = 1
    shares: tuple[float, float, float] = (0.90, 0.05, 0.05)
    splits: Callable[[list[str], tuple[float, float, float]], list[str]] = split_by_key


_TABLES = ("iris", "wine", "breast_cancer", "diabetes", "digits")
BUILT_IN = {
    "python-source": BuiltIn(python_source),
    "python-docs": BuiltIn(python_docs),
    "python-graph": BuiltIn(python_graph, version=2, shares=(0.80, 0.10, 0.10)),
    "python-graph-triples": BuiltIn(python_graph_triples, shares=(1.0, 0.0, 0.0)),
    **{  # a few hundred rows each: with less than 15 % a test score would be noise
        f"table-{name.replace('_', '-')}": BuiltIn(partial(sklearn_table, name), shares=(0.70, 0.15, 0.15))
        for name in _TABLES
    },
    "digits": BuiltIn(sklearn_digits, shares=(0.70, 0.15, 0.15)),
    "glyphs": BuiltIn(glyphs, shares=(0.80, 0.10, 0.10), splits=split_by_words),
    "glyph-scenes": BuiltIn(glyph_scenes),
    "moving-glyphs": BuiltIn(moving_glyphs),
    "tones": BuiltIn(tones, shares=(0.80, 0.10, 0.10)),
    "solids": BuiltIn(solids, shares=(0.70, 0.15, 0.15)),
    "python-tools": BuiltIn(tool_tasks, version=2, shares=TOOL_SHARES, splits=split_of_tasks),
}

# suffix -> the builder of `datasets` that reads it
_FORMATS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def load_dataset(name: str, split: str | None = None, **options: Any) -> "Dataset | DatasetDict":
    """A dataset by name or path.

    Args:
        name: a built-in name, which needs no network (`python-source`, `glyphs`, `table-iris`, ...); else a
            path to a file (.txt, a row a line; .jsonl, .json, .parquet, .csv) or to a folder of such files; else a
            name on the Hub.
        split: one of them, in the words of `datasets` ("train", "train[:10%]", "train+test"); all without it.
        options: of the built-in dataset, or of `datasets.load_dataset` for all others.

    Raises:
        ValueError: a name that is nearly a built-in one, an unknown option or split, an empty or unreadable file.
        FileNotFoundError: a path that does not exist.
    """
    if name in BUILT_IN:
        return _load_built_in(name, split, options)
    path = Path(name).expanduser()
    if path.exists():
        return _load_local(path, split, options)
    if path.suffix in _FORMATS or path.is_absolute() or name.startswith(("~", ".")) or name.count("/") > 1:
        raise FileNotFoundError(f"no file or folder {name!r}.{_nearest_file(path)}")
    if "/" not in name and difflib.get_close_matches(name, BUILT_IN, n=1, cutoff=0.75):
        raise unknown_name("dataset", name, BUILT_IN, f"Built in are {', '.join(BUILT_IN)}.")
    import datasets

    return datasets.load_dataset(name, split=split, **options)


def _load_built_in(name: str, split: str | None, options: dict[str, Any]) -> "Dataset | DatasetDict":
    from datasets import DatasetDict

    built_in = BUILT_IN[name]
    _check_options(name, built_in, options)

    def build(folder: Path) -> None:
        rows, keys = built_in.build(**options)
        members: dict[str, list[int]] = {split: [] for split in SPLITS}
        for index, split in enumerate(built_in.splits(keys, built_in.shares)):
            members[split].append(index)
        # `datasets` cannot save a split without rows, which only an installation stripped of most modules has
        DatasetDict({split: rows.select(kept) for split, kept in members.items() if kept}).save_to_disk(folder)

    written = "".join(f"-{option}={value}" for option, value in sorted(options.items()))
    folder = f"datasets/{name}{written}-v{built_in.version}-py{platform.python_version()}"
    splits = DatasetDict.load_from_disk(cached_folder(folder, build))
    return splits if split is None else _take(splits, split)


def _check_options(name: str, built_in: BuiltIn, options: dict[str, Any]) -> None:
    known = inspect.signature(built_in.build).parameters
    for option in options:
        if option not in known:
            if not known:
                raise ValueError(f"{name} has no options, {option!r} neither.")
            raise unknown_name(f"option of {name}", option, known)


def _take(splits: "DatasetDict", split: str) -> "Dataset":
    """The rows that a split expression of `datasets` names."""
    from datasets import ReadInstruction, concatenate_datasets

    parts = ReadInstruction.from_spec(split).to_absolute({name: rows.num_rows for name, rows in splits.items()})
    pieces = []
    for part in parts:
        rows = splits[part.splitname]
        whole = (part.from_ or 0, part.to if part.to is not None else len(rows))
        pieces.append(rows if whole == (0, len(rows)) else rows.select(range(*whole)))
    return pieces[0] if len(pieces) == 1 else concatenate_datasets(pieces)


def _load_local(path: Path, split: str | None, options: dict[str, Any]) -> "Dataset | DatasetDict":
    import datasets

    files = _readable_files(path)
    for file in files:
        if file.stat().st_size == 0:
            raise ValueError(f"{file} is empty.")
    try:
        if path.is_dir():
            return datasets.load_dataset(str(path), split=split, **options)
        return datasets.load_dataset(_FORMATS[path.suffix], data_files=str(path), split=split, **options)
    except (datasets.exceptions.DatasetGenerationError, ValueError) as error:
        for file in files:
            _find_broken_json(file)
        raise ValueError(f"{path} cannot be read: {error.__cause__ or error}") from error


def _readable_files(path: Path) -> list[Path]:
    formats = ", ".join(_FORMATS)
    if not path.is_dir():
        if path.suffix not in _FORMATS:
            raise ValueError(f"{path} is none of {formats}.")
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in _FORMATS)
    if not files:
        raise ValueError(f"{path} has no file that ends in one of {formats}.")
    kinds = {_FORMATS[file.suffix]: file for file in files}
    if len(kinds) > 1:
        examples = " and ".join(str(file) for file in kinds.values())
        raise ValueError(f"{path} mixes formats, such as {examples}: name a file, or a folder of one format.")
    return files


def _find_broken_json(file: Path) -> None:
    """Raise the error that names the line. Reads the file only after `datasets` has given up on it."""
    if file.suffix != ".jsonl":
        return
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{file}, line {number}: not JSON ({error.msg}): {line.strip()[:60]!r}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{file}, line {number}: a row is a JSON object, not {line.strip()[:60]!r}")


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" {path.parent} is no folder."
    near = difflib.get_close_matches(path.name, [file.name for file in path.parent.iterdir()], n=1)
    return f" Did you mean {str(path.parent / near[0])!r}?" if near else ""
