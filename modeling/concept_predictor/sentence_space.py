"""The space of sentence vectors: its centre, its spread, and where a text ends in it.

    z = (x - median) / (IQR / 1.349),   IQR the distance from the lower to the upper quartile, for each number

Barault et al. 2024, https://arxiv.org/abs/2412.08821, section 2.4; IQR / 1.349 is the standard deviation of a normal
distribution, and outliers do not move it.

Shapes: N vectors, S their size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

_LEAST_SPREAD = 1e-6  # below it a number says nothing, and is left as wide as it is


class SentenceSpace(nn.Module):
    """Buffers that are saved with the model; until `fit` vectors are taken as they are."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))
        self.register_buffer("end", torch.zeros(size))

    def initialise(self) -> None:
        """The space before it is fitted."""
        init.zeros_(self.centre)
        init.ones_(self.spread)
        init.zeros_(self.end)

    @torch.no_grad()
    def fit(self, vectors: Tensor) -> None:
        """Take centre and spread from vectors (N, S) of a corpus.

        Raises:
            ValueError: they are of another size, or fewer than two.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.centre) or len(vectors) < 2:
            raise ValueError(f"vectors must be (2 or more, {len(self.centre)}), got {tuple(vectors.shape)}")
        low, middle, high = vectors.double().quantile(vectors.new_tensor([0.25, 0.5, 0.75]).double(), dim=0)
        spread = (high - low) / 1.349
        self.centre.copy_(middle)
        self.spread.copy_(torch.where(spread < _LEAST_SPREAD, 1.0, spread))

    @torch.no_grad()
    def set_end(self, vector: Tensor) -> None:
        """The vector (S) of the sentence that ends every text; a prediction like it ends generation."""
        self.end.copy_(vector)

    def normalise(self, x: Tensor) -> Tensor:
        """x (..., S) of the encoder -> z (..., S)."""
        return (x - self.centre.to(x)) / self.spread.to(x)

    def denormalise(self, z: Tensor) -> Tensor:
        """z (..., S) -> x (..., S) of the encoder."""
        return z * self.spread.to(z) + self.centre.to(z)

    def is_end(self, x: Tensor, similarity: float) -> Tensor:
        """x (..., S) -> (...), whether its cosine to the end of a text is at least that; never before `set_end`."""
        return F.cosine_similarity(x, self.end.to(x), dim=-1) >= similarity
