"""Policies and tools by name, for the command line."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from ..errors import unknown_name
from .policy import Policy


def load_policy(name: str) -> Policy:
    """The policy of a model.

    Args:
        name: a folder or a name on the Hub, of a `zoo_lam` model or of a chat model whose template takes tools.
    """
    from transformers import AutoConfig

    from ..registration import register
    from .chat_policy import ChatPolicy
    from .lam_policy import LamPolicy

    register()
    kind = LamPolicy if AutoConfig.from_pretrained(name).model_type == "zoo_lam" else ChatPolicy
    return kind.from_pretrained(name)


def load_functions(name: str) -> list[Callable[..., Any]]:
    """Functions to make tools of.

    Args:
        name: "module:function", the module being found from the working folder, too; or "python-tools" for all tools
            of that data set.

    Raises:
        ValueError: there is no such module or function; the nearest is named.
    """
    if name == "python-tools":
        from ..data.tools import python_tools

        return list(python_tools().values())
    module_name, _, function_name = name.partition(":")
    if not function_name:
        raise ValueError(f"tools are named as module:function, or python-tools, not {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ValueError(f"there is no module {error.name!r}") from None
        raise
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise unknown_name(f"function of {module_name}", function_name, known)
    return [function]
