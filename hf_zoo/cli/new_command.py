"""`hf-zoo new`: start an architecture from one that is there."""

from typing import Annotated

import typer

REMAINS = """\
It runs, and is {other} under a new name. What remains:
  1. modeling/{name}/modeling_{name}.py, configuration_{name}.py: the equations, with the paper, and only the fields
     they need; a layer that another architecture would want goes to modeling/layers/ with a test of its own.
  2. hf_zoo/registry.py: title, paper, tasks and LoRA targets of the new line.
  3. modeling/{name}/presets.py: the published sizes, with exact parameter counts.
  4. modeling/{name}/README.md and __init__.py, whose words are still those of {other}.
  5. tests/models/test_{name}.py: what it does that no other does; a parity test if transformers has it,
     with hf_zoo/upstream/{name}.py.
  6. python docs/tables.py, then python -m pytest -k {model_type}, then make test: it also holds that no two models
     are more than 80 % alike, which these two are until step 1 is done."""


def new_command(
    name: Annotated[str, typer.Argument(help="Name of the folder: lower case, digits, underscores.")],
    like: Annotated[str, typer.Option(help="The architecture to start from, for instance llm or mlm.")],
) -> None:
    """Write a new architecture's folder, table line and test case (in a source checkout)."""
    from ..new import new_architecture
    from ..registry import find_architecture

    for path in new_architecture(name, like):
        typer.echo(f"wrote {path}")
    typer.echo(REMAINS.format(name=name, model_type=f"zoo_{name}", other=find_architecture(like).model_type))
