"""Models inside models: any architecture, the zoo's or transformers', as a part of a composite one.

A composite config holds the whole configs of its parts, and its `sub_configs` names them.
"""

import inspect
from typing import Any

import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel

PART = AutoConfig  # what `sub_configs` says of a part that may be of any architecture


def part_config(value: dict[str, Any] | PreTrainedConfig, field: str) -> PreTrainedConfig:
    """The config of a part, from itself or from a dictionary with a `model_type`.

    Args:
        value: what the user or a `config.json` gave.
        field: where, for the message.

    Raises:
        ValueError: there is no model_type, or nobody knows it.
    """
    if isinstance(value, PreTrainedConfig):
        return value
    model_type = value.get("model_type")
    if model_type is None:
        raise ValueError(f"{field} needs a model_type, such as 'zoo_mlm' or 'bert'")
    own = _exported(model_type).get("AutoConfig")
    if own is None and model_type not in CONFIG_MAPPING:
        raise ValueError(f"{field} has model_type {model_type!r}, which transformers does not know")
    return (own or CONFIG_MAPPING[model_type]).from_dict(value)


def part_model(config: PreTrainedConfig, auto_class: str = "AutoModel", **options: Any) -> PreTrainedModel:
    """A fresh model of a part's config.

    Args:
        config: of the part.
        auto_class: which head, in transformers' words ("AutoModel", "AutoModelForCausalLM").
        options: for the model's constructor, where it takes them (`add_pooling_layer=False`).
    """
    model_class = _exported(config.model_type).get(auto_class)
    if model_class is None:
        model_class = getattr(transformers, auto_class)._model_mapping[type(config)]  # from_config takes no options
    taken = inspect.signature(model_class.__init__).parameters
    return model_class._from_config(config, **{name: value for name, value in options.items() if name in taken})


def _exported(model_type: str) -> dict[str, type]:
    """What part_classes.py knows of a model type, by Auto class."""
    from .part_classes import CLASSES  # at the first use, since parts that have parts import this file

    return CLASSES.get(model_type, {})


class FreezesParts:
    """Mixin of a composite model some of whose parts do not learn: no gradients, and always in `eval()`."""

    def frozen_parts(self) -> list[nn.Module]:
        """Those parts; none unless the model says so."""
        return []

    def freeze(self) -> None:
        """To be called at the end of `__init__`."""
        for part in self.frozen_parts():
            part.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As for all models; weights that are read come with gradients, which frozen ones lose again."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze()
        return loaded

    def train(self, mode: bool = True) -> Any:
        """Training or evaluation for all but what is frozen."""
        super().train(mode)
        self.freeze()
        return self
