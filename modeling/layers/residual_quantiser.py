"""Residual vector quantisation: each code book names what the ones before left over.

    r_1 = x,  c_k = argmin_c ||r_k - E_k[c]||,  r_k+1 = r_k - E_k[c_k],  x ~ sum_k E_k[c_k]

Barault et al. 2024, https://arxiv.org/abs/2412.08821, section 2.3.4; Zeghidour et al. 2021,
https://arxiv.org/abs/2107.03312, section III.C.

Shapes: N vectors, S their size, C code books, V codes of each.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

_BLOCK = 4096  # vectors whose distances are computed together


class ResidualQuantiser(nn.Module):
    """The code books are fitted to vectors by k-means, one after the other, and are no parameters.

    Args:
        num_codebooks, codebook_size: C and V.
        size: S.
    """

    def __init__(self, num_codebooks: int, codebook_size: int, size: int) -> None:
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(num_codebooks, codebook_size, size))

    def initialise(self) -> None:
        """Code books of zeros, which say that `fit` is still to come."""
        init.zeros_(self.codebooks)

    @property
    def is_fitted(self) -> bool:
        """Whether there is anything in the code books."""
        return bool(self.codebooks.any())

    @torch.no_grad()
    def fit(self, vectors: Tensor, num_rounds: int = 10, seed: int = 0) -> None:
        """Make the code books from vectors (N, S).

        Raises:
            ValueError: there are fewer vectors than codes.
        """
        count, codes = len(vectors), self.codebooks.shape[1]
        if count < codes:
            raise ValueError(f"codebook_size={codes} needs at least as many vectors to be fitted to, got {count}")
        generator = torch.Generator().manual_seed(seed)
        rest = vectors.to(self.codebooks).clone()
        for book in self.codebooks:
            book.copy_(rest[torch.randperm(count, generator=generator)[:codes].to(rest.device)])
            for _ in range(num_rounds):
                nearest = _nearest(rest, book)
                sums = torch.zeros_like(book).index_add_(0, nearest, rest)
                counts = torch.bincount(nearest, minlength=codes)[:, None]
                spare = rest[torch.randint(count, (codes,), generator=generator).to(rest.device)]
                book.copy_(torch.where(counts > 0, sums / counts.clamp_min(1), spare))  # no code stays unused
            rest -= book[_nearest(rest, book)]

    def encode(self, x: Tensor) -> Tensor:
        """Vectors (..., S) -> codes (..., C)."""
        rest, codes = x.flatten(0, -2), []
        for book in self.codebooks.to(x.dtype):
            codes.append(_nearest(rest, book))
            rest = rest - book[codes[-1]]
        return torch.stack(codes, -1).unflatten(0, x.shape[:-1])

    def centroids(self, codes: Tensor) -> Tensor:
        """Codes (..., k) of the first k code books -> what each of them stands for (..., k, S)."""
        books = torch.arange(codes.shape[-1], device=codes.device)
        return self.codebooks[books, codes]

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (..., k) of the first k code books -> vectors (..., S)."""
        return self.centroids(codes).sum(-2)


def _nearest(x: Tensor, book: Tensor) -> Tensor:
    """The code (N) nearest to each of the vectors (N, S)."""
    return torch.cat([(book.square().sum(-1) - 2 * part @ book.T).argmin(-1) for part in x.split(_BLOCK)])
