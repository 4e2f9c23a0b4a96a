"""What a table of upstream architectures is made of."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ..errors import unknown_name
from ..registry import TASKS, Architecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.core_model_loading import WeightTransform

# In every config, and about the folder rather than the architecture
_NOT_COPIED = {"architectures", "transformers_version", "model_type", "auto_map"}


@dataclass(frozen=True)
class Upstream:
    """One model type of transformers that an architecture of the zoo can open and write.

    Args:
        model_type: transformers' name.
        weights: makes the list of renamings and conversions, from upstream's names inside the trunk and the heads to
            the zoo's; reversible. What upstream calls its trunk and its classifier is seen to by `prefixes`.
        renamed: zoo field -> upstream field; fields of the same name are copied without being listed.
        fixed: zoo field -> the value that this model type always has.
        derived: zoo field -> (upstream field or None, function of the upstream config), where a copy will not do.
        required: upstream field -> the one value that can be read.
        written: upstream field -> function of the zoo config, where a copy will not do on the way back.
        sized_weights: further renamings, which depend on the sizes in the zoo config.
        task_weights: task -> renamings of that head alone, which come before all others.
        counted: zoo field -> function of a zoo config and the names of a folder's weights, where a folder may lack
            what its config counts.
        extend: adds to a fresh upstream model what its files may hold and its class leaves out.
        copies: function of an upstream model -> names of weights that are written as copies of others.
        unused: parts of names of weights that some of upstream's heads have and never use: not read, written as zeros.
        other_meaning: tasks whose head upstream is another model's, or trains something else.
        class_names: task -> class of transformers, where no Auto class makes it.
        is_remote: whether its code is on the Hub rather than in transformers; it can be opened and not written.
    """

    model_type: str
    weights: Callable[[], list["WeightTransform"]]
    renamed: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    derived: dict[str, tuple[str | None, Callable[[Any], Any]]] = field(default_factory=dict)
    required: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    sized_weights: Callable[[Any], list["WeightTransform"]] | None = None
    task_weights: dict[str, Callable[[], list["WeightTransform"]]] = field(default_factory=dict)
    counted: dict[str, Callable[[Any, set[str]], int]] = field(default_factory=dict)
    extend: Callable[["PreTrainedModel"], None] | None = None
    copies: Callable[["PreTrainedModel"], dict[str, str]] | None = None
    unused: tuple[str, ...] = ()
    other_meaning: tuple[str, ...] = ()
    class_names: dict[str, str] = field(default_factory=dict)
    is_remote: bool = False

    def weights_of(self, config: "PreTrainedConfig", task: str) -> list["WeightTransform"]:
        """All renamings and conversions for a zoo config and the head of a task."""
        of_task = self.task_weights[task]() if task in self.task_weights else []
        return [*of_task, *self.weights(), *(self.sized_weights(config) if self.sized_weights else [])]

    def make(self, config: "PreTrainedConfig", task: str) -> "PreTrainedModel":
        """A fresh upstream model with the head of a task.

        Raises:
            ValueError: upstream has no such head.
        """
        import transformers

        if task in self.class_names:
            return getattr(transformers, self.class_names[task])(config)
        return getattr(transformers, TASKS[task][0]).from_config(config)

    def extended(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """An upstream model, with what its class leaves out."""
        if self.extend is not None:
            self.extend(model)
        return model

    @property
    def config_class(self) -> type["PreTrainedConfig"]:
        """Upstream's configuration; of code on the Hub one that takes any field."""
        from transformers import CONFIG_MAPPING, PreTrainedConfig

        return PreTrainedConfig if self.is_remote else CONFIG_MAPPING[self.model_type]

    def read_config(self, config_class: type, config_dict: dict[str, Any]) -> dict[str, Any]:
        """Fields of a zoo config from an upstream `config.json`.

        Raises:
            ValueError: the upstream model has an option that the architecture does not.
        """
        upstream = self.config_class.from_dict(config_dict)
        for name, value in self.required.items():
            if (found := getattr(upstream, name, value)) != value:
                raise ValueError(f"{self.model_type} with {name}={found!r} cannot be opened; only {name}={value!r}")
        values = upstream.to_dict()
        known = {f.name for f in fields(config_class)} - _NOT_COPIED
        result = {name: values[name] for name in known & set(values)}
        result |= {ours: values[theirs] for ours, theirs in self.renamed.items()}
        result |= {ours: derive(upstream) for ours, (_, derive) in self.derived.items()}
        return {**result, **self.fixed, "architectures": config_dict.get("architectures")}

    def write_config(self, config: "PreTrainedConfig") -> "PreTrainedConfig":
        """The upstream config that equals a zoo config.

        Raises:
            ValueError: the zoo model has an option that upstream does not; field and value are named.
        """
        if self.is_remote:
            raise ValueError(f"transformers has no {self.model_type} to write {config.model_type} as")
        config_class = self.config_class
        values = config.to_dict()
        known = {f.name for f in fields(config_class)} - _NOT_COPIED
        result = {name: values[name] for name in known & set(values)}
        result |= {theirs: values[ours] for ours, theirs in self.renamed.items()}
        result |= {theirs: values[ours] for ours, (theirs, _) in self.derived.items() if theirs is not None}
        result |= {theirs: compute(config) for theirs, compute in self.written.items()}
        upstream = config_class(**result)
        again = type(config)(**self.read_config(type(config), upstream.to_dict()))
        for f in fields(config):
            before, after = (_plain(getattr(one, f.name)) for one in (config, again))
            if f.name not in _NOT_COPIED and before != after:
                raise ValueError(
                    f"{f.name}={before!r} cannot be written as {self.model_type}, which has {f.name}={after!r}"
                )
        return upstream


def _plain(value: Any) -> Any:
    """A config of a part as a dictionary, without what is about the folder; anything else as it is."""
    if not hasattr(value, "to_dict"):
        return value
    about_folder = {*_NOT_COPIED - {"model_type"}, "_name_or_path", "dtype"}
    return {name: field for name, field in value.to_dict().items() if name not in about_folder}


def prefixes(trunk: str, classifier: str) -> list["WeightTransform"]:
    """Renamings of the trunk ("transformer", "bert") and of the classifier, whose names differ from head to head."""
    from transformers.core_model_loading import WeightRenaming

    pairs = ((trunk, "model"), (classifier, "score"))
    return [WeightRenaming(rf"^{theirs}\.", rf"^{ours}\.") for theirs, ours in pairs if theirs != ours]


def read_table(architecture: Architecture) -> dict[str, Upstream]:
    """The upstream model types of an architecture by name; empty for one that has no counterpart."""
    try:
        module = importlib.import_module(f"hf_zoo.upstream.{architecture.name}")
    except ModuleNotFoundError as error:
        if error.name != f"hf_zoo.upstream.{architecture.name}":
            raise
        return {}
    return {upstream.model_type: upstream for upstream in module.UPSTREAM}


def find_upstream(architecture: Architecture, model_type: str) -> Upstream:
    """The table's line for a model type.

    Raises:
        ValueError: the architecture cannot open or write it.
    """
    table = read_table(architecture)
    if model_type not in table:
        readable = f"{architecture.model_type} reads {', '.join(table) or 'no other model type'}."
        raise unknown_name(f"model type for {architecture.model_type}", model_type, table, readable)
    return table[model_type]
