"""Caches: how a recurrent layer keeps its state in transformers' `Cache` objects.

One `DynamicCache` or `StaticCache` serves attention layers, which append keys and values, and recurrent layers, whose
state has a fixed size; `config.layer_types` says which is which.
"""

from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache

# The last inputs of a convolution or a token shift (B, E, K - 1), and what a recurrence remembers; None where a layer
# has no use for one of them
State = tuple[Tensor | None, Tensor | None]

# Kinds of layers in `config.layer_types` that keep a state; the others keep keys and values
RECURRENT_LAYERS = ("linear_attention", "conv")


class StateCache(DynamicCache):
    """The cache of a model whose layers are all recurrent: it counts the tokens it has seen.

    A state does not tell how many tokens made it, so transformers' cache refuses to say; but `generate` asks when it
    goes on from an earlier text, and peft when it has put virtual tokens before one.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        self.num_seen = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen, padding included."""
        return self.num_seen

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.num_seen = 0


class LayerOfCache:
    """A cache of several kinds of layers as the mask functions look at it, where one layer speaks for all.

    They look for a layer of the right kind themselves, but before transformers 5.23 may take one that has a state and
    no keys.
    """

    is_sliding, is_linear, is_dummy = [False], [False], [False]

    def __init__(self, cache: Cache, layer_idx: int) -> None:
        self.cache = cache
        self.layer_idx = layer_idx

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cache, name)

    def get_seq_length(self, _: int = 0) -> int | Tensor:
        """Tokens that the layer has seen."""
        return self.cache.get_seq_length(self.layer_idx)

    def get_query_offset(self, _: int = 0) -> int | Tensor:
        """Where the next token stands."""
        return self.cache.get_query_offset(self.layer_idx)

    def get_mask_sizes(self, query_length: int, _: int = 0) -> tuple[int, int]:
        """How many keys the layer will have, and the position of the first."""
        return self.cache.get_mask_sizes(query_length, self.layer_idx)


def new_cache(config: PreTrainedConfig) -> Cache:
    """An empty cache for the kinds of layers in `config.layer_types`."""
    is_recurrent = all(kind in RECURRENT_LAYERS for kind in config.layer_types)
    return StateCache(config) if is_recurrent else DynamicCache(config=config)


def read_state(cache: Cache | None, layer_idx: int, part: int = 0) -> State | None:
    """The state that earlier tokens left in a recurrent layer, None at the start of a text.

    Args:
        part: 0 for the token mixer, 1 for a channel mixer that remembers too; a config whose layers have both says
            `number_of_conv_states = 2`.
    """
    if cache is None or not cache.layers[layer_idx].has_previous_state[part]:
        return None
    layer = cache.layers[layer_idx]  # `cache.get_conv_state` is younger than the oldest transformers that works
    window = layer.conv_states[part]
    return window if window.numel() else None, layer.recurrent_states[part]


def write_state(cache: Cache | None, layer_idx: int, state: State, part: int = 0) -> None:
    """Replace the state of a recurrent layer, or of one part of it."""
    if cache is None:
        return
    window, memory = state
    layer = cache.layers[layer_idx]
    if layer.has_previous_state[part]:  # the cache itself would append, and then keep what is new
        if window is not None:
            layer.conv_states[part].copy_(window)
        if memory is not None:
            layer.recurrent_states[part].copy_(memory)
        return
    if window is None:  # the cache counts a layer as visited when it gets a window
        window = memory.new_empty(len(memory), 0, 1)
    cache.update_conv_state(window, layer_idx, state_idx=part, conv_kernel_size=window.shape[-1])
    if memory is not None:
        cache.update_recurrent_state(memory, layer_idx, state_idx=part)
