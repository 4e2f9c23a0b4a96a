"""A new architecture in a source checkout, from one that is there: its folder, its line in the table, its Case.

The result runs and keeps every promise from the start, being the other architecture under a new name; what makes it
new is then written into it.
"""

import ast
import importlib.util
import keyword
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .errors import MissingExtra
from .presets import list_models, read_presets
from .registry import ARCHITECTURES, Architecture, find_architecture

CHECKOUT = Path(__file__).parents[1]
_REGISTRY = Path("hf_zoo", "registry.py")
_CASES = Path("tests", "cases.py")


def new_architecture(name: str, like: str, checkout: Path = CHECKOUT) -> list[Path]:
    """Write `modeling/<name>/`, the line of the registry's table and the Case of the sweep.

    Args:
        name: of the folder: lower case, digits and underscores.
        like: the architecture to start from, with or without `zoo_`.
        checkout: root of the source tree.

    Returns:
        The files that were written or changed, relative to the root.

    Raises:
        ValueError: not a source checkout, not a usable name, or one that is taken.
        MissingExtra: ruff, which formats the result, is not installed.
    """
    other = find_architecture(like)
    new = Architecture(name, other.title, other.paper, other.tasks)
    _check(new, checkout)
    written = [*_write_folder(new, other, checkout), *_write_tables(new, other, checkout)]
    python = [path for path in written if path.suffix == ".py"]
    for action in (["format"], ["check", "--fix", "--exit-zero"], ["format"]):  # a longer name sorts and wraps anew
        subprocess.run([sys.executable, "-m", "ruff", *action, "--quiet", *python], cwd=checkout, check=True)
    return written


def _check(new: Architecture, checkout: Path) -> None:
    for file in (_REGISTRY, _CASES, Path("modeling", "__init__.py")):
        if not (checkout / file).is_file():
            raise ValueError(f"{checkout} has no {file}: a new architecture is written into a source checkout")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", new.name) or keyword.iskeyword(new.name):
        raise ValueError(f"{new.name!r} cannot name an architecture: lower-case words joined by '_', such as mm_llm")
    if new.model_type in ARCHITECTURES or (checkout / "modeling" / new.name).exists():
        raise ValueError(f"modeling/{new.name} is there already; choose another name, nothing is overwritten")
    if (checkout / "modeling" / f"{new.name}.py").exists():
        raise ValueError(f"modeling/{new.name}.py has that name already")
    if new.tiny_preset in list_models():
        raise ValueError(f"the preset {new.tiny_preset} is there already, in another architecture")
    if importlib.util.find_spec("ruff") is None:
        raise MissingExtra("ruff", "dev")


def _write_folder(new: Architecture, other: Architecture, checkout: Path) -> list[Path]:
    source, target = checkout / "modeling" / other.name, checkout / "modeling" / new.name
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "presets.py"))
    for path in target.glob("*_*.py"):
        if path.stem.endswith(f"_{other.name}"):
            path.rename(path.with_stem(path.stem.removesuffix(other.name) + new.name))
    for path in target.iterdir():
        path.write_text(_renamed(path.read_text(encoding="utf-8"), new, other), encoding="utf-8")
    # Published sizes are those of the other architecture; only the one that tests use carries over.
    tiny = {new.tiny_preset: read_presets(other)[other.tiny_preset]}
    presets = f'"""Published sizes of {new.name}."""\n\nPRESETS = {tiny!r}\n'
    (target / "presets.py").write_text(presets, encoding="utf-8")
    return sorted(path.relative_to(checkout) for path in target.iterdir())


def _renamed(source: str, new: Architecture, other: Architecture) -> str:
    """Identifiers of the other architecture under the new name; prose about it stays, for the author to rewrite."""
    short_new, short_other = new.class_prefix.removeprefix("Zoo"), other.class_prefix.removeprefix("Zoo")
    for pattern, replacement in (
        (rf"\bZoo{short_other}(?=[A-Z]|\b)", f"Zoo{short_new}"),
        (rf"\b{short_other}(?=[A-Z])", short_new),  # LlmBlock, but not a word of prose
        (rf"\b{other.model_type}\b", new.model_type),
        (rf"\b(configuration|modeling)(_|/){other.name}\b", rf"\1\g<2>{new.name}"),
        (rf"\b{re.escape(other.tiny_preset)}\b", new.tiny_preset),
    ):
        source = re.sub(pattern, replacement, source)
    return source


def _write_tables(new: Architecture, other: Architecture, checkout: Path) -> list[Path]:
    """Copy the other's line in the registry and in the cases, under the new name, to the end of each."""
    registry = checkout / _REGISTRY
    _append_line(registry, "Architecture", other.name, f'"{other.name}"', f'"{new.name}"')
    _append_line(checkout / _CASES, "Case", other.model_type, f'"{other.model_type}"', f'"{new.model_type}"')
    return [_REGISTRY, _CASES]


def _append_line(path: Path, function: str, key: str, old: str, replacement: str) -> None:
    """Repeat the call of `function` that mentions `key` after the last such call of the table."""
    source = path.read_text(encoding="utf-8")
    calls = [
        node
        for table in ast.parse(source).body
        if isinstance(table, ast.Assign)
        for node in ast.walk(table)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function
    ]
    (model,) = (c for c in calls if any(isinstance(n, ast.Constant) and n.value == key for n in ast.walk(c.args[0])))
    lines = source.splitlines(keepends=True)
    # Whole lines: with them come the key before the call and the comma after it.
    copied = "".join(lines[model.lineno - 1 : model.end_lineno]).replace(old, replacement)
    lines.insert(max(call.end_lineno for call in calls), copied)
    path.write_text("".join(lines), encoding="utf-8")
