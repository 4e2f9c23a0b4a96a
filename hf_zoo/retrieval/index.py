"""An index of passages by their vectors: a folder that is built once, added to, deleted from and searched.

    index.json          what the folder holds; replaced in one step, so a kill leaves the old index or the new one
    segments/000000/    passages and vectors of one build or one addition, see segments.py
    deleted-3.npy       numbers of deleted rows, in the version that index.json names
    approximate.faiss   where the index was made approximate

Vectors are compared exactly and straight from disk, which is faster than FAISS's own exact index, unless the index was
made approximate. A passage's number never changes and is never given again. An index knows which encoder made it and
refuses another. Processes that change it at once wait for one another.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import refuse_filled
from ..files import write_json
from .approximate import approximate_index, open_approximate, search_faiss
from .checks import check_columns, check_encoder
from .encoder import TextEncoder
from .exact import search_exactly
from .segments import DamagedIndex, Segment, build_segment, open_segment

if TYPE_CHECKING:
    from datasets import Dataset
    from datasets.search import FaissIndex

_FORMAT = 1
_RECORD = "index.json"
_APPROXIMATE = "approximate.faiss"
_DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class Hit:
    """A passage that was found.

    Args:
        number: of the passage in the index, by which it can be deleted.
        score: inner product of the two vectors.
        passage: its row, with all columns.
    """

    number: int
    score: float
    passage: dict[str, Any]


def build_index(
    passages: "Dataset",
    encoder: TextEncoder,
    folder: str | Path,
    column: str = "text",
    title_column: str | None = None,
    dtype: str = "float32",
    batch_size: int = 32,
) -> "PassageIndex":
    """Encode the passages of a dataset into a new index; the same call goes on with one that was cut off.

    Args:
        passages: rows, all of whose columns are kept.
        encoder: makes the vectors.
        folder: new, empty, or half built by the same call.
        column: which column is encoded.
        title_column: one whose text is put before it, as DPR does.
        dtype: "float32", or "float16" for half the disk.
        batch_size: texts that are encoded at once.

    Raises:
        ValueError: a column is missing, there are no rows, the folder is in use.
    """
    folder = Path(folder)
    check_columns(passages, column, title_column)
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}")
    if (folder / _RECORD).exists() or not (folder / "segments").is_dir():  # else half built: it goes on
        refuse_filled(folder)
    settings = {"column": column, "title_column": title_column, "dtype": dtype}
    record = {"format": _FORMAT, "encoder": encoder.description(), **settings, "segments": [], "deleted": None}
    return PassageIndex(folder, record, encoder)._extend(passages, batch_size)


class PassageIndex:
    """An index in a folder; `open` makes one, or `build_index`.

    Args:
        folder: where it is.
        record: what index.json holds.
        encoder: what questions are encoded with; without it only vectors can be searched for.
    """

    def __init__(self, folder: Path, record: dict[str, Any], encoder: TextEncoder | None) -> None:
        self.folder = folder
        self._record = record
        self.encoder = encoder

    @classmethod
    def open(cls, folder: str | Path, encoder: TextEncoder | None = None, check: bool = False) -> "PassageIndex":
        """An index that was built; sizes are compared at once, numbers where `check` is asked for.

        Args:
            folder: of the index, or of a model that has one in `index/`.
            encoder: must be the one that made it.
            check: whether all vectors are read and compared with what was written.

        Raises:
            DamagedIndex: something is missing, cut off or changed.
            ValueError: the folder holds no index, or it was made by another encoder.
        """
        folder = Path(folder)
        if not (folder / _RECORD).exists() and (folder / "index" / _RECORD).exists():
            folder = folder / "index"
        try:
            record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            half = " but one that is half built: run its build again" if (folder / "segments").is_dir() else ""
            raise ValueError(f"{folder} holds no index{half}") from None
        except ValueError as error:
            raise DamagedIndex(f"{folder / _RECORD} cannot be read ({error}); build the index again") from None
        if record.get("format") != _FORMAT:
            raise ValueError(f"{folder} has format {record.get('format')}, this version of hf_zoo reads {_FORMAT}")
        if encoder is not None:
            check_encoder(str(folder), record["encoder"], encoder)
        index = cls(folder, record, encoder)
        for segment in index.segments:
            segment.vectors(), segment.passages()
            if check:
                segment.check()
        return index

    @cached_property
    def segments(self) -> list[Segment]:
        """What it is made of, oldest first."""
        found, first = [], 0
        for name in self._record["segments"]:
            found.append(open_segment(self.folder / "segments" / name, first))
            first += found[-1].num_rows
        return found

    @cached_property
    def deleted(self) -> np.ndarray:
        """Sorted numbers of deleted passages."""
        if self._record["deleted"] is None:
            return np.empty(0, np.int64)
        path = self.folder / self._record["deleted"]
        try:
            return np.load(path)
        except (OSError, ValueError) as error:
            raise DamagedIndex(f"{path} cannot be read ({error}); build the index again") from None

    @property
    def column(self) -> str:
        """Which column of the passages is encoded."""
        return self._record["column"]

    @property
    def encoder_description(self) -> dict[str, Any]:
        """What made the vectors, see `TextEncoder.description`."""
        return self._record["encoder"]

    @property
    def num_rows(self) -> int:
        """Numbers that were given, those of deleted passages too."""
        return sum(segment.num_rows for segment in self.segments)

    def __len__(self) -> int:
        """Passages that can be found."""
        return self.num_rows - len(self.deleted)

    @property
    def dimension(self) -> int:
        """Size of the vectors."""
        return self.segments[0].record["dimension"]

    def __getitem__(self, number: int) -> dict[str, Any]:
        """The row of a passage, deleted or not.

        Raises:
            IndexError: no passage has the number.
        """
        for segment in self.segments:
            if 0 <= number - segment.first < segment.num_rows:
                return segment.passages()[int(number - segment.first)]
        raise IndexError(f"passage {number} is not in the index, which has numbers 0 to {self.num_rows - 1}")

    def numbers(self) -> np.ndarray:
        """Numbers of all passages that can be found, in order."""
        return np.setdiff1d(np.arange(self.num_rows), self.deleted, assume_unique=True)

    def passages(self) -> "Dataset":
        """Rows of all passages that can be found, in the order of `numbers`."""
        from datasets import concatenate_datasets

        every = concatenate_datasets([segment.passages() for segment in self.segments])
        return every.select(self.numbers()) if len(self.deleted) else every

    def vectors(self, numbers: Iterable[int]) -> np.ndarray:
        """Vectors of passages by their numbers (n, D)."""
        numbers = np.asarray(list(numbers), np.int64)
        made = np.empty((len(numbers), self.dimension), np.float32)
        for segment in self.segments:
            own = (numbers >= segment.first) & (numbers < segment.first + segment.num_rows)
            made[own] = segment.vectors()[numbers[own] - segment.first]
        return made

    def search(self, questions: list[str], k: int = 5, batch_size: int = 32) -> list[list[Hit]]:
        """The k best passages for each question, best first."""
        if self.encoder is None:
            raise ValueError("the index was opened without an encoder; PassageIndex.open(folder, encoder) takes it")
        scores, numbers = self.search_vectors(self.encoder.questions(questions, batch_size), k)
        return [
            [Hit(int(n), float(s), self[int(n)]) for s, n in zip(*row, strict=True) if n >= 0]
            for row in zip(scores, numbers, strict=True)
        ]

    def search_vectors(self, questions: np.ndarray, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The k best passages for each of the vectors (Q, D): scores (Q, k) and numbers (Q, k), best first.

        Exact, unless `approximate` was called; passages that were added since are compared exactly then too.
        """
        questions = np.asarray(questions, np.float32)
        if questions.ndim != 2 or questions.shape[1] != self.dimension:
            raise ValueError(
                f"questions must have shape (Q, {self.dimension}) as the index has, got {questions.shape}"
            )
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        k = min(k, len(self))
        parts = [(segment.first, segment.vectors()) for segment in self.segments]
        if self._faiss is None:
            return search_exactly(questions, parts, self.deleted, k)
        index, num_rows = self._faiss
        scores, numbers = search_faiss(index, questions, self.deleted, k)
        newer = [(first, vectors) for first, vectors in parts if first >= num_rows]
        if newer:
            more = search_exactly(questions, newer, self.deleted, k)
            scores, numbers = (np.concatenate(pair, 1) for pair in zip((scores, numbers), more, strict=True))
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, numbers = (np.take_along_axis(x, order, 1) for x in (scores, numbers))
        return scores, numbers

    @cached_property
    def _faiss(self) -> "tuple[FaissIndex, int] | None":
        """What FAISS searches and how many rows it knows; None where all vectors are compared."""
        made = self._record.get("approximate")
        if made is None:
            return None
        path = self.folder / _APPROXIMATE
        if not path.exists() or path.stat().st_size != made["bytes"]:
            raise DamagedIndex(f"{path} is missing or cut off; call approximate({made['kind']!r}) again")
        return open_approximate(path), made["rows"]

    def approximate(self, kind: str) -> None:
        """Search fast and not quite exactly from now on: "ivf" stays on disk, "hnsw" is fastest and needs memory."""
        with self._changing():
            made = approximate_index(kind, [segment.vectors() for segment in self.segments])
            part = self.folder / f".{_APPROXIMATE}.part"
            made.save(part)
            size = part.stat().st_size
            os.replace(part, self.folder / _APPROXIMATE)
            self._write({"approximate": {"kind": kind, "rows": self.num_rows, "bytes": size}})

    def add(self, passages: "Dataset", batch_size: int = 32) -> None:
        """Encode more passages; they get the next numbers. The same call goes on with one that was cut off."""
        check_columns(passages, self.column, self._record["title_column"])
        self._extend(passages, batch_size)

    def delete(self, numbers: Iterable[int]) -> None:
        """Let passages never be found again; their files stay as they are.

        Raises:
            IndexError: no passage has one of the numbers; then none is deleted.
        """
        numbers = np.unique(np.asarray(list(numbers), np.int64))
        with self._changing():
            wrong = numbers[(numbers < 0) | (numbers >= self.num_rows)]
            if len(wrong):
                raise IndexError(f"passage {wrong[0]} is not in the index, which has numbers 0 to {self.num_rows - 1}")
            old = self._record["deleted"]
            version = 0 if old is None else int(Path(old).stem.rpartition("-")[2])
            name = f"deleted-{version + 1}.npy"
            np.save(self.folder / name, np.union1d(self.deleted, numbers))
            self._write({"deleted": name})
            if old is not None:
                (self.folder / old).unlink(missing_ok=True)

    def save(self, folder: str | Path) -> "PassageIndex":
        """Copy it into a new or empty folder, such as `index/` beside a model's files."""
        folder = Path(folder)
        refuse_filled(folder)
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(self.folder, part, ignore=shutil.ignore_patterns("*.part", ".lock"))
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
        return PassageIndex(folder, self._record, self.encoder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload it into `index/` of a model's repository on the Hub; the address of the commit.

        Args:
            repo_id: of the model; made if it does not exist.
            options: of `HfApi.upload_folder`, for instance commit_message or token.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=options.pop("token", None))
        api.create_repo(repo_id, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo_id,
            folder_path=self.folder,
            path_in_repo="index",
            ignore_patterns=["*.part*", ".lock"],
            **options,
        )
        return str(done)

    def _extend(self, passages: "Dataset", batch_size: int) -> "PassageIndex":
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self.encoder is None:
            raise ValueError("the index was opened without an encoder; PassageIndex.open(folder, encoder) takes it")
        column, title = self.column, self._record["title_column"]

        def texts(start: int, stop: int) -> list[str]:
            rows = passages[start:stop]
            if title is None:
                return rows[column]
            between = self.encoder.tokenizer.sep_token or " "
            return [f"{head}{between}{body}" for head, body in zip(rows[title], rows[column], strict=True)]

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with self._changing(), Progress(*columns) as progress:
            task = progress.add_task("encoding passages", total=len(passages))
            name = f"{len(self._record['segments']):06d}"
            build_segment(
                self.folder / "segments" / name,
                passages,
                texts,
                lambda part: self.encoder.passages(part, batch_size),
                {"encoder": self._record["encoder"], "column": column, "title_column": title},
                self._record["dtype"],
                lambda rows: progress.advance(task, rows),
            )
            self._write({"segments": [*self._record["segments"], name]})
        return self

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """No other process changes the index meanwhile, and what others changed before is known."""
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            if (self.folder / _RECORD).exists():
                self._forget(json.loads((self.folder / _RECORD).read_text(encoding="utf-8")))
            yield

    def _write(self, changes: dict[str, Any]) -> None:
        """Change index.json in one step."""
        record = {**self._record, **changes}
        write_json(self.folder / _RECORD, record)
        self._forget(record)

    def _forget(self, record: dict[str, Any]) -> None:
        """Take a new record, and drop what was read by the old one."""
        self._record = record
        for name in ("segments", "deleted", "_faiss"):
            self.__dict__.pop(name, None)
