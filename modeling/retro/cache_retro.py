"""The cache of a decoder that retrieves: keys and values of the text, and of the neighbours each row sees now.

Shapes: B batch, D hidden size, H heads, S tokens of a chunk's neighbours, K head size, m tokens a chunk.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache


@dataclass
class RetrievalState:
    """What earlier tokens leave to later ones, a row each.

    Args:
        counts: (B,), chunks that are complete.
        mask: (B, S), true on real tokens of the neighbours of the last of them; none where a row has none.
        hidden: (B, m - 1, D), what the encoder of neighbours will see of the last tokens.
        ids: (B, m - 1), the last tokens themselves; None where they came as embeddings.
        keys, values: number of a layer -> (B, H, S, K) of those neighbours.
    """

    counts: Tensor
    mask: Tensor | None = None
    hidden: Tensor | None = None
    ids: Tensor | None = None
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> None:
        """Change every tensor."""
        for name in ("counts", "mask", "hidden", "ids"):
            if getattr(self, name) is not None:
                setattr(self, name, change(getattr(self, name)))
        for tensors in (self.keys, self.values):
            tensors.update({layer: change(x) for layer, x in tensors.items()})


class RetroCache(DynamicCache):
    """Keys and values of the text, and a `RetrievalState` once something was retrieved."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.state: RetrievalState | None = None

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.state = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows in the order of the beams that go on."""
        super().reorder_cache(beam_idx)
        self._change(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row that often."""
        super().batch_repeat_interleave(repeats)
        self._change(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Some of the rows."""
        super().batch_select_indices(indices)
        self._change(lambda x: x[indices])

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Take tokens back, which only a cache without neighbours can.

        Raises:
            ValueError: something was retrieved.
        """
        if self.state is not None:
            raise ValueError("what was retrieved cannot be taken back: no assisted decoding with neighbours")
        super().crop(*args, **kwargs)

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.state is not None:
            self.state.map(change)


def joined(past: Tensor | None, new: Tensor | None) -> Tensor | None:
    """Rows of the past, then the new ones, where there are any."""
    parts = [x for x in (past, new) if x is not None]
    return torch.cat(parts) if len(parts) == 2 else next(iter(parts), None)
