"""The cache of the fixed pattern: it keeps one block and the summaries of those before it, and forgets the rest.

Of an earlier block of l tokens only its summary columns are ever read again, so l + c n / l keys are kept of n tokens.
Shapes: B batch, T tokens, H heads, K head size, M keys a query may see.
"""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class FixedPatternLayer(DynamicLayer):
    """Keys and values (B, H, l + summaries, K): first the present block, then the summaries of all blocks so far.

    Where a key goes follows from its position, which counts the real tokens of its row, so rows of different lengths
    stand side by side.

    Args:
        stride: l.
        num_columns: how many columns at the end of each block are kept, those of all heads.
    """

    def __init__(self, stride: int, num_columns: int) -> None:
        super().__init__()
        self.stride, self.num_columns = stride, num_columns
        self.num_seen = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, positions: Tensor, real: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Keep what will be read again; returns what was kept before, with the new tokens after it.

        Args:
            key_states, value_states: (B, H, T, K).
            positions: (B, T), where the new tokens stand.
            real: (B, T) with 1 on real tokens, None where all are.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            empty = [z.new_zeros(*z.shape[:2], self.stride, z.shape[-1]) for z in (key_states, value_states)]
            self.keys, self.values = empty
        self.num_seen += key_states.shape[2]
        everything = [torch.cat(pair, dim=2) for pair in ((self.keys, key_states), (self.values, value_states))]
        if not len(positions):
            return everything[0], everything[1]

        row = torch.arange(len(positions), device=positions.device)[:, None].expand_as(positions)
        real = torch.ones_like(positions, dtype=torch.bool) if real is None else real.bool()
        last = positions.masked_fill(~real, -1).amax(1, keepdim=True)
        in_block = real & (positions // self.stride == last // self.stride)
        in_summary = real & (positions % self.stride >= self.stride - self.num_columns)
        summaries = (int(last.max()) // self.stride + 1) * self.num_columns
        for name, new in (("keys", key_states), ("values", value_states)):
            kept, new = getattr(self, name).transpose(1, 2), new.transpose(1, 2)  # (B, S, H, K)
            if (missing := self.stride + summaries - kept.shape[1]) > 0:
                kept = torch.cat((kept, kept.new_zeros(len(kept), missing, *kept.shape[2:])), dim=1)
            for chosen, place in ((in_block, positions % self.stride), (in_summary, self._summary(positions))):
                kept = kept.index_put((row[chosen], place[chosen]), new[chosen])
            setattr(self, name, kept.transpose(1, 2))
        return everything[0], everything[1]

    def find(self, positions: Tensor, first_new: Tensor, num_kept: int, num_new: int) -> Tensor:
        """Where in what `update` returned the keys at positions (B, T, M) are; anywhere for those that are not there.

        Args:
            first_new: (B, 1, 1), position of the first of the new tokens.
            num_kept: how many places there were before them.
            num_new: how many new tokens.
        """
        before = torch.where(
            positions // self.stride == (first_new - 1) // self.stride,
            positions % self.stride,
            self._summary(positions).clamp(0, num_kept - 1),
        )
        return torch.where(positions < first_new, before, num_kept + (positions - first_new).clamp_max(num_new - 1))

    def _summary(self, positions: Tensor) -> Tensor:
        """The place of a token of a summary column."""
        block, column = positions // self.stride, positions % self.stride
        return self.stride + block * self.num_columns + column - (self.stride - self.num_columns)

    def get_seq_length(self) -> int:
        """Tokens seen, padding included, kept or not."""
        return self.num_seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that a mask over all tokens would have, and the first of them."""
        return self.num_seen + query_length, 0

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.num_seen = 0

    def crop(self, tokens_to_remove: int) -> None:
        """What was evicted cannot come back.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("the cache of a fixed pattern cannot be cropped: it has forgotten what was in it before")
