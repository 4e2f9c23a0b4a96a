"""Long-term memory: what happened, found again by what it was about, how long ago it was and how much it mattered.

    score = a cos(query, key) + b exp(-(now - time) / tau) + c importance,   (a, b, c) = (1, 0.5, 0.5)

The best k are recalled. A full store gives up the memory with the least b exp(-(now - time) / tau) + c importance. It
is made of buffers, so it is saved, pushed and loaded with the weights.

Shapes: B batch, C capacity, E episodic_dim, S tokens of a summary, k recalled.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .text_tower import TextTower


class Recalled(NamedTuple):
    """What was recalled, best first.

    Args:
        tokens: (B, k, S), summaries.
        mask: (B, k, S), 1 on their tokens; a memory that does not exist has none.
        scores: (B, k).
        outcomes: (B, k), how well it went, 0 where nobody said.
        numbers: (B, k), places in the store.
    """

    tokens: Tensor
    mask: Tensor
    scores: Tensor
    outcomes: Tensor
    numbers: Tensor


class EpisodicMemory(nn.Module):
    """The store, and the tower that makes its keys and the vectors that a model attends to.

    Args:
        hidden_size: D, of token embeddings.
        size: E.
        capacity: C.
        num_tokens: S, what is kept of a summary.
        tau: time in which recency falls to 1/e.
    """

    weights = (1.0, 0.5, 0.5)  # of likeness, recency, importance

    def __init__(self, hidden_size: int, size: int, capacity: int, num_tokens: int, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.tower = TextTower(hidden_size, size)
        self.register_buffer("keys", torch.zeros(capacity, size))
        self.register_buffer("tokens", torch.full((capacity, num_tokens), -1))
        self.register_buffer("times", torch.full((capacity,), -1))  # -1 where nothing is kept
        self.register_buffer("importance", torch.zeros(capacity))
        self.register_buffer("outcomes", torch.zeros(capacity))
        self.register_buffer("now", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def initialise(self) -> None:
        """Nothing has happened."""
        for buffer in (self.keys, self.importance, self.outcomes, self.now):
            init.zeros_(buffer)
        init.constant_(self.tokens, -1)
        init.constant_(self.times, -1)

    def __len__(self) -> int:
        """How many memories there are."""
        return int((self.times >= 0).sum())

    @torch.no_grad()
    def write(
        self,
        embeddings: Tensor,
        tokens: Tensor,
        importance: float = 0.0,
        outcome: float = 0.0,
        time: int | None = None,
    ) -> int:
        """Keep one memory; the clock goes on by one, or to the time that is given. Returns its place.

        Args:
            embeddings: (T, D) of its tokens; all of them make the key.
            tokens: (T), of which the first S are kept.
            importance, outcome: from 0 to 1, and any number.
        """
        self.now.fill_(int(self.now) + 1 if time is None else time)
        empty = (self.times < 0).nonzero()
        place = int(empty[0]) if len(empty) else int(self.lasting().argmin())
        self.keys[place] = self.tower(embeddings, torch.ones_like(tokens)).to(self.keys.dtype)
        kept = tokens[: self.tokens.shape[1]]
        self.tokens[place] = -1
        self.tokens[place, : len(kept)] = kept
        self.times[place] = self.now
        self.importance[place], self.outcomes[place] = importance, outcome
        return place

    def lasting(self) -> Tensor:
        """b exp(-dt / tau) + c importance of every place (C)."""
        _, b, c = self.weights
        age = (self.now - self.times).clamp_min(0).float()
        return b * (-age / self.tau).exp() + c * self.importance.float()

    @torch.no_grad()
    def scores(self, query: Tensor) -> Tensor:
        """query (B, E) -> (B, C), minus infinity where nothing is kept."""
        likeness = (
            nn.functional.normalize(query.float(), dim=-1) @ nn.functional.normalize(self.keys.float(), dim=-1).T
        )
        scores = self.weights[0] * likeness + self.lasting()
        return scores.masked_fill(self.times < 0, -torch.inf)

    @torch.no_grad()
    def recall(self, query: Tensor, k: int) -> Recalled:
        """The k best memories for a query (B, E)."""
        scores, numbers = self.scores(query).topk(min(k, len(self.times)), dim=-1)
        tokens = self.tokens[numbers]
        return Recalled(tokens.clamp_min(0), (tokens >= 0).long(), scores, self.outcomes[numbers], numbers)

    @torch.no_grad()
    def forget(self) -> None:
        """Empty the store; the clock starts anew."""
        for buffer in (self.keys, self.importance, self.outcomes, self.now):
            buffer.zero_()
        self.tokens.fill_(-1)
        self.times.fill_(-1)
