"""Writing a zoo model as one of transformers' own, and whole folders both ways."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import refuse_filled
from ..registry import ARCHITECTURES, TASKS, Architecture, find_architecture
from .rwkv_files import open_rwkv_file
from .table import find_upstream, prefixes, read_table

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def to_upstream(model: "PreTrainedModel", model_type: str | None = None) -> "PreTrainedModel":
    """The same function as a model of transformers, with the same weights in upstream's names and layout.

    Args:
        model: a zoo model.
        model_type: transformers' name; without it the first of the table that can hold the model.

    Raises:
        ValueError: no such model type, or it lacks an option of the model.
    """
    import torch

    # Private: transformers has no documented way to apply its conversions backwards to a state dict.
    from transformers.core_model_loading import revert_weight_conversion

    architecture = find_architecture(model.config.model_type)
    upstream = _first_that_fits(architecture, model) if model_type is None else model_type
    table = find_upstream(architecture, upstream)
    config = table.write_config(model.config)
    task = architecture.task_of(type(model))
    if task in table.other_meaning:
        raise ValueError(f"{upstream} has no head like that of {type(model).__name__}; write its encoder instead")
    with torch.device("meta"):
        twin = table.extended(table.make(config, task))
    conversions = getattr(model, "_weight_conversions", None)
    classifier = "classifier" if hasattr(twin, "classifier") else "score"
    model._weight_conversions = [*prefixes(twin.base_model_prefix, classifier), *table.weights_of(model.config, task)]
    try:
        weights = revert_weight_conversion(model, model.state_dict())
    finally:
        model._weight_conversions = conversions
    prefix = f"{twin.base_model_prefix}."
    if not hasattr(twin, twin.base_model_prefix):  # tables are written for heads that hold a trunk
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    if table.copies is not None:
        weights |= {copy: weights[original] for copy, original in table.copies(twin).items()}
    expected = set(twin.state_dict())
    twin.load_state_dict({n: t.clone() for n, t in weights.items() if n in expected}, strict=False, assign=True)
    _tie(twin, weights)
    lost = [n for n, p in twin.named_parameters() if p.is_meta]
    unused = {n for n in lost if any(part in n for part in table.unused)}
    for name in unused:
        module, _, own = name.rpartition(".")
        empty = torch.zeros(twin.get_parameter(name).shape)
        setattr(twin.get_submodule(module), own, torch.nn.Parameter(empty))
    if lost := [n for n in lost if n not in unused]:
        raise ValueError(f"{type(model).__name__} has no weight for {lost[0]!r} of {type(twin).__name__}")
    # Buffers that no checkpoint holds are still without data; a second load from disk fills them.
    full = table.extended(type(twin)(twin.config))
    full.load_state_dict(twin.state_dict(), strict=False, assign=True)
    _tie(full, weights)
    return full.eval()


def _first_that_fits(architecture: Architecture, model: "PreTrainedModel") -> str:
    reasons = []
    for name, upstream in read_table(architecture).items():
        try:
            upstream.write_config(model.config)
            return name
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError("; ".join(reasons) or f"{architecture.model_type} has no counterpart in transformers")


def _tie(twin: "PreTrainedModel", weights: dict[str, "Tensor"]) -> None:
    """Tie what the config ties, but for weights that are given and differ: so transformers reads its own files, in
    which alone T5 says whether its scores are tied."""
    for target, source in dict(twin.all_tied_weights_keys).items():
        if target in weights and source in weights and not weights[target].equal(weights[source]):
            del twin.all_tied_weights_keys[target]
    twin.tie_weights(recompute_mapping=False)


def convert_folder(source: str, target: str, to: str) -> Path:
    """Convert a checkpoint folder: from transformers to the zoo, or back; or a file of RWKV's authors to the zoo.

    Args:
        source: folder or Hub name to read, or a `.pth` file.
        target: folder to write; it must be empty or new.
        to: a zoo architecture ("zoo_llm"), a model type of transformers ("llama"), or "upstream" for the first
            that fits.

    Raises:
        ValueError: an unknown target type, or a target folder that holds files.
        FileNotFoundError: no such source folder.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(target)
    refuse_filled(folder)
    if Path(source).is_file():
        open_rwkv_file(source, find_architecture(to).model_type).save_pretrained(folder)
        return folder
    if str(source).startswith(("/", ".")) and not Path(source).is_dir():
        raise FileNotFoundError(f"{source} is not a folder")
    source_type = AutoConfig.from_pretrained(source).model_type
    if source_type in ARCHITECTURES:
        if to != "upstream":
            find_upstream(ARCHITECTURES[source_type], to)  # an unknown name is known before weights are read
        model = open_folder(ARCHITECTURES[source_type], source)
        to_upstream(model, None if to == "upstream" else to).save_pretrained(folder)
    else:
        architecture = find_architecture(to)
        find_upstream(architecture, source_type)
        open_folder(architecture, source).save_pretrained(folder)
    if any(Path(source).glob("tokenizer*")):
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def saved_task(architecture: Architecture, source: str) -> str | None:
    """The task of the head that a folder was saved with; None where the zoo has none like it."""
    from transformers import PreTrainedConfig

    saved = (PreTrainedConfig.get_config_dict(source)[0].get("architectures") or [""])[0]
    if saved.endswith("LMHeadModel"):
        return "causal-lm"
    return next((t for t in architecture.all_tasks if saved.endswith(TASKS[t][1])), None)


def open_folder(architecture: Architecture, source: str) -> "PreTrainedModel":
    """The zoo model with the head that the folder was saved with, the main one where the zoo lacks it."""
    return architecture.model_class(saved_task(architecture, source)).from_pretrained(source)
