"""Every family of modern AI models as a first-class citizen of the Hugging Face stack.

`import hf_zoo` registers every architecture with transformers' Auto classes and with peft, through their public
`register()` calls; after it `AutoModel.from_pretrained`, `Trainer`, `pipeline` and `get_peft_model` know them all.
"""

import os
import sys

__version__ = "0.1.0"

# In a source checkout `modeling/` and `tokenization/` stand beside this folder, not in it. Looking there keeps
# `import hf_zoo.modeling` right when the checkout is the working directory and hides an installed wheel.
_root = os.path.dirname(__path__[0])
if not os.path.isdir(os.path.join(__path__[0], "modeling")) and os.path.isdir(os.path.join(_root, "modeling")):
    __path__.append(_root)

from .export import export_standalone  # noqa: E402
from .extend import extend_positions  # noqa: E402
from .hierarchy import as_hierarchical  # noqa: E402
from .hybrid import as_hybrid  # noqa: E402
from .lora import lora_config  # noqa: E402
from .low_rank import compress, expand  # noqa: E402
from .presets import create_config, create_model, create_processor, list_models  # noqa: E402
from .recipes import list_recipes, recipe  # noqa: E402
from .registration import register  # noqa: E402
from .registry import list_architectures  # noqa: E402
from .retrofit import as_retro  # noqa: E402

__all__ = [
    "as_hierarchical",
    "as_hybrid",
    "as_retro",
    "compress",
    "create_config",
    "create_model",
    "create_processor",
    "expand",
    "export_standalone",
    "extend_positions",
    "list_architectures",
    "list_models",
    "list_recipes",
    "lora_config",
    "recipe",
    "register",
]


def _is_command_line() -> bool:
    """True in the process of `hf-zoo`, whose commands register when they need a model: `list` answers from the
    tables and imports none. So does the worker of an agent, whose tools seldom need one."""
    command = os.path.basename(sys.argv[0]) if sys.argv else ""
    if command == "-m":  # Python is looking for the module to run; options may stand before it
        return sys.orig_argv[sys.orig_argv.index("-m") + 1] in ("hf_zoo", "hf_zoo.agents.worker")
    return command.removesuffix(".exe") == "hf-zoo"


if not _is_command_line():
    register()
