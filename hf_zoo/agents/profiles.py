"""Who an agent is: words and traits, written by hand, generated, or fitted to a data set."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Profile:
    """Who an agent is.

    Args:
        text: role and manner in words, for the head of a prompt.
        traits: numbers that a model may take beside them.
    """

    text: str = ""
    traits: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        traits = ", ".join(f"{name} {value:g}" for name, value in self.traits.items())
        return f"{self.text} ({traits})" if traits else self.text


def generated_profile(seed: str, generate: Callable[[str], str], traits: Mapping[str, float] | None = None) -> Profile:
    """A profile whose words a model writes.

    Args:
        seed: a few words to start from ("a careful accountant").
        generate: text for a prompt, for instance of a `pipeline("text-generation")`.
        traits: numbers, which are taken as they are.

    Raises:
        ValueError: the model wrote nothing.
    """
    text = generate(f"Describe in one paragraph the assistant that is {seed}: its role, its manner, its limits.")
    if not text.strip():
        raise ValueError(f"nothing was generated for the profile {seed!r}")
    return Profile(text.strip(), dict(traits or {}))


def fitted_profile(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> Profile:
    """The typical member of a population: means of columns of numbers, the most frequent value of the others.

    Args:
        rows: of a data set.
        columns: which of them describe a member.

    Raises:
        ValueError: no rows, or a column that they lack.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("the data set has no rows")
    words, traits = [], {}
    for column in columns:
        if column not in rows[0]:
            raise ValueError(f"the data set has no column {column!r}; it has {', '.join(rows[0])}")
        values = [row[column] for row in rows if row[column] is not None]
        if not values:
            continue
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            traits[column] = statistics.fmean(values)
        else:
            words.append(f"{column}: {Counter(map(str, values)).most_common(1)[0][0]}")
    return Profile("; ".join(words), traits)
