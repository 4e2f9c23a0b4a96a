"""Caches: how a recurrent layer keeps its state in transformers' `Cache` objects.

One `DynamicCache` or `StaticCache` serves attention layers, which append keys and values, and recurrent layers, whose
state has a fixed size; `config.layer_types` says which is which.
"""

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache

State = tuple[Tensor, Tensor]  # the last inputs of a convolution (B, E, K - 1), and what the recurrence remembers


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


def new_cache(config: PreTrainedConfig) -> Cache:
    """An empty cache for the kinds of layers in `config.layer_types`."""
    is_recurrent = all(kind == "linear_attention" for kind in config.layer_types)
    return StateCache(config) if is_recurrent else DynamicCache(config=config)


def read_state(cache: Cache | None, layer_idx: int) -> State | None:
    """The state that earlier tokens left in a recurrent layer, None at the start of a text."""
    if cache is None or not cache.has_previous_state(layer_idx):
        return None
    return cache.get_conv_state(layer_idx), cache.get_recurrent_state(layer_idx)


def write_state(cache: Cache | None, layer_idx: int, state: State) -> None:
    """Replace the state of a recurrent layer."""
    if cache is not None:
        convolution, recurrent = state
        # The cache appends and keeps the last `conv_kernel_size` columns: all of them new, it replaces.
        cache.update_conv_state(convolution, layer_idx, conv_kernel_size=convolution.shape[-1])
        cache.update_recurrent_state(recurrent, layer_idx)
