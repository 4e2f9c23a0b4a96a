"""A token for every column of a table: numbers, linear or piecewise linear, and categories.

    linear      T_j = b_j + x_j W_j                                     Gorishniy et al. 2021,
    category    T_j = b_j + E_j[x_j]                                    https://arxiv.org/abs/2106.11959, section 3.3
    piecewise   T_j = b_j + Σ_t e_t(x_j) W_jt                           Gorishniy et al. 2022,
                e_t(x) = (x - a_{t-1}) / (a_t - a_{t-1})                https://arxiv.org/abs/2203.05556, section 3.2
                clamped to [0, 1], but for the first bin below and the last above
    identified  T_j = [c_j, E_j[x_j]], c_j the same for all categories  Huang et al. 2020,
                of the column                                           https://arxiv.org/abs/2012.06678, section 2

A missing number is NaN and has a vector M_j in the place of x_j W_j; category 0 is "missing or never seen".

Shapes: B rows, N numeric columns, C columns of categories, K bins, D hidden size.
"""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init


class NumberEmbedding(nn.Module):
    """T_j = b_j + x_j W_j, or b_j + M_j where x_j is missing."""

    def __init__(self, num_columns: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_columns, hidden_size))
        self.bias = nn.Parameter(torch.empty(num_columns, hidden_size))
        self.missing = nn.Parameter(torch.empty(num_columns, hidden_size))

    @torch.no_grad()
    def initialise(self) -> None:
        """Uniform in ±1 / sqrt(D), as the authors' code has it."""
        bound = 1 / math.sqrt(self.bias.shape[-1])
        for parameter in (self.weight, self.bias, self.missing):
            init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N), NaN where a value is missing -> (B, N, D)."""
        is_missing = x.isnan()
        y = self.expand(x.masked_fill(is_missing, 0.0))
        return torch.where(is_missing[..., None], self.missing, y) + self.bias

    def expand(self, x: Tensor) -> Tensor:
        """Known x (B, N) -> (B, N, D)."""
        return x[..., None].to(self.weight.dtype) * self.weight


class PiecewiseLinearEmbedding(NumberEmbedding):
    """T_j = b_j + Σ_t e_t(x_j) W_jt over the bins between given edges.

    Args:
        bins: for each column its edges a_0 < ... < a_K; columns may have different numbers of them.
        hidden_size: D.
    """

    def __init__(self, bins: list[list[float]], hidden_size: int) -> None:
        super().__init__(len(bins), hidden_size)
        self.bins = bins
        num_bins = max((len(edges) - 1 for edges in bins), default=1)
        self.weight = nn.Parameter(torch.empty(len(bins), num_bins, hidden_size))
        for name in ("left", "width", "least", "most"):
            self.register_buffer(name, torch.empty(len(bins), num_bins, dtype=torch.float32), persistent=False)
        self._fill()

    @torch.no_grad()
    def initialise(self) -> None:
        """As a linear embedding, and the edges."""
        super().initialise()
        self._fill()

    def _fill(self) -> None:
        """Where each bin starts, how wide it is, and what it is clamped to; bins that a column lacks are 0."""
        left, width = torch.zeros(self.left.shape), torch.ones(self.left.shape)
        least, most = torch.zeros(self.left.shape), torch.zeros(self.left.shape)
        for column, edges in enumerate(self.bins):
            edges, last = torch.tensor(edges, dtype=torch.float64), len(edges) - 2
            left[column, : last + 1], width[column, : last + 1] = edges[:-1], edges.diff()
            most[column, : last + 1] = 1.0
            least[column, 0], most[column, last] = -math.inf, math.inf
        for name, value in (("left", left), ("width", width), ("least", least), ("most", most)):
            init.copy_(getattr(self, name), value)

    def expand(self, x: Tensor) -> Tensor:
        """Known x (B, N) -> (B, N, D)."""
        return torch.einsum("bnk,nkd->bnd", self.encode(x).to(self.weight.dtype), self.weight)

    def encode(self, x: Tensor) -> Tensor:
        """How far into each bin x (B, N) is -> (B, N, K)."""
        return ((x[..., None] - self.left) / self.width).clamp(self.least, self.most)


class CategoryEmbedding(nn.Module):
    """T_j = b_j + E_j[x_j]; the tables of all columns are one.

    Args:
        sizes: categories of each column, category 0 ("missing or never seen") among them.
        hidden_size: D.
    """

    def __init__(self, sizes: list[int], hidden_size: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.weight = nn.Parameter(torch.empty(sum(sizes), hidden_size))
        self.bias = nn.Parameter(torch.empty(len(sizes), hidden_size))
        self.register_buffer("offsets", torch.empty(len(sizes), dtype=torch.long), persistent=False)
        self._fill()

    @torch.no_grad()
    def initialise(self) -> None:
        """Uniform in ±1 / sqrt(D), as the authors' code has it."""
        bound = 1 / math.sqrt(self.weight.shape[-1])
        for parameter in (self.weight, self.bias):
            init.uniform_(parameter, -bound, bound)
        self._fill()

    def _fill(self) -> None:
        """Where the table of each column starts."""
        init.copy_(self.offsets, torch.tensor([0, *self.sizes[:-1]]).cumsum(0))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, C) -> (B, C, D).

        Raises:
            ValueError: a column has no such category.
        """
        return self.look_up(ids) + self.bias

    def look_up(self, ids: Tensor) -> Tensor:
        """ids (B, C) -> their rows of the tables."""
        # Only on a CPU is looking at the values free of waiting; an accelerator checks in its own kernel.
        if ids.device.type == "cpu" and not torch.compiler.is_compiling():
            is_outside = (ids < 0) | (ids >= torch.tensor(self.sizes))
            if is_outside.any():
                row, column = is_outside.nonzero()[0].tolist()
                raise ValueError(
                    f"category {int(ids[row, column])} of column {column} is outside its table: "
                    f"category_sizes[{column}] is {self.sizes[column]}"
                )
        return nn.functional.embedding(ids + self.offsets, self.weight)


class IdentifiedCategoryEmbedding(CategoryEmbedding):
    """T_j = [c_j, E_j[x_j]]: the first numbers of a token say which column it is of.

    Args:
        sizes: categories of each column, category 0 ("missing or never seen") among them.
        hidden_size: D.
        identifier_size: how many of the D numbers.
    """

    def __init__(self, sizes: list[int], hidden_size: int, identifier_size: int) -> None:
        super().__init__(sizes, hidden_size - identifier_size)
        self.bias = nn.Parameter(torch.empty(len(sizes), identifier_size))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, C) -> (B, C, D)."""
        return torch.cat((self.bias.expand(len(ids), -1, -1), self.look_up(ids)), dim=-1)
