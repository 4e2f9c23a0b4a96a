"""LoRA and its relatives: what peft adapts when the user names no layers.

peft keeps one table a method, each a copy of its own, keyed by `model_type`; an architecture that is in none of them
has no defaults. `register_peft_defaults` enters every line of the registry in all of them.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .errors import unknown_name
from .registry import ARCHITECTURES, find_architecture

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn
    from transformers import PreTrainedModel

# What peft calls the heads; others train whole beside the adapter
_PEFT_TASKS = {
    "ForCausalLM": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "Model": "FEATURE_EXTRACTION",
}
_NEW_HEADS = ("score", "qa_outputs")  # heads that a task starts from random weights


def register_peft_defaults() -> None:
    """Enter every architecture's default targets in peft's tables; an entry that is there already stays."""
    from peft.utils import constants

    for name, table in vars(constants).items():
        if not name.startswith("TRANSFORMERS_MODELS_TO_"):
            continue
        for architecture in ARCHITECTURES.values():
            if "IA3_FEEDFORWARD" in name:
                targets = architecture.feedforward_targets
            elif "IA3_TARGET" in name:
                targets = tuple(dict.fromkeys(architecture.lora_targets + architecture.feedforward_targets))
            elif "LNTUNING" in name:
                targets = architecture.norm_targets
            elif name.endswith("_TARGET_MODULES_MAPPING"):
                targets = architecture.lora_targets
            else:
                continue
            table.setdefault(architecture.model_type, list(targets))


def lora_config(model: "PreTrainedModel", r: int = 8, **kwargs: Any) -> "LoraConfig":
    """A peft `LoraConfig` that fits a zoo model: its default targets, its task, its new heads trained whole.

    Routed experts, whose weights are no linear layers, are adapted too; peft can do that only without `lora_dropout`
    and DoRA, and leaves them as they are where one of the two is asked for, or other `target_modules`.

    Args:
        model: a zoo model, any head.
        r: rank of the update.
        kwargs: any other field of `LoraConfig`; `lora_alpha` is 2 r without it.

    Raises:
        ValueError: a target that no module of the model answers to; peft itself skips it in silence.
    """
    from peft import LoraConfig

    architecture = find_architecture(model.config.model_type)
    kwargs.setdefault("lora_alpha", 2 * r)
    if not any(kwargs.get(name) for name in ("target_modules", "lora_dropout", "use_dora")):
        kwargs.setdefault("target_parameters", _parameters_of(model, architecture.lora_parameters) or None)
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    kwargs.setdefault("target_modules", [target for target in architecture.lora_targets if target in names])
    task_type = _PEFT_TASKS.get(type(model).__name__.removeprefix(architecture.class_prefix))
    kwargs.setdefault("task_type", task_type)
    if kwargs["task_type"] is None:
        kwargs.setdefault("modules_to_save", [name for name in _NEW_HEADS if hasattr(model, name)] or None)
    if isinstance(kwargs["target_modules"], (list, tuple, set)):
        for target in kwargs["target_modules"]:
            if target.rpartition(".")[2] not in names:
                raise unknown_name(f"LoRA target of {type(model).__name__}", target, names - {""})
    return LoraConfig(r=r, **kwargs)


def _parameters_of(model: "nn.Module", targets: Iterable[str]) -> list[str]:
    """Those of the names by which some parameter of the model ends."""
    names = [name for name, _ in model.named_parameters()]
    return [target for target in targets if any(name.endswith(f".{target}") for name in names)]


def count_lora_parameters(model: "nn.Module", config: "LoraConfig") -> int:
    """How many numbers `config` adds to `model`: r (inputs + outputs) for every linear layer it names, and for every
    expert of a parameter (experts, outputs, inputs).

    Comparing it with what peft made tells whether a layer was skipped.
    """
    from torch import nn

    targets = set(config.target_modules)
    layers = (m for name, m in model.named_modules() if name.rpartition(".")[2] in targets)
    count = sum(config.r * (m.in_features + m.out_features) for m in layers if isinstance(m, nn.Linear))
    endings = tuple(f".{target}" for target in config.target_parameters or ())
    stacks = (p.shape for name, p in model.named_parameters() if endings and name.endswith(endings))
    return count + sum(config.r * experts * (outputs + inputs) for experts, outputs, inputs in stacks)
