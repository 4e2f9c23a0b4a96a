"""Who the agent is: a text and a few numbers as vectors before the first token.

    p_i = W sum_s softmax_s(u_i . e_s / |e_s|) e_s + (F values)_i,   i = 1 ... P

The vectors that are set stay with the weights, so that a saved agent is who it was; they may be changed or removed at
any time.

Shapes: B batch, S tokens of the text, V numbers, P vectors, D hidden size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .text_tower import weighted_words


class Profile(nn.Module):
    """The encoder of profiles, and the one that is set.

    Args:
        hidden_size: D.
        num_vectors: P.
        num_values: V.
    """

    def __init__(self, hidden_size: int, num_vectors: int, num_values: int) -> None:
        super().__init__()
        self.probes = nn.Linear(hidden_size, num_vectors, bias=False)
        self.from_words = nn.Linear(hidden_size, hidden_size)
        self.from_values = nn.Linear(num_values, num_vectors * hidden_size)
        self.register_buffer("stored", torch.zeros(num_vectors, hidden_size))
        self.register_buffer("is_set", torch.zeros((), dtype=torch.bool))
        self._known: bool | None = None  # `is_set` without waiting for a device; None until it was looked at
        self.register_load_state_dict_post_hook(_forget)

    @torch.no_grad()
    def initialise(self) -> None:
        """None is set."""
        init.zeros_(self.stored)
        init.zeros_(self.is_set)

    def forward(self, embeddings: Tensor, mask: Tensor | None = None, values: Tensor | None = None) -> Tensor:
        """embeddings (B, S, D), mask (B, S) with 1 on real tokens, values (B, V) -> vectors (B, P, D)."""
        mask = torch.ones_like(embeddings[..., 0]) if mask is None else mask
        words = F.normalize(embeddings, dim=-1)
        scores = self.probes(words).mT  # (B, P, S)
        x = self.from_words(weighted_words(embeddings[:, None], scores, mask[:, None].expand_as(scores)))
        if values is not None:
            x = x + self.from_values(values.to(x.dtype)).view(x.shape)
        return x

    @torch.no_grad()
    def store(self, vectors: Tensor | None) -> None:
        """Set the vectors (P, D) of all that follows, or none."""
        self._known = vectors is not None
        self.is_set.fill_(self._known)
        if vectors is None:
            self.stored.zero_()
        else:
            self.stored.copy_(vectors)

    def current(self, rows: int) -> Tensor | None:
        """The vectors that are set (B, P, D); None without any."""
        if self._known is None:
            self._known = bool(self.is_set)
        return self.stored.expand(rows, -1, -1) if self._known else None


def _forget(module: Profile, keys: object) -> None:
    module._known = None
