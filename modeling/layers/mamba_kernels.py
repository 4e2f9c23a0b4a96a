"""Public CUDA kernels, if they are there: `mamba_ssm` (the scan), `causal_conv1d`, and those of `fla`.

A package may be installed; of the first two, the `kernels` library also fetches a compiled form from the Hub.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType

from torch import Tensor

_HUB = {"mamba_ssm": "kernels-community/mamba-ssm", "causal_conv1d": "kernels-community/causal-conv1d"}


def kernel_for(x: Tensor, package: str, name: str) -> Callable | None:
    """The function `name` of module `package` if x is on a CUDA device and it is there; else nothing is imported."""
    return _find(package, name) if x.is_cuda else None


@cache
def _find(package: str, name: str) -> Callable | None:
    for load in (import_module, _from_hub):
        try:
            return getattr(load(package), name)
        except (ImportError, AttributeError, KeyError, OSError, RuntimeError, ValueError):
            continue  # not installed, built for another torch, no network, or no build for this machine
    return None


def _from_hub(package: str) -> ModuleType:
    return import_module("kernels").get_kernel(_HUB[package.partition(".")[0]])
