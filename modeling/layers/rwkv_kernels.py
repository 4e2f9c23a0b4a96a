"""The public Triton kernels of RWKV-6 and 7, if flash-linear-attention (`fla`) is installed."""

from collections.abc import Callable
from functools import cache
from importlib import import_module

from torch import Tensor


def kernel_for(x: Tensor, module: str, name: str) -> Callable | None:
    """The function `name` of `fla.ops.<module>` if x is on a GPU and fla is there; else nothing is imported.

    One token is left to plain operations, which start faster.
    """
    return _find(module, name) if x.is_cuda and x.shape[1] > 1 else None


@cache
def _find(module: str, name: str) -> Callable | None:
    try:
        return getattr(import_module(f"fla.ops.{module}"), name)
    except (ImportError, AttributeError, OSError, RuntimeError, ValueError):
        return None  # not installed, or built for another torch
