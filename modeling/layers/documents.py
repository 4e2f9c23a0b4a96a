"""Rows of tokens taken apart into documents and put together again, for layers that want each to start at 0.

A document is what packing put into a row, or the real tokens of a row with padding.

Shapes: B batch, T tokens, M documents, L longest document.
"""

import torch
from torch import Tensor


class Documents:
    """Where each document of a batch stands.

    Args:
        mask: (B, T) with 1 on real tokens; None where all are.
        position_ids: (B, T), 0 on the first token of a document; None where each row is one.
        shape: (B, T), where neither is given.
    """

    def __init__(self, mask: Tensor | None, position_ids: Tensor | None, shape: tuple[int, int]) -> None:
        device = (mask if mask is not None else position_ids).device
        real = torch.ones(shape, dtype=torch.bool, device=device) if mask is None else mask.bool().expand(shape)
        starts = torch.zeros(shape, dtype=torch.bool, device=device)
        starts[:, 0] = True  # so that padding before the first real token belongs to nobody else's document
        if position_ids is not None:
            starts |= (position_ids == 0).expand(shape)
        self.row_document = starts.flatten().cumsum(0).view(shape) - 1  # (B, T)
        self.where = real.flatten().nonzero()[:, 0]  # real tokens in the flattened batch
        self.document = self.row_document.flatten()[self.where]
        count = int(self.row_document[-1, -1]) + 1
        self.lengths = torch.bincount(self.document, minlength=count)  # (M,)
        first = self.lengths.cumsum(0) - self.lengths
        self.place = torch.arange(len(self.where), device=device) - first[self.document]
        self.longest = max(1, int(self.lengths.max()))
        self.shape = shape

    def split(self, x: Tensor) -> Tensor:
        """x (B, T, ...) -> (M, L, ...), every document from 0 on, zeros after its end."""
        apart = x.new_zeros(len(self.lengths), self.longest, *x.shape[2:])
        return apart.index_put((self.document, self.place), x.flatten(0, 1)[self.where])

    def join(self, x: Tensor) -> Tensor:
        """x (M, L, ...) -> (B, T, ...), zeros on padding."""
        rows = x.new_zeros(self.shape[0] * self.shape[1], *x.shape[2:])
        return rows.index_put((self.where,), x[self.document, self.place]).view(*self.shape, *x.shape[2:])

    def mask(self) -> Tensor:
        """(M, L) with True on real tokens."""
        return torch.arange(self.longest, device=self.lengths.device) < self.lengths[:, None]

    def last(self) -> Tensor:
        """Which document each row ends with -> (B,)."""
        return self.row_document[:, -1]
