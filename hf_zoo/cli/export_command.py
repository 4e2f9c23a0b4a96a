"""`hf-zoo export`: a folder with weights, config and code that loads without hf_zoo."""

from pathlib import Path
from typing import Annotated

import typer


def export_command(
    source: Annotated[str, typer.Argument(help="A preset, for fresh weights, or the folder of a checkpoint.")],
    target: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    task: Annotated[str | None, typer.Option(help="Which head, for instance sequence-classification.")] = None,
    seed: Annotated[int, typer.Option(help="Of fresh weights.")] = 0,
) -> None:
    """Write a checkpoint that carries its code: anyone loads it with trust_remote_code=True."""
    from ..errors import refuse_filled

    refuse_filled(target)

    from transformers import AutoTokenizer, set_seed

    from ..export import export_standalone
    from ..presets import create_model
    from ..registry import register
    from ..show import describe

    register()
    described = describe(source, task)
    if described.is_folder:
        model = described.model_class.from_pretrained(source)
        has_tokenizer = any(Path(source).glob("tokenizer*"))
        export_standalone(model, target, AutoTokenizer.from_pretrained(source) if has_tokenizer else None)
    else:
        set_seed(seed)
        export_standalone(create_model(source, task), target)
    typer.echo(f"{described.model_class.__name__} written to {target}")
