"""The `hf-zoo` command: one module a command, each importing what it needs only when it runs."""

import typer

from .agent_command import agent_command
from .claims_command import claims_command
from .convert_command import convert_command
from .export_command import export_command
from .extend_command import extend_command
from .index_commands import index_app
from .list_command import list_command
from .new_command import new_command
from .run_command import RUN_SETTINGS, run_command
from .show_command import show_command
from .tokenizer_command import tokenizer_command
from .train_command import TRAIN_SETTINGS, train_command

app = typer.Typer(
    help="Every family of modern AI models, in the Hugging Face stack.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("list")(list_command)
app.command("show")(show_command)
app.command("train", context_settings=TRAIN_SETTINGS)(train_command)
app.command("run", context_settings=RUN_SETTINGS)(run_command)
app.command("tokenizer")(tokenizer_command)
app.command("export")(export_command)
app.command("convert")(convert_command)
app.add_typer(index_app, name="index")
app.command("extend")(extend_command)
app.command("agent")(agent_command)
app.command("claims")(claims_command)
app.command("new")(new_command)


def main() -> None:
    """Run the command line; what the user can mend is one line and no traceback."""
    try:
        app()
    except (ValueError, ImportError, OSError) as error:
        typer.secho(f"hf-zoo: {error}", fg="red", err=True)
        raise SystemExit(2) from None
