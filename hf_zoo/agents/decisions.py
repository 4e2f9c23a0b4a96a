"""What an agent can decide: to call a tool, to think, to ask, to finish. Decisions are data and run nothing."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ToolCall:
    """Call a tool.

    Args:
        name: of the tool.
        arguments: by parameter. `{"$result": n}` in the place of a value stands for the result of the n-th call of
            the run that succeeded, counted from 0.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Think:
    """Write a thought down; nothing is done."""

    text: str


@dataclass(frozen=True)
class Ask:
    """Ask the user, and go on with what is answered."""

    text: str


@dataclass(frozen=True)
class Finish:
    """End the run with an answer."""

    text: str


Decision = ToolCall | Think | Ask | Finish
KINDS: dict[str, type[Decision]] = {"call": ToolCall, "think": Think, "ask": Ask, "finish": Finish}


def to_json(decision: Decision) -> dict[str, Any]:
    """A decision as a JSON object, with its `kind`.

    Raises:
        TypeError: what is no decision.
    """
    for kind, decision_class in KINDS.items():
        if isinstance(decision, decision_class):
            return {"kind": kind, **asdict(decision)}
    raise TypeError(f"{decision!r} is no decision: ToolCall, Think, Ask or Finish")


def from_json(value: dict[str, Any]) -> Decision:
    """The decision that `to_json` wrote."""
    return KINDS[value["kind"]](**{name: content for name, content in value.items() if name != "kind"})
