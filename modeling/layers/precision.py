"""Arithmetic that autocast must leave alone."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context in which products of tensors like x keep their precision; it costs nothing where autocast is off."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):  # where shapes alone are worked out there is none
        return nullcontext()
    return torch.autocast(device, enabled=False)
