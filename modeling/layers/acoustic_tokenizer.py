"""Discrete labels of patches of sound: by a random projection, and by a codebook that is learnt.

Chen et al. 2022, "BEATs", https://arxiv.org/abs/2212.09058, section 3.2; the first after Chiu et al. 2022,
https://arxiv.org/abs/2202.01855. With l(x) = x / |x|:

    random    z = argmax_i l(v_i) . l(W x),   W and v drawn once
    learnt    z = argmax_i l(v_i) . l(e),     loss = |sg l(e) - l(v_z)|^2 + |l(e) - sg l(v_z)|^2

which is the nearest vector of length one. Gradients pass the choice as if it were none.

Shapes: B rows, T patches, P numbers a patch, C size of a code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init


def draw_labels(*shapes: tuple[int, int]) -> list[Tensor]:
    """W and v of these shapes from N(0, 1), the same at every call, and so in every model of a size."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, device="cpu") for shape in shapes]


class RandomProjectionTokenizer(nn.Module):
    """Labels that nothing learns: patches (B, T, P) -> (B, T), the same ones wherever it was made.

    Args:
        patch_size: P.
        codebook_size: how many labels there are.
        codebook_dim: C.
    """

    def __init__(self, patch_size: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        device = torch.empty(0).device
        projection, codebook = draw_labels((patch_size, codebook_dim), (codebook_size, codebook_dim))
        self.register_buffer("projection", projection.to(device))
        self.register_buffer("codebook", codebook.to(device))

    @torch.no_grad()
    def initialise(self) -> None:
        """The buffers that a new model has."""
        for buffer, drawn in zip(
            (self.projection, self.codebook), draw_labels(self.projection.shape, self.codebook.shape), strict=True
        ):
            init.copy_(buffer, drawn)

    @torch.no_grad()
    def forward(self, patches: Tensor) -> Tensor:
        """patches (B, T, P), normalised -> labels (B, T)."""
        x = F.layer_norm(patches.float(), patches.shape[-1:]) @ self.projection.float()
        return (x @ F.normalize(self.codebook.float(), dim=-1).T).argmax(-1)


class NormalisedCodebook(nn.Module):
    """The nearest code of each vector, all of length one.

    Args:
        codebook_size: how many codes there are.
        codebook_dim: C.
    """

    def __init__(self, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(codebook_size, codebook_dim))

    @torch.no_grad()
    def initialise(self) -> None:
        """Directions that are spread evenly."""
        init.normal_(self.weight)

    @torch.no_grad()
    def spread(self, x: Tensor, rounds: int = 10) -> None:
        """Put the codes where vectors x (N, C) are, by k-means; a code far from all is never chosen nor learnt.

        Raises:
            ValueError: there are fewer vectors than codes.
        """
        if len(x) < len(self.weight):
            raise ValueError(f"{len(self.weight)} codes cannot be spread over {len(x)} vectors")
        x = F.normalize(x.float(), dim=-1)
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[: len(self.weight)]
        codes = x[chosen.to(x.device)]
        for _ in range(rounds):
            sums = torch.zeros_like(codes).index_add_(0, (x @ codes.T).argmax(-1), x)
            codes = torch.where(sums.any(-1, keepdim=True), F.normalize(sums, dim=-1), codes)
        self.weight.copy_(codes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, C) -> its codes (B, T, C), their numbers (B, T), and how far off they are (B, T)."""
        x, codes = F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1)
        labels = (x @ codes.T).argmax(-1)
        chosen = F.embedding(labels, codes)
        errors = (x.detach() - chosen).square().sum(-1) + (x - chosen.detach()).square().sum(-1)
        return x + (chosen - x).detach(), labels, errors
