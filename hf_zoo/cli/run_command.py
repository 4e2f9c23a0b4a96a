"""`hf-zoo run`: any Hugging Face script, unchanged, with the zoo registered."""

import runpy
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

# Whatever follows the script is the script's, --help too
RUN_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def run_command(
    context: typer.Context,
    script: Annotated[str, typer.Argument(help="A Python file; what follows are its own arguments.")],
) -> None:
    """Run a script with every architecture registered: it sees the arguments as if Python had started it.

    Several processes: torchrun --nproc_per_node 2 -m hf_zoo run SCRIPT ...
    """
    path = Path(script)
    if not path.is_file():
        near = [file.name for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
        if near:
            from ..errors import unknown_name

            raise unknown_name(f"script in {path.parent}:", path.name, near)
        raise FileNotFoundError(f"no script {script!r}.")

    from ..registry import register

    register()
    sys.argv = [script, *context.args]
    sys.path[0] = str(path.resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    except (ValueError, ImportError, OSError):
        traceback.print_exc()  # of a command of ours it would be one line; a script's author needs the place
        raise SystemExit(1) from None
