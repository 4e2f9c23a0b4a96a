"""`hf-zoo extend`: BERT and RoBERTa checkpoints for long texts."""

from pathlib import Path
from typing import Annotated

import typer


def extend_command(
    source: Annotated[str, typer.Argument(help="Folder or Hub name of a BERT or RoBERTa.")],
    target: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    to: Annotated[str, typer.Option(help="zoo_longformer or zoo_bigbird.")] = "zoo_longformer",
    positions: Annotated[int, typer.Option(min=1, help="Tokens that a text may have.")] = 4096,
) -> None:
    """Make a Longformer or BigBird of a BERT or RoBERTa, with its weights and more positions."""
    from ..extend import extend_folder
    from ..registration import register

    register()
    typer.echo(f"written to {extend_folder(source, target, to, positions)}")
