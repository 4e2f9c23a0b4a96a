"""What every index refuses before any work."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

    from .encoder import TextEncoder


def check_columns(passages: "Dataset", column: str, title_column: str | None = None) -> None:
    """Raise unless there are rows and they have the columns."""
    if not len(passages):
        raise ValueError("the dataset has no rows")
    for name in filter(None, (column, title_column)):
        if name not in passages.column_names:
            raise ValueError(f"the dataset has no column {name!r}; it has {', '.join(passages.column_names)}")


def check_encoder(index: str, made_by: dict[str, Any], encoder: "TextEncoder") -> None:
    """Raise unless an encoder is the one that made an index.

    Args:
        index: its name, for the message.
        made_by: the description of the encoder that made it.
        encoder: the one that is given.
    """
    given = encoder.description()
    for name, value in made_by.items():
        if name != "name" and given[name] != value:
            raise ValueError(
                f"{index} was built by the encoder {made_by['name']} with {name}={value!r}, not by {given['name']} "
                f"with {given[name]!r}; vectors of both must not be compared. Open it with its own encoder, or build "
                "it again"
            )
