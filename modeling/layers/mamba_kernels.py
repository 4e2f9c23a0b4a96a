"""The public CUDA kernels of Mamba, if they are installed: `mamba_ssm` (the scan) and `causal_conv1d`."""

from collections.abc import Callable
from functools import cache
from importlib import import_module

from torch import Tensor


def kernel_for(x: Tensor, package: str, name: str) -> Callable | None:
    """The function `name` of `package` if x is on a CUDA device and the package is there; nothing is imported else."""
    return _find(package, name) if x.is_cuda else None


@cache
def _find(package: str, name: str) -> Callable | None:
    try:
        return getattr(import_module(package), name, None)
    except (ImportError, OSError):  # an extension built for another torch raises either
        return None
