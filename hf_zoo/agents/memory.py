"""What an agent remembers: the last steps of this run, and episodes of earlier ones."""

import json
import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from ..files import write_json
from .policy import Step

_DAY = 86_400.0


@dataclass(frozen=True)
class Episode:
    """What happened in a run, for later ones.

    Args:
        text: in words.
        outcome: how the run ended ("finished", "max_steps", ...).
        importance: 0 to 1.
        time: when, in seconds since 1970.
    """

    text: str
    outcome: str = ""
    importance: float = 0.5
    time: float = field(default_factory=time.time)


class EpisodicStore(Protocol):
    """A store of episodes; that of a model may go by its own vectors."""

    def recall(self, query: str, k: int = 4) -> list[Episode]:
        """The k episodes that fit a query best, best first."""
        ...

    def write(self, episode: Episode) -> None:
        """Keep an episode."""
        ...


def window(steps: Sequence[Step], most: int) -> tuple[Step, ...]:
    """The last steps, which a context has room for.

    Args:
        steps: of the run.
        most: that are shown.
    """
    return tuple(steps[-most:])


class WordStore:
    """Episodes found by the words they share with a query, by how recent and by how important they are.

    The score is a cos(query, episode) + b exp(-age / tau) + c importance, with the cosine of word counts. When the
    store is full, the episode with the lowest b exp(-age / tau) + c importance makes room.

    Args:
        path: of a JSON file that keeps them between runs; None for this process alone.
        capacity: episodes that are kept.
        weights: a, b and c.
        tau: in days.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        capacity: int = 4096,
        weights: tuple[float, float, float] = (1.0, 0.5, 0.5),
        tau: float = 7.0,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.capacity, self.weights, self.tau = capacity, weights, tau
        self.episodes: list[Episode] = []
        if self.path is not None and self.path.exists():
            self.episodes = [Episode(**row) for row in json.loads(self.path.read_text(encoding="utf-8"))]

    def recall(self, query: str, k: int = 4) -> list[Episode]:
        """The k best of those that share a word with the query, best first."""
        words, now = _count(query), time.time()
        scored = []
        for number, episode in enumerate(self.episodes):
            if alike := _cosine(words, _count(episode.text)):
                scored.append((self.weights[0] * alike + self._lasting(episode, now), number, episode))
        return [episode for _, _, episode in sorted(scored, reverse=True)[:k]]

    def write(self, episode: Episode) -> None:
        """Keep an episode, at the cost of the least worth keeping if the store is full."""
        self.episodes.append(episode)
        if len(self.episodes) > self.capacity:
            now = time.time()
            self.episodes.remove(min(self.episodes, key=lambda one: self._lasting(one, now)))
        if self.path is not None:
            write_json(self.path, [asdict(one) for one in self.episodes])

    def _lasting(self, episode: Episode, now: float) -> float:
        age = max(0.0, now - episode.time)
        return self.weights[1] * math.exp(-age / (self.tau * _DAY)) + self.weights[2] * episode.importance


def _count(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


def _cosine(one: Counter[str], other: Counter[str]) -> float:
    dot = sum(count * other[word] for word, count in one.items())
    norm = math.sqrt(sum(c * c for c in one.values()) * sum(c * c for c in other.values()))
    return dot / norm if norm else 0.0
