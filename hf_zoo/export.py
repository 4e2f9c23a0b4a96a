"""Checkpoints that carry their code: whoever has transformers loads them, with or without hf_zoo.

Saving a zoo config writes beside `config.json` the files that its architecture is made of, and in it an `auto_map` of
all heads. The files are the package's own: comments and order stay; only the relative imports change, because on the
Hub all files stand in one folder (`layers/norm.py` becomes `layers_norm.py`).
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .registry import ARCHITECTURES, TASKS, Architecture, zoo_parts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

ROOTS = ("modeling", "tokenization")


def install() -> None:
    """Give the hooks to the base config of `hf_zoo.modeling`; a second call changes nothing."""
    from hf_zoo.modeling.base_config import ZooConfig

    if code_beside not in ZooConfig.save_hooks:
        ZooConfig.save_hooks.append(code_beside)
        ZooConfig.read_hooks.append(without_auto_map)


def export_standalone(model: "PreTrainedModel", folder: str, processor: Any = None) -> Path:
    """Write weights, config, code and a model card; the folder loads with `trust_remote_code=True` without hf_zoo.

    Args:
        model: a zoo model; `model.save_pretrained` and `push_to_hub` write the same.
        folder: where to.
        processor: a tokenizer or processor to write with it.
    """
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return Path(folder)


def without_auto_map(config_class: type, config_dict: dict[str, Any]) -> dict[str, Any]:
    """A reading hook: where the package is installed, the folder's copy of its code is not used."""
    return {name: value for name, value in config_dict.items() if name != "auto_map"}


@contextmanager
def code_beside(config: "PreTrainedConfig", folder: str) -> Iterator[None]:
    """A saving hook: code and card are written, and while the config is being saved it has an `auto_map`.

    The live config is left as it was: with an `auto_map` transformers would take it for one from the Hub.
    """
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None or type(config) is not architecture.config_class:
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, source in flattened_code(architecture, parts_of(config)).items():
        Path(folder, name).write_text(source, encoding="utf-8")
    write_card(config, architecture, Path(folder, "README.md"))
    config.auto_map = auto_map(architecture)
    try:
        yield
    finally:
        del config.auto_map


def auto_map(architecture: Architecture) -> dict[str, str]:
    """Auto class -> "file.Class", for the config, all heads and what feeds them."""
    entries = {"AutoConfig": f"configuration_{architecture.name}.{architecture.class_prefix}Config"}
    for task in architecture.all_tasks:
        auto_class, suffix = TASKS[task]
        entries[auto_class] = f"modeling_{architecture.name}.{architecture.class_prefix}{suffix}"
    for auto_class, where in architecture.processors:
        if auto_class != "AutoTokenizer":  # a tokenizer's own folder names its class
            entries[auto_class] = where
    return entries


def parts_of(config: "PreTrainedConfig") -> list[Architecture]:
    """The zoo's architectures among the parts of a composite config, and the parts of those."""
    found = {}
    for part in zoo_parts(config).values():
        found |= {a.name: a for a in (ARCHITECTURES[part.model_type], *parts_of(part))}
    return sorted(found.values(), key=lambda a: a.name)


def flattened_code(architecture: Architecture, parts: Iterable[Architecture] = ()) -> dict[str, str]:
    """File name -> source, of the architecture's model and of everything it imports from this package.

    Args:
        architecture: what is exported.
        parts: architectures that this one is made of.

    Raises:
        ValueError: a file imports in a way that cannot be flattened; file and line are named.
    """
    kinds = ("configuration", "modeling")
    start = [Path(a.module(kind).__file__) for a in (architecture, *parts) for kind in kinds]
    start += [Path(sys.modules[c.__module__].__file__) for c in architecture.processor_classes().values()]
    flat, waiting = {}, start
    while waiting:
        path = waiting.pop()
        if flat_name(path) not in flat:
            flat[flat_name(path)], imported = _flatten(path)
            waiting.extend(imported)
    if parts:
        flat["part_classes.py"] = _part_classes(parts)
    return dict(sorted(flat.items()))


def _part_classes(parts: Iterable[Architecture]) -> str:
    """The exported form of modeling/part_classes.py, which knows the zoo's parts of a checkpoint."""
    imports, lines = [], []
    for part in parts:
        feeders = dict(part.processors)  # the whole has its own, and those of parts are not exported
        entries = {auto: where.split(".") for auto, where in auto_map(part).items() if auto not in feeders}
        imports += [f"from .{file} import {name}\n" for file, name in entries.values()]
        known = ", ".join(f'"{auto}": {name}' for auto, (_, name) in entries.items())
        lines.append(f'    "{part.model_type}": {{{known}}},\n')
    heading = '"""Configs and models that this checkpoint is made of."""\n\n'
    return heading + "".join(imports) + "\nCLASSES = {\n" + "".join(lines) + "}\n"


def flat_name(path: Path) -> str:
    """`modeling/llm/modeling_llm.py` -> `modeling_llm.py`, `modeling/layers/norm.py` -> `layers_norm.py`."""
    folder = path.parent.name
    return path.name if folder in ROOTS or path.stem.endswith(f"_{folder}") else f"{folder}_{path.name}"


def _flatten(path: Path) -> tuple[str, list[Path]]:
    """The file's source with its relative imports rewritten, and the files that those import."""
    from . import __version__

    source = path.read_text(encoding="utf-8")
    lines, imported = source.splitlines(keepends=True), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(name.name.split(".")[0] == "hf_zoo" for name in node.names):
            raise ValueError(f"{path}:{node.lineno} imports hf_zoo, which is not there where the checkpoint is loaded")
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        target = path.parents[node.level - 1].joinpath(*(node.module or "").split(".")).with_suffix(".py")
        if not node.module or not target.is_file():
            raise ValueError(f"{path}:{node.lineno} must be `from .module import Name` to be exported")
        old = f"from {'.' * node.level}{node.module} import"
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line.replace(old, f"from .{flat_name(target).removesuffix('.py')} import", 1)
        imported.append(target)
    where = path.relative_to(next(parent.parent for parent in path.parents if parent.name in ROOTS))
    return f"# {where.as_posix()} of hf_zoo {__version__}, Apache-2.0\n" + "".join(lines), imported


CARD = """\
# {title}

A `{model_type}` model ({paper}), made with [hf_zoo](https://pypi.org/project/hf_zoo/).

```python
from transformers import {auto_class}

model = {auto_class}.from_pretrained("path/to/this/folder", trust_remote_code=True)
```

The code of the architecture is in this repository. With `import hf_zoo` before loading, the installed package is used
instead and `trust_remote_code` is not needed.
"""
PIPELINES = {
    "causal-lm": "text-generation",
    "masked-lm": "fill-mask",
    "sequence-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "feature-extraction": "feature-extraction",
    "image-classification": "image-classification",
    "zero-shot-image-classification": "zero-shot-image-classification",
    "image-text-to-text": "image-text-to-text",
    "mask-generation": "mask-generation",
    "audio-classification": "audio-classification",
}


def write_card(config: "PreTrainedConfig", architecture: Architecture, path: Path) -> None:
    """Write a model card, unless there is one: a user's own words stay."""
    from huggingface_hub import ModelCard, ModelCardData

    if path.exists():
        return
    task = architecture.task_called((config.architectures or [""])[0]) or architecture.tasks[0]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=PIPELINES.get(task),
        tags=["hf_zoo", architecture.model_type, "custom_code"],
    )
    text = CARD.format(
        title=config.name_or_path.rstrip("/").rpartition("/")[2] or architecture.model_type,
        model_type=architecture.model_type,
        paper=f"[{architecture.paper[0]}]({architecture.paper[1]})",
        auto_class=TASKS[task][0],
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}").save(path)
