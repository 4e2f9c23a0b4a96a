"""One vector for a short text, made of its words alone: what tools, queries and memories are compared by.

    v = N(W sum_s a_s N(e_s)),   a = softmax(w . N(e_s)),   N(x) = x / |x|

With W and w as they are drawn, the product of two such vectors counts the words that two texts share, also words that
training never showed; training says which words count.

Shapes: S tokens, D hidden size, E size of the vector.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def weights_of_words(scores: Tensor, mask: Tensor) -> Tensor:
    """softmax(scores (..., S)) over the tokens of mask; 0 where it has none."""
    mask = mask.bool()
    return scores.float().masked_fill(~mask, torch.finfo(torch.float32).min).softmax(-1) * mask


def weighted_words(x: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (..., S, D) with the weights softmax(scores (..., S)) over the tokens of mask."""
    return (weights_of_words(scores, mask).to(x.dtype)[..., None, :] @ x).squeeze(-2)


class TextTower(nn.Module):
    """Embeddings (..., S, D) -> (..., E), of length 1 where there is any token."""

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.word_weight = nn.Linear(hidden_size, 1, bias=False)
        self.word_proj = nn.Linear(hidden_size, size, bias=False)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """embeddings (..., S, D), mask (..., S) with 1 on real tokens -> (..., E)."""
        words = F.normalize(embeddings, dim=-1)
        return self.project(weighted_words(words, self.word_weight(words).squeeze(-1), mask))

    def project(self, words: Tensor) -> Tensor:
        """Words, or a mean of words (..., D) -> (..., E)."""
        return F.normalize(self.word_proj(words), dim=-1)
