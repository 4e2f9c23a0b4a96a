"""Recipes: how published models were made of a base model, as data that a training run takes.

The data stand in the `RECIPES` of an architecture's `presets.py`, beside the sizes of their bases.
"""

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import unknown_name
from .presets import presets_module
from .registry import ARCHITECTURES

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Recipe:
    """One published model.

    Args:
        name: of the recipe.
        base: the preset that it starts from.
        lora: fields of peft's `LoraConfig`; None where all weights are trained.
        template: the prompt, with the names of a row's columns in braces.
        training: fields of `TrainingArguments` that the source states.
        source: where the numbers come from, and which of them are uncertain.
    """

    name: str
    base: str
    lora: dict[str, Any] | None
    template: str
    training: dict[str, Any]
    source: str

    @property
    def columns(self) -> tuple[str, ...]:
        """What the template asks of a row."""
        return tuple(name for _, name, _, _ in string.Formatter().parse(self.template) if name)

    def format(self, row: dict[str, Any]) -> dict[str, str]:
        """`prompt` and `completion` of a row with the template's columns and `output`, as trl's SFTTrainer takes them.

        A row without `output` is one to be answered; its completion is empty.

        Raises:
            ValueError: the row lacks a column.
        """
        for name in self.columns:
            if name not in row:
                raise unknown_name(f"column of {self.name}", name, row, f"The row has {', '.join(row)}.")
        return {"prompt": self.template.format(**row), "completion": row.get("output") or ""}

    def lora_config(self, model: "PreTrainedModel") -> "LoraConfig | None":
        """The adapter for a model, of the base's size or any other; None where all weights are trained."""
        from .lora import lora_config

        return None if self.lora is None else lora_config(model, **self.lora)


def list_recipes() -> list[str]:
    """Names of all recipes, sorted."""
    return sorted(_read())


def recipe(name: str) -> Recipe:
    """A recipe by name, such as "fingpt".

    Raises:
        ValueError: there is none; the nearest is named.
    """
    known = _read()
    if name not in known:
        raise unknown_name("recipe", name, known)
    return Recipe(name=name, **known[name])


def _read() -> dict[str, dict[str, Any]]:
    modules = map(presets_module, ARCHITECTURES.values())
    return {name: data for module in modules for name, data in getattr(module, "RECIPES", {}).items()}
