"""`hf-zoo train`: names of a model and a dataset, and every flag of `TrainingArguments`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from transformers import HfArgumentParser

# typer hands everything to HfArgumentParser, --help included
TRAIN_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
_UNSET: Any = object()
_USAGE = "hf-zoo train --model NAME --dataset NAME [--lora] [any flag of TrainingArguments]"
_DESCRIPTION = """\
hf-zoo train --model mamba-tiny --dataset python-source --max_steps 300 --output_dir mamba
hf-zoo train --model mamba --dataset notes.txt --lora --num_train_epochs 1 --output_dir notes
hf-zoo train --model mlm-tiny --dataset reviews.jsonl --task sequence-classification --output_dir reviews

Repeated after an interruption, a call goes on from the last whole checkpoint, to the same weights."""


def _field(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass
class TrainOptions:
    """The flags of `hf-zoo train` that are not of `TrainingArguments`."""

    model: str | None = _field(None, "A preset (fresh weights), a folder, or a name on the Hub (its weights).")
    dataset: str | None = _field(None, "A built-in name, a local file (txt, jsonl, parquet), or a name on the Hub.")
    task: str | None = _field(
        None,
        "causal-lm, masked-lm, pre-training, next-sentence-prediction, sequence-classification or "
        "token-classification; by default what the model was made for.",
    )
    tokenizer: str | None = _field(None, "A folder or a name on the Hub; by default the model's own.")
    block_size: int = _field(256, "Most tokens a row.")
    overwrite_output_dir: bool = _field(False, "Start anew in a folder that holds another run or model.")
    lora: bool = _field(False, "Train a LoRA adapter instead of all weights.")
    lora_r: int = _field(8, "Rank of the adapter.")
    lora_alpha: int | None = _field(None, "Scale of the adapter times its rank; by default 2 r for zoo models.")
    lora_dropout: float = _field(0.0, "Dropout before the adapter.")
    lora_target_modules: list[str] | None = _field(
        None, "Linear layers that get one; by default those of the architecture."
    )


def make_parser() -> "HfArgumentParser":
    """A parser whose errors are `ValueError`s of one line."""
    import argparse

    from transformers import HfArgumentParser, TrainingArguments

    class Parser(HfArgumentParser):
        def error(self, message: str) -> None:
            raise ValueError(f"{message}. `hf-zoo train --help` shows every flag.")

    parser = Parser(
        [TrainOptions, TrainingArguments],
        usage=_USAGE,
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--no_bf16", "--no-bf16", dest="bf16", action="store_false", help="No bf16 by default either.")
    return parser


def parse_arguments(arguments: list[str]) -> dict[str, Any]:
    """The flags that were given, as keyword arguments of `hf_zoo.training.train.train`; no defaults among them.

    Raises:
        ValueError: an unknown flag (the nearest is named), a value of the wrong type, or no model or dataset.
    """
    import argparse

    from transformers import TrainingArguments

    from ..errors import unknown_name

    own = {field.name for field in dataclasses.fields(TrainOptions)}
    names = own | {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    blank = argparse.Namespace(**dict.fromkeys(names, _UNSET))
    parsed, rest = make_parser().parse_known_args(arguments, blank)
    for argument in rest:
        flag = argument.split("=")[0]
        if flag.startswith("-"):
            known = {f"--{name}" for name in names | {"no_bf16"}}
            see = "`hf-zoo train --help` shows every flag."
            raise unknown_name("flag", "--" + flag.lstrip("-").replace("-", "_"), known, see)
    if rest:
        raise ValueError(f"unexpected argument {rest[0]!r}: every value follows a flag, as in --model {rest[0]}.")

    given = {name: value for name, value in vars(parsed).items() if value is not _UNSET}
    for name in ("model", "dataset"):
        if not given.get(name):
            raise ValueError(f"--{name} is missing. Usage: {_USAGE}")
    adapter = {name.removeprefix("lora_"): given.pop(name) for name in list(given) if name.startswith("lora_")}
    if given.pop("lora", False):
        given["lora"] = {"r": TrainOptions.lora_r, **_peft_names(adapter)}
    elif adapter:
        raise ValueError(f"--lora_{next(iter(adapter))} is for an adapter: add --lora.")
    return given


def _peft_names(adapter: dict[str, Any]) -> dict[str, Any]:
    own = ("alpha", "dropout")
    return {f"lora_{name}" if name in own else name: value for name, value in adapter.items()}


def train_command(context: typer.Context) -> None:
    """Train, or fine-tune with LoRA: --model NAME --dataset NAME, and every flag of TrainingArguments."""
    if not context.args or {"--help", "-h"} & set(context.args):
        make_parser().print_help()
        return
    given = parse_arguments(context.args)

    from ..training.train import train

    trainer = train(**given)
    if trainer.is_world_process_zero():
        _print_summary(Path(trainer.args.output_dir), is_adapter="lora" in given)


def _print_summary(folder: Path, is_adapter: bool) -> None:
    from rich.console import Console

    files = {
        "adapter and tokenizer" if is_adapter else "model and tokenizer": folder,
        "losses": folder / "training.json",
        "loss curve": folder / "loss.png",
    }
    console = Console(soft_wrap=True)  # a path is to be copied whole, which a table would cut to the window's width
    for what, path in files.items():
        if path.exists():
            console.print(f"{what:<23}{path}", markup=False, highlight=False)
