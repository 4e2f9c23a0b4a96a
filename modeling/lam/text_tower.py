"""One vector for a short text, made of its words alone: what tools, queries and memories are compared by.

    v = W sum_s a_s e_s / |e_s|,   a = softmax(w . e_s / |e_s| + g rarity_s)

With W and w as they are drawn, the product of two such vectors counts the words that two texts share, also words that
training never showed; training says which words count. What it cannot say of a word that it never showed, its rarity
does: 0 for one that is in every text that training did show, 1 for one that is in none.

Shapes: S tokens, D hidden size, E size of the vector.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init


def weighted_words(x: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (..., S, D) with the weights softmax(scores (..., S)) over the tokens of mask; 0 where it has none."""
    mask = mask.bool()
    weights = scores.float().masked_fill(~mask, torch.finfo(torch.float32).min).softmax(-1)
    weights = (weights * mask).to(x.dtype)
    return (weights[..., None, :] @ x).squeeze(-2)


class WordRarity(nn.Module):
    """How rare each token is in the texts that training showed, counted as it goes and saved with the weights.

    rarity = -log(share + 1/64) / log(64), clamped to [0, 1],   share = texts with the token / texts
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(vocab_size, dtype=torch.long))
        self.register_buffer("texts", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def initialise(self) -> None:
        """Nothing was seen."""
        init.zeros_(self.counts)
        init.zeros_(self.texts)

    @torch.no_grad()
    def count(self, ids: Tensor, mask: Tensor) -> None:
        """Add the texts (..., S)."""
        ids, mask = ids.flatten(0, -2), mask.bool().flatten(0, -2)
        ordered = ids.masked_fill(~mask, -1).sort(-1).values
        is_first = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True) & (ordered >= 0)
        self.counts += torch.bincount(ordered[is_first], minlength=len(self.counts))[: len(self.counts)]
        self.texts += mask.any(-1).sum()

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) -> rarity (...)."""
        counts = self.counts[ids.clamp_max(len(self.counts) - 1)]
        share = counts.float() / self.texts.clamp_min(1)
        return (-(share + 1 / 64).log() / math.log(64)).clamp(0, 1)


class TextTower(nn.Module):
    """Embeddings (..., S, D) -> (..., E), of length 1 where there is any token."""

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.word_weight = nn.Linear(hidden_size, 1, bias=False)
        self.word_proj = nn.Linear(hidden_size, size, bias=False)

    def forward(self, embeddings: Tensor, mask: Tensor, bonus: Tensor | None = None) -> Tensor:
        """embeddings (..., S, D), mask (..., S) with 1 on real tokens, bonus (..., S) on scores -> (..., E)."""
        words = F.normalize(embeddings, dim=-1)
        scores = self.word_weight(words).squeeze(-1)
        return self.project(weighted_words(words, scores if bonus is None else scores + bonus, mask))

    def project(self, words: Tensor) -> Tensor:
        """A mean of words (..., D) -> (..., E)."""
        return F.normalize(self.word_proj(words), dim=-1)
