"""A segment of an index: passages that were encoded in one go, and their vectors, as files that are memory-mapped.

    passages/       the rows, as `datasets` saves them
    vectors.npy     (N, D), float32 or float16
    segment.json    what it was made from; and while it is being made, how many rows are done

Vectors are made in blocks of a fixed number of rows, so a build that was killed goes on after its last whole block and
the result is the same to the last bit, however often it was.
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_json

if TYPE_CHECKING:
    from datasets import Dataset

BLOCK = 1024  # rows that are encoded, sorted by length, between two steps of progress
_PART = ".part"
_RECORD = "segment.json"


class DamagedIndex(ValueError):
    """Files of an index are missing, cut off or changed; the message says which and what to do."""


@dataclass(frozen=True)
class Segment:
    """One that is whole.

    Args:
        folder: its own.
        first: number of its first row in the index; rows keep their numbers for ever.
        record: what segment.json holds.
    """

    folder: Path
    first: int
    record: dict[str, Any]

    @property
    def num_rows(self) -> int:
        """Rows, deleted ones too."""
        return self.record["rows"]

    def vectors(self) -> np.ndarray:
        """(N, D), read from disk as it is used.

        Raises:
            DamagedIndex: the file is missing or is not what was written.
        """
        path = self.folder / "vectors.npy"
        try:
            vectors = np.load(path, mmap_mode="c")  # torch wants memory that could be written; the file is not
        except (OSError, ValueError) as error:
            raise DamagedIndex(f"{path} cannot be read ({error}); build the index again") from None
        shape = (self.num_rows, self.record["dimension"])
        if vectors.shape != shape or str(vectors.dtype) != self.record["dtype"]:
            raise DamagedIndex(f"{path} holds {vectors.dtype} {vectors.shape}, not {self.record['dtype']} {shape}")
        return vectors

    def passages(self) -> "Dataset":
        """The rows, read from disk as they are used."""
        from datasets import load_from_disk

        path = self.folder / "passages"
        try:
            passages = load_from_disk(str(path))
        except (OSError, ValueError) as error:
            raise DamagedIndex(f"{path} cannot be read ({error}); build the index again") from None
        if len(passages) != self.num_rows:
            raise DamagedIndex(f"{path} holds {len(passages)} passages, not {self.num_rows}")
        return passages

    def check(self) -> None:
        """Read all vectors and compare with what was written.

        Raises:
            DamagedIndex: a number has changed.
        """
        if _checksum(self.vectors()) != self.record["checksum"]:
            raise DamagedIndex(f"{self.folder / 'vectors.npy'} has changed since it was built; build the index again")


def open_segment(folder: Path, first: int) -> Segment:
    """A segment that was built.

    Raises:
        DamagedIndex: it has no record that can be read.
    """
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedIndex(f"{folder / _RECORD} cannot be read ({error}); build the index again") from None
    return Segment(folder, first, record)


def build_segment(
    folder: Path,
    passages: "Dataset",
    texts: Callable[[int, int], list[str]],
    encode: Callable[[list[str]], np.ndarray],
    origin: dict[str, Any],
    dtype: str,
    advance: Callable[[int], None],
) -> None:
    """Encode passages into a new folder; if an earlier call was cut off, go on where it stopped.

    Args:
        folder: takes its name when the segment is whole.
        passages: the rows.
        texts: the texts of the rows from one number up to another.
        encode: texts -> (N, D).
        origin: what the vectors depend on beside the texts; a half-built segment of another origin is refused.
        dtype: of the stored vectors, "float32" or "float16".
        advance: called with the number of rows that are newly done, those of an earlier call too.
    """
    part = folder.with_name(folder.name + _PART)
    asked = {**origin, "rows": len(passages), "dtype": dtype, "texts": _hash_of(texts, len(passages))}
    record = _resumed(part, asked)
    if record is None:
        shutil.rmtree(part, ignore_errors=True)  # not even its record was written
        part.mkdir(parents=True)
        passages.save_to_disk(str(part / "passages"))
        first = encode(texts(0, min(BLOCK, len(passages))))
        record = {**asked, "dimension": first.shape[1], "done": 0}
        vectors = np.lib.format.open_memmap(
            part / "vectors.npy", mode="w+", dtype=np.dtype(dtype), shape=(len(passages), first.shape[1])
        )
        _finish_block(part, record, vectors, first)
        advance(len(first))
    else:
        vectors = np.lib.format.open_memmap(part / "vectors.npy", mode="r+")
        advance(record["done"])
    while record["done"] < len(passages):
        stop = min(record["done"] + BLOCK, len(passages))
        made = encode(texts(record["done"], stop))
        _finish_block(part, record, vectors, made)
        advance(len(made))
    del record["done"]
    write_json(part / _RECORD, {**record, "checksum": _checksum(vectors)})
    part.rename(folder)


def _finish_block(part: Path, record: dict[str, Any], vectors: np.memmap, made: np.ndarray) -> None:
    """Vectors first, then the note that they are there."""
    vectors[record["done"] : record["done"] + len(made)] = made
    vectors.flush()
    record["done"] += len(made)
    write_json(part / _RECORD, record)


def _resumed(part: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a build that was cut off, None if there is none."""
    if not (part / _RECORD).exists():
        return None
    record = json.loads((part / _RECORD).read_text(encoding="utf-8"))
    for name, value in asked.items():
        if record.get(name) != value:
            raise ValueError(
                f"{part} is half built with {name}={record.get(name)!r}, and now {name}={value!r} is asked for; "
                "go on as it was begun, or choose another folder"
            )
    return record


def _blocks(num_rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, num_rows, BLOCK):
        yield start, min(start + BLOCK, num_rows)


def _hash_of(texts: Callable[[int, int], list[str]], num_rows: int) -> str:
    digest = hashlib.sha256()
    for start, stop in _blocks(num_rows):
        digest.update("\0".join(texts(start, stop)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _checksum(vectors: np.ndarray) -> int:
    value = 0
    for start, stop in _blocks(len(vectors)):
        value = zlib.crc32(np.ascontiguousarray(vectors[start:stop]), value)
    return value
