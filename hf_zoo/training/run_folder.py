"""The folder of a training run: whether it may be written to, and where a run that was cut off goes on.

    run.json         what was asked for, and whether it is finished: the same call resumes, another is refused
    checkpoint-100   Trainer's, `trainer_state.json` written last

A run can be killed at any moment, so a checkpoint counts only when it is whole.
"""

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

from ..files import write_json

RECORD = "run.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_MODEL_FILES = ("config.json", "adapter_config.json", "*.safetensors", "pytorch_model*.bin", "checkpoint-*")


def why_broken(checkpoint: Path) -> str | None:
    """What keeps training from resuming exactly here, or None for a whole checkpoint.

    Files are opened, not read through: a write that was cut off leaves no readable end.
    """
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        if any(child.is_dir() for child in checkpoint.iterdir()):
            return None  # sharded by FSDP or DeepSpeed, in formats of their own; trainer_state.json is last there too
        for file in _weight_files(checkpoint):
            with safe_open(file, framework="pt"):
                pass
        random_states = sorted(checkpoint.glob("rng_state*.pth")) or [checkpoint / "rng_state.pth"]
        for file in (checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *random_states):
            zipfile.ZipFile(file).close()
    except FileNotFoundError as error:
        return f"{Path(error.filename or str(error)).name} is missing"
    except (ValueError, zipfile.BadZipFile, SafetensorError) as error:
        return f"unreadable: {error}"
    return None


def _weight_files(checkpoint: Path) -> list[Path]:
    index = checkpoint / "model.safetensors.index.json"
    if index.exists():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [checkpoint / name for name in sorted(set(names))]
    adapter = checkpoint / "adapter_model.safetensors"
    return [adapter if adapter.exists() else checkpoint / "model.safetensors"]


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _CHECKPOINT.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _set_aside(checkpoint: Path) -> None:
    """Rename: under its own name it would count against `save_total_limit` and be written into, old files and new."""
    aside = checkpoint.with_name(f"set-aside-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)


def open_run(
    folder: str | Path,
    asked: dict[str, Any],
    resume_from: str | None = None,
    overwrite: bool = False,
    is_main_process: bool = True,
) -> Path | None:
    """Take a folder for a run and tell where the run goes on. Only the main process writes.

    Args:
        folder: of the run, made if it does not exist.
        asked: all that the result depends on, as JSON values.
        resume_from: a checkpoint that the user names; inside `folder` it may continue any run.
        overwrite: start anew: what another run left goes.

    Returns:
        The last whole checkpoint, or None to start from the first step.

    Raises:
        ValueError: the folder holds a finished or a different run, or a model of unknown origin; or `resume_from` is
            not whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    asked = json.loads(json.dumps(asked, default=str))
    record = folder / RECORD
    named = Path(resume_from) if resume_from is not None else None
    if named is not None and (reason := why_broken(named)):
        raise ValueError(f"cannot resume from {named}: {reason}.")
    is_inside = named is not None and named.resolve().parent == folder.resolve()

    if overwrite and not is_inside and is_main_process:
        for checkpoint in _checkpoints(folder):
            if named is None or checkpoint.resolve() != named.resolve():
                shutil.rmtree(checkpoint)
        record.unlink(missing_ok=True)
    elif not overwrite and not is_inside:
        _refuse_others(folder, record, asked)

    checkpoint = named
    if is_main_process:
        for found in _checkpoints(folder) if is_inside else ():
            if _step(found) > _step(named):
                _set_aside(found)
        write_json(record, {**asked, "finished": False})
    if named is None:
        checkpoint = _last_whole(folder, is_main_process)
    return checkpoint


def _step(checkpoint: Path) -> int:
    return int(_CHECKPOINT.fullmatch(checkpoint.resolve().name)[1])


def _last_whole(folder: Path, is_main_process: bool) -> Path | None:
    for checkpoint in _checkpoints(folder):
        reason = why_broken(checkpoint)
        if reason is None:
            return checkpoint
        if is_main_process:
            print(f"{checkpoint} is not whole ({reason}): set aside.")
            _set_aside(checkpoint)
    return None


def _refuse_others(folder: Path, record: Path, asked: dict[str, Any]) -> None:
    ways_out = "choose another --output_dir, or start anew there with --overwrite_output_dir"
    if not record.exists():
        for pattern in _MODEL_FILES:
            if found := next(folder.glob(pattern), None):
                raise ValueError(
                    f"{folder} holds a model that another program put there ({found.name}): {ways_out}. "
                    "To continue a checkpoint, name it with --resume_from_checkpoint."
                )
        return
    before = json.loads(record.read_text(encoding="utf-8"))
    is_finished = before.pop("finished", False)
    if not is_finished and not _checkpoints(folder):
        return  # it never got as far as a checkpoint: nothing to lose
    for key in dict.fromkeys([*before, *asked]):
        if before.get(key) != asked.get(key):
            raise ValueError(
                f"{folder} holds another run, with {key} {before.get(key)!r}, not {asked.get(key)!r}: {ways_out}. "
                "To continue it with changes, name a checkpoint with --resume_from_checkpoint."
            )
    if is_finished:
        raise ValueError(f"{folder} holds this run, finished: {ways_out}.")


def finish_run(folder: str | Path) -> None:
    """Mark the run finished, once everything else is written."""
    record = Path(folder, RECORD)
    write_json(record, {**json.loads(record.read_text(encoding="utf-8")), "finished": True})
