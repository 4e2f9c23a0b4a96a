"""`hf-zoo list`: architectures and presets, from the tables alone."""

from typing import Annotated

import typer


def list_command(
    pattern: Annotated[str, typer.Argument(help="Preset names to show, as a glob.")] = "*",
) -> None:
    """List architectures and their presets. Imports no model."""
    from rich.console import Console
    from rich.table import Table

    from ..presets import list_models, read_presets
    from ..registry import ARCHITECTURES

    wanted = set(list_models(pattern))
    table = Table("architecture", "preset", "parameters", "source", box=None, header_style="bold")
    for architecture in ARCHITECTURES.values():
        for name, preset in read_presets(architecture).items():
            if name in wanted:
                table.add_row(architecture.model_type, name, f"{preset['parameters']:,}", preset["source"])
    if not table.row_count:
        from ..errors import unknown_name

        raise unknown_name("preset", pattern, list_models(), "`hf-zoo list` shows them all.")
    Console().print(table)
