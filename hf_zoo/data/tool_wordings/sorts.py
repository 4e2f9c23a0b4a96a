"""What a task of `python-tools` asks with: values, and the words around them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NOUNS = (
    "amber anchor autumn basket bridge candle canyon castle cedar cloud copper coral desert dragon eagle ember engine "
    "fabric falcon feather forest garden glacier granite harbor hazel island ivory jacket jasmine jungle kettle "
    "ladder lantern lemon linen magnet maple marble meadow mirror mountain needle nutmeg ocean olive orchard paper "
    "pebble pepper pilot planet pocket prairie quartz rabbit raven ribbon river saddle sailor shadow silver "
    "spring stone sugar summer temple thunder timber tulip tunnel umbrella valley velvet violet walnut willow winter"
).split()

Draw = Callable[[np.random.Generator, dict[str, Any]], Any]


@dataclass(frozen=True)
class Sort:
    """What a parameter takes.

    Args:
        draw: a value, given random numbers and the call's arguments so far.
        accepts: sorts of results that may stand in its place.
        quoted: whether the task shows it in quotation marks.
    """

    draw: Draw
    accepts: tuple[str, ...] = ()
    quoted: bool = False


@dataclass(frozen=True)
class Wording:
    """How a task asks for a tool.

    Args:
        kind: of the task.
        returns: sort of the result.
        sorts: of the parameters, in the order in which they are drawn.
        phrases: to follow "please"; those that leave an optional parameter out ask for its default.
    """

    kind: str
    returns: str
    sorts: dict[str, Sort]
    phrases: tuple[str, ...]


def integer(low: int, high: int) -> Draw:
    """A whole number, both ends among them."""
    return lambda rng, _: int(rng.integers(low, high + 1))


def _number(rng: np.random.Generator, _: dict[str, Any]) -> float:
    return int(rng.integers(2, 500)) if rng.random() < 0.5 else round(float(rng.uniform(1, 100)), 2)


def _numbers(rng: np.random.Generator, _: dict[str, Any]) -> list[int]:
    numbers = rng.integers(1, 60, rng.integers(4, 8)).tolist()
    return [*numbers, numbers[0]]  # so that one of them is the most frequent


def _text(rng: np.random.Generator, _: dict[str, Any]) -> str:
    return " ".join(rng.choice(NOUNS, rng.integers(3, 7), replace=False))


def word_of(parameter: str) -> Draw:
    """A word of the text that another parameter takes."""
    return lambda rng, values: str(rng.choice(values[parameter].split()))


NUMBER = Sort(_number, ("number", "integer"))
INTEGER = Sort(integer(2, 900), ("integer",))
SMALL = Sort(integer(2, 9))
NUMBERS = Sort(_numbers, ("numbers",))
TEXT = Sort(_text, ("text",), quoted=True)
WORD = Sort(lambda rng, _: str(rng.choice(NOUNS)), quoted=True)
WORDS = Sort(lambda rng, _: rng.choice(NOUNS, rng.integers(2, 6), replace=False).tolist(), ("words",))
SYMBOL = Sort(lambda rng, _: str(rng.choice(list("&%#@*+=<>?!$~^|"))), quoted=True)
ORDER = Sort(lambda rng, _: str(rng.choice(["ascending", "descending"])))


def wordings_of(kind: str) -> Callable[..., Wording]:
    """Wordings of one kind of tasks, made of what a tool returns, of its parameters, and of phrases one by one."""
    return lambda returns, sorts, *phrases: Wording(kind, returns, sorts, phrases)
