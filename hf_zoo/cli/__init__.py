"""The `hf-zoo` command: one module a command, each importing what it needs only when it runs."""

import typer

from .list_command import list_command

app = typer.Typer(
    help="Every family of modern AI models, in the Hugging Face stack.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("list")(list_command)


def main() -> None:
    """Run the command line; a ValueError is the user's to mend, so it is one line and no traceback."""
    try:
        app()
    except (ValueError, ImportError) as error:
        typer.secho(f"hf-zoo: {error}", fg="red", err=True)
        raise SystemExit(2) from None
