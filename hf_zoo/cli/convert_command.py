"""`hf-zoo convert`: checkpoints of transformers' own architectures into zoo models and back, and RWKV's own files."""

from pathlib import Path
from typing import Annotated

import typer


def convert_command(
    source: Annotated[str, typer.Argument(help="Folder or Hub name to read, or a .pth file of RWKV.")],
    target: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    to: Annotated[
        str,
        typer.Option(help="A zoo architecture (zoo_llm), a model type of transformers (llama), or upstream."),
    ],
) -> None:
    """Convert a checkpoint from transformers to the zoo or back; `upstream` is the first type that fits."""
    from ..registration import register
    from ..upstream import convert_folder

    register()
    typer.echo(f"written to {convert_folder(source, target, to)}")
