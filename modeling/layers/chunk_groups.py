"""Which chunk of its text a token comes after, whatever padding, packing or a cache do to the rows.

A text is cut into chunks of m tokens. A token at position p (from 0) has seen u = floor((p + 1) / m) whole chunks, and
belongs to the group of the last of them: positions u m - 1 ... u m + m - 2 are group u, the first being the token that
completes the chunk. Tokens before position m - 1 are in no group (Borgeaud et al. 2021, section 2.4).

Shapes: B batch, T tokens, N chunks that are completed by these tokens, G groups, m tokens a chunk.
"""

import torch
from torch import Tensor


class ChunkGroups:
    """The groups of a batch: first, where the rows go on from earlier tokens, one a row for the chunk that those
    completed last; then one for each chunk that is completed here, row by row.

    Args:
        position_ids: (B, T), of real tokens in their text; a text starts where they are 0.
        real: (B, T), true on real tokens; None where all are.
        chunk_size: m.
        has_past: whether rows go on from earlier tokens.

    Attributes:
        offset: (B, T), place of a token in its group.
        group: (B, T), number of the group, -1 for none.
        row, number: (N,), which row a new chunk is of, and which of the row's new chunks it is.
        counts: (B,), new chunks of each row.
        last: (B,), the group of each row's last chunk, -1 for none.
        num_groups: G.
    """

    def __init__(self, position_ids: Tensor, real: Tensor | None, chunk_size: int, has_past: bool) -> None:
        num_rows, self.chunk_size = len(position_ids), chunk_size
        self.is_padded = real is not None
        self.real = torch.ones_like(position_ids, dtype=torch.bool) if real is None else real
        self.offset = (position_ids + 1) % chunk_size
        rank = self.real.cumsum(1) - 1  # of each token among the real ones of its row
        closes = self.real & (self.offset == 0)
        if not has_past:  # positions that do not start at 0 do not make tokens that are not there
            closes = closes & (rank >= chunk_size - 1)
        self.row, where = closes.nonzero(as_tuple=True)
        self.end = rank[self.row, where]
        closed = closes.cumsum(1)
        self.number = closed[self.row, where] - 1
        self.counts = closed[:, -1]
        self.num_real = rank[:, -1] + 1

        first = num_rows if has_past else 0
        self.num_groups = first + len(self.row)
        before = torch.arange(num_rows, device=rank.device) if has_past else torch.full_like(self.counts, -1)
        newest = closes.flatten().cumsum(0).view_as(closed) - 1 + first
        group = torch.where(closed > 0, newest, before[:, None])
        self.last = group[:, -1]
        self.group = torch.where(self.real & (position_ids >= chunk_size - 1), group, -1)

    def hide(self, is_visible: Tensor) -> None:
        """Take tokens out of groups (G,) that are not visible."""
        if self.num_groups:
            self.group = torch.where(is_visible[self.group.clamp_min(0)], self.group, -1)

    def chunks(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """The tokens of each new chunk, and what the chunks of later tokens need of these.

        Args:
            x: (B, T, ...), one entry a token.
            before: (B, m - 1, ...), the last real tokens before these; None at the start.

        Returns:
            (N, m, ...), and `before` for the tokens after these.
        """
        if self.is_padded:  # real tokens first
            order = (~self.real).long().argsort(dim=1, stable=True)
            x = x.gather(1, order.view(*order.shape, *[1] * (x.ndim - 2)).expand_as(x))
        if before is None:
            before = x.new_zeros(len(x), self.chunk_size - 1, *x.shape[2:])
        x = torch.cat((before, x), dim=1)
        places = torch.arange(self.chunk_size, device=x.device)
        rows = torch.arange(len(x), device=x.device)
        if self.is_padded:
            kept = x[rows[:, None], self.num_real[:, None] + places[:-1]]
        else:
            kept = x[:, x.shape[1] - self.chunk_size + 1 :]
        return x[self.row[:, None], self.end[:, None] + places], kept

    def of_rows(self, x: Tensor) -> Tensor:
        """x (G, ...) -> that of each row's last chunk (B, ...), anything for a row without one."""
        if self.num_groups == len(self.last) and not len(self.row):
            return x
        return x[self.last.clamp_min(0)]

    def split(self, x: Tensor) -> Tensor:
        """x (B, T, ...) -> (G, m, ...), zeros at places of a group that have no token."""
        grouped = x.new_zeros(self.num_groups * self.chunk_size + 1, *x.shape[2:])
        grouped = grouped.index_copy(0, self._places(), x.flatten(0, 1))
        return grouped[:-1].unflatten(0, (self.num_groups, self.chunk_size))

    def join(self, x: Tensor) -> Tensor:
        """x (G, H, m, K) -> (B, T, H, K), zeros for tokens in no group."""
        x = x.transpose(1, 2).flatten(0, 1)
        x = torch.cat((x, x.new_zeros(1, *x.shape[1:])))
        return x[self._places()].unflatten(0, self.group.shape)

    def _places(self) -> Tensor:
        """Where each token (B T) stands in the flattened groups; those in no group share one after all others."""
        places = self.group * self.chunk_size + self.offset
        return torch.where(self.group < 0, self.num_groups * self.chunk_size, places).flatten()
