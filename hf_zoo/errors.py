"""What several commands refuse, each in one way: a name that is unknown, a folder that is in use."""

import difflib
from collections.abc import Iterable
from pathlib import Path


def unknown_name(kind: str, name: str, known: Iterable[str], see: str = "") -> ValueError:
    """The error to raise for a name that is not known.

    Args:
        kind: what the name is of, in the user's words ("preset", "task", "field of ZooLlmConfig").
        name: what was given.
        known: the names that exist.
        see: where all of them can be seen, a sentence.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {kind} {name!r}.{hint}{' ' + see if see else ''}")


def refuse_filled(folder: Path) -> None:
    """Raise unless a folder is new or empty: asked before any work, since nothing is ever overwritten."""
    if folder.is_file():
        raise ValueError(f"{folder} is a file; name a folder that is new or empty")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; choose another folder, nothing is overwritten")


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message says which extra of hf_zoo brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs {package}: pip install 'hf_zoo[{extra}]'")
