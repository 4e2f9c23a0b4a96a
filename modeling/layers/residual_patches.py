"""Image patches as tokens, as Gato embeds them: a residual block, a linear map, and where in the image a patch is.

Reed et al. 2022, https://arxiv.org/abs/2205.06175, sections 2.1 and 2.2 and appendix C:

    h = C_0 x,   h <- h + C_2 gelu(N_2(C_1 gelu(N_1(h)))),   y = W vec(h) + R[r] + S[s]

N are group norms. Row r and column s are bins of the interval that the patch covers: any of them in training, the
rounded mean of its ends in evaluation.

Shapes: B rows, P patches a row, D hidden size, Z side of a patch in pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualPatchEmbedding(nn.Module):
    """The pre-activation block and the map to D numbers."""

    def __init__(self, hidden_size: int, patch_size: int, num_channels: int, num_groups: int) -> None:
        super().__init__()
        self.root = nn.Conv2d(3, num_channels, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(num_groups, num_channels) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(num_channels, num_channels, 3, padding=1) for _ in range(2))
        self.proj = nn.Linear(num_channels * patch_size**2, hidden_size)

    def forward(self, patches: Tensor) -> Tensor:
        """patches (B, P, 3, Z, Z) -> (B, P, D)."""
        x = self.root(patches.flatten(0, 1).to(self.root.weight.dtype))
        h = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(F.gelu(norm(h)))
        return self.proj((x + h).flatten(1)).unflatten(0, patches.shape[:2])


class PatchIntervals(nn.Module):
    """A table of rows and one of columns of the image, each cut into as many bins."""

    def __init__(self, num_bins: int, hidden_size: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(num_bins, hidden_size)
        self.columns = nn.Embedding(num_bins, hidden_size)

    def forward(self, intervals: Tensor) -> Tensor:
        """intervals (B, P, 4), first and last bin of rows, then of columns -> (B, P, D)."""
        rows, columns = self.choose(intervals.unflatten(-1, (2, 2))).unbind(-1)
        return self.rows(rows) + self.columns(columns)

    def choose(self, ends: Tensor) -> Tensor:
        """ends (..., 2), the last one included -> one bin of each interval (...)."""
        first, last = ends.unbind(-1)
        if not self.training:
            return torch.round((first + last) / 2).long()
        return first + (torch.rand(first.shape, device=first.device) * (last - first + 1)).long()
