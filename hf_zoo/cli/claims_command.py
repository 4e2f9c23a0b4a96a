"""`hf-zoo claims`: reproduce the papers' headline claims in miniature."""

from typing import Annotated

import typer


def claims_command(
    architectures: Annotated[list[str] | None, typer.Argument(help="Which; all without.")] = None,
) -> None:
    """Train, compare with the paper's rival, and say what holds; minutes each on a CPU."""
    from rich.console import Console
    from rich.table import Table

    from ..claims import run_claims

    results = run_claims(architectures or [])
    table = Table("architecture", "claim", "measured", "holds", box=None, header_style="bold")
    for result in results:
        for comparison in result["comparisons"]:
            measured = ", ".join(f"{name} {value:g}" for name, value in comparison["measured"].items())
            table.add_row(result["architecture"], comparison["statement"], measured, str(comparison["holds"]))
    Console().print(table)
    if not all(comparison["holds"] for result in results for comparison in result["comparisons"]):
        raise typer.Exit(1)
