"""What every configuration of the zoo shares: checked sizes, upstream folders, code that is saved with it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


class _RaisesValueError(type):
    """Turns the errors of `@strict`, which are of no standard kind, into a ValueError of one line."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except StrictDataclassError as error:
            raise ValueError(f"{cls.__name__}: {error.__cause__ or error}") from None


@strict
class ZooConfig(PreTrainedConfig, metaclass=_RaisesValueError):
    """Base of all configurations.

    Fields are annotated and checked on construction and on assignment; `validate_*` methods check how they fit
    together, before any weight is made.

    The two hooks are filled in by the installed package and stay empty in code that was exported to a checkpoint:
    `save_hooks` are open while a config is saved and write the model's code beside it; `read_hooks` translate the
    `config.json` of another architecture (a Llama folder, say).
    """

    save_hooks: ClassVar[list[Callable[["ZooConfig", str], AbstractContextManager]]] = []
    read_hooks: ClassVar[list[Callable[[type["ZooConfig"], dict[str, Any]], dict[str, Any]]]] = []

    may_be_zero: ClassVar[tuple[str, ...]] = ()  # counts of what a model can do without

    def save_pretrained(self, save_directory: str, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write `config.json`, and beside it the code that a machine without the package needs to load it."""
        repo_id = kwargs.pop("repo_id", None) if push_to_hub else None
        with ExitStack() as stack:
            for hook in self.save_hooks:
                stack.enter_context(hook(self, save_directory))
            super().save_pretrained(save_directory, **kwargs)
        if push_to_hub:
            # transformers uploads what has changed since its own saving began: the code would be left behind.
            self.push_to_hub(repo_id or Path(save_directory).name, **kwargs)

    def validate_layer_type(self) -> None:
        """As transformers does; but before 5.23 it renames layers of code that is not its own, "conv" among them."""
        kinds = getattr(self, "layer_types", None)
        super().validate_layer_type()
        if kinds is not None and self.layer_types != kinds:
            self.layer_types = kinds

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "ZooConfig":
        """Build from a `config.json`, also from one of an architecture whose weights can be read.

        Raises:
            ValueError: the dictionary belongs to a model type that cannot be read as this one.
        """
        for hook in cls.read_hooks:
            config_dict = hook(cls, config_dict)
        return super().from_dict(config_dict, **kwargs)

    def validate_sizes(self) -> None:
        """Every size and count is at least one, or zero where it may be: found here, not as an error in a layer."""
        for field in fields(self):
            value = getattr(self, field.name, None)
            is_size = field.name.endswith(("_size", "_layers")) or field.name.startswith("num_")
            least = 0 if field.name in self.may_be_zero else 1
            if is_size and isinstance(value, int) and value < least:
                raise ValueError(f"{field.name} must be at least {least}, got {value}")
            is_rate = field.name.endswith("dropout")
            if is_rate and value is not None and not 0.0 <= value < 1.0:
                raise ValueError(f"{field.name} must be at least 0 and below 1, got {value}")

    def require_multiple(self, field: str, of: str) -> None:
        """Raise unless the value of one field is a whole multiple of that of another."""
        value, unit = getattr(self, field), getattr(self, of)
        if value % unit:
            raise ValueError(f"{field} must be a multiple of {of}: {value} is not a multiple of {unit}")

    def require_known_rope_type(self) -> None:
        """Raise unless `rope_parameters` names a scaling of rotary positions that transformers knows."""
        rope_type = (self.rope_parameters or {}).get("rope_type", "default")
        if rope_type != "default" and rope_type not in ROPE_INIT_FUNCTIONS:
            known = ", ".join(sorted(ROPE_INIT_FUNCTIONS))
            raise ValueError(f"rope_parameters: rope_type {rope_type!r} is not one of default, {known}")
