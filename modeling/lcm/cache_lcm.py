"""What earlier tokens leave to later ones beside their keys and values: a layer of the cache after those of attention.

As a layer it is reordered, repeated and reset with the others, whatever kind of cache `generate` brings.

Shapes: B rows, S tokens so far, D hidden size, H heads, Z concepts of all sentences, K head size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class ConceptCacheLayer(CacheLayerMixin):
    """Hidden states of the tokens, and the concepts that were made of them when a sentence last ended.

    Attributes:
        sentences: (B, S), number of each token's sentence, -1 for padding; None before the first token.
        ended: (B,), sentences that are over.
        mentions: (B, S), number of the entity that a token mentions, -1 for none; None where nobody said.
        is_real: (B, N), true for sentences that have tokens.
        hidden: number of a layer -> (B, S, D).
        concept_keys, concept_values: number of a layer -> (B, H, Z, K).
    """

    is_sliding = False
    is_compileable = True  # or a static cache beside it would be taken for one that grows
    supports_early_init = False

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.sentences, self.ended, self.mentions, self.is_real = None, None, None, None
        self.hidden: dict[int, Tensor] = {}
        self.concept_keys: dict[int, Tensor] = {}
        self.concept_values: dict[int, Tensor] = {}

    def extend(self, layer: int, x: Tensor) -> Tensor:
        """Hidden states (B, T, D) of new tokens at a layer -> those of all tokens (B, S, D)."""
        past = self.hidden.get(layer)
        self.hidden[layer] = x if past is None else torch.cat((past, x), dim=1)
        return self.hidden[layer]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows in the order of the beams that go on."""
        self._change(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row that often."""
        self._change(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Some of the rows."""
        self._change(lambda x: x[indices])

    def crop(self, *args: Any) -> None:
        """Take tokens back.

        Raises:
            ValueError: always.
        """
        raise ValueError("concepts of a sentence that is over cannot be taken back: no assisted decoding")

    def offload(self) -> None:
        """Concepts stay where they are: they are small beside keys and values."""

    def prefetch(self) -> None:
        """See `offload`."""

    def lazy_initialization(self, *args: Any) -> None:
        """Nothing to do: the layer has no keys and values of tokens."""

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """No layer of attention writes here.

        Raises:
            ValueError: one does.
        """
        raise ValueError("this layer of the cache holds concepts, not keys and values of tokens")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """As of a layer without keys."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Tokens seen."""
        return 0 if self.sentences is None else self.sentences.shape[1]

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1

    def _change(self, change: Callable[[Tensor], Tensor]) -> None:
        for name in ("sentences", "ended", "mentions", "is_real"):
            if getattr(self, name) is not None:
                setattr(self, name, change(getattr(self, name)))
        for tensors in (self.hidden, self.concept_keys, self.concept_values):
            tensors.update({layer: change(x) for layer, x in tensors.items()})


def concepts_in(cache: Cache | None) -> ConceptCacheLayer | None:
    """The layer of concepts in a cache, None where it has none."""
    last = cache.layers[-1] if cache is not None and cache.layers else None
    return last if isinstance(last, ConceptCacheLayer) else None
