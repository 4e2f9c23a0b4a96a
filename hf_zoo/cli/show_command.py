"""`hf-zoo show`: what a preset or a checkpoint is made of and what it costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from rich.tree import Tree

    from ..show import Described, Part


def show_command(
    name: Annotated[str, typer.Argument(help="A preset, or the folder of a checkpoint.")],
    task: Annotated[str | None, typer.Option(help="Show this head, for instance sequence-classification.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the parameters by module into this file.")] = None,
    pattern: Annotated[Path | None, typer.Option(help="Draw which token sees which into this file.")] = None,
    length: Annotated[int, typer.Option(min=1, help="Tokens of the pattern.")] = 64,
) -> None:
    """Show modules, parameters, memory and cache, without allocating the model."""
    from rich.console import Console

    from ..pictures import check_picture, draw_parts, draw_patterns
    from ..show import attention_patterns, describe

    for path in (picture, pattern):
        if path is not None:
            check_picture(path)
    described = describe(name, task)
    console = Console()
    console.print(_tree(described.parts))
    console.print()
    console.print(_costs(described))
    console.print()
    console.print(_facts(described))
    if picture is not None:
        draw_parts(described, picture)
        console.print(f"parameters drawn in {picture}")
    if pattern is not None:
        draw_patterns(described, attention_patterns(described, length), pattern)
        console.print(f"pattern drawn in {pattern}")


def _tree(part: "Part", parent: "Tree | None" = None) -> "Tree":
    from rich.markup import escape
    from rich.tree import Tree

    text = f"[bold]{escape(part.label)}[/bold] [cyan]{part.total:,}[/cyan] [dim]{escape('  '.join(part.shapes))}[/dim]"
    node = Tree(text) if parent is None else parent.add(text)
    for child in part.parts:
        if child.total or child.shapes:
            _tree(child, node)
    return node


def _costs(described: "Described") -> "Table":
    from rich.filesize import decimal
    from rich.table import Table

    from ..show import DTYPES

    table = Table("", *DTYPES, box=None, header_style="bold")
    table.add_row("memory of the weights", *(decimal(described.weight_bytes(dtype)) for dtype in DTYPES))
    costs = [described.cache_cost(dtype) for dtype in DTYPES]
    if None not in costs:
        if costs[0].per_token:
            table.add_row("cache, each token", *(decimal(cost.per_token) for cost in costs))
        for width in costs[0].windows:
            table.add_row(f"cache, at most ({width:,} tokens)", *(decimal(cost.windows[width]) for cost in costs))
        if costs[0].fixed:
            table.add_row("cache, at any length", *(decimal(cost.fixed) for cost in costs))
    return table


def _facts(described: "Described") -> "Table":
    from rich.table import Table

    paper, address = described.architecture.paper
    table = Table(show_header=False, box=None)
    table.add_row("architecture", f"{described.architecture.model_type}: {described.architecture.title}")
    table.add_row("parameters", f"{described.parts.total:,}")
    table.add_row("source", described.source)
    table.add_row("paper", f"{paper}, {address}")
    return table
