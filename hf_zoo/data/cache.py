"""Folders that are built once, kept on disk and either whole or absent."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def cache_home() -> Path:
    """Where hf_zoo keeps what it builds: `HF_ZOO_CACHE`, else `hf_zoo` in the Hugging Face home (`HF_HOME`)."""
    if folder := os.environ.get("HF_ZOO_CACHE"):
        return Path(folder).expanduser()
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME, "hf_zoo")


def cached_folder(name: str, build: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, built on first use.

    A build writes to a folder beside it, which takes its name in one step when it is whole: a killed build leaves
    nothing that could be taken for a result. Processes that ask at once wait for the first and share what it made.

    Args:
        name: path in the cache; whatever changes the content belongs in it.
        build: fills the empty folder that it is given.
    """
    from filelock import FileLock

    folder = cache_home() / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # left by a build that was killed: this lock has no other owner
            partial.mkdir()
            build(partial)
            partial.rename(folder)
    return folder
