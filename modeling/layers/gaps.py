"""Padding between real tokens, as a prompt that was padded on the right leaves it when its text goes on.

A convolution and a token shift reach back a number of places, and would find the padding there.

Shapes: B batch, T tokens, D hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def across_gaps(mixer: Callable[..., tuple], x: Tensor, mask: Tensor | None, *arguments: Any) -> tuple:
    """`mixer(x, mask, *arguments)` -> y, state and whatever else, as if padding between real tokens stood after them.

    Args:
        mixer: a layer with a state.
        x: (B, T, D).
        mask: (B, T) with 1 on real tokens; None where all are.
        arguments: the rest; those of shape (B, T, ...) move with their tokens.
    """
    if mask is None or torch.compiler.is_compiling() or not _has_gaps(mask):
        return mixer(x, mask, *arguments)
    order = (mask == 0).long().argsort(dim=1, stable=True)
    moved = [_in_order(value, order) for value in (x, mask, *arguments)]
    back = order.argsort(dim=1)
    y, state, *more = mixer(*moved)
    return _in_order(y, back), state, *(_in_order(value, back) for value in more)


def _has_gaps(mask: Tensor) -> bool:
    """Whether real tokens begin more than once in a row of mask (B, T)."""
    begins = (mask[:, 1:] != 0) & (mask[:, :-1] == 0)
    return bool((begins.sum(1) + (mask[:, 0] != 0) > 1).any())


def _in_order(value: Any, order: Tensor) -> Any:
    """A tensor (B, T, ...) with its tokens in another order (B, T); anything else as it is."""
    if not isinstance(value, Tensor) or value.shape[:2] != order.shape:
        return value
    return value.gather(1, order.view(*order.shape, *[1] * (value.ndim - 2)).expand_as(value))
