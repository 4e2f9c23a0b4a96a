"""What the layout promises: who may import whom, what a folder holds, that no model is a copy, that READMEs run."""

import ast
import difflib
import re
import sys
from itertools import combinations
from pathlib import Path

import pytest

from hf_zoo.registry import ARCHITECTURES

ROOT = Path(__file__).parents[2]
TRAVELLING = ("modeling", "tokenization")  # what is written to the Hub beside the weights
FILES = sorted(path for folder in TRAVELLING for path in (ROOT / folder).rglob("*.py"))
MODELS = sorted((ROOT / "modeling").glob("*/modeling_*.py"))
READMES = sorted((ROOT / "modeling").glob("*/README.md"))
MAY_IMPORT = {"torch", "transformers", "huggingface_hub", "tokenizers", "numpy", "PIL", *sys.stdlib_module_names}
MOST_ALIKE = 0.8


def relative(path):
    return path.relative_to(ROOT).as_posix()


def imports(path):
    """(line, absolute name or None, file it comes from or None, imported names) of every import."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None, []
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module, None, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            target = path.parents[node.level - 1].joinpath(*(node.module or "").split(".")).with_suffix(".py")
            yield node.lineno, None, target, [alias.name for alias in node.names]


def violations(path):
    """What is wrong with a file's imports, as sentences."""
    root = next(parent for parent in path.parents if parent.name in TRAVELLING)
    for line, name, target, names in imports(path):
        where = f"{path.name}:{line}"
        if name is not None:
            if name.split(".")[0] not in MAY_IMPORT:
                yield f"{where} imports {name}, which is not there where a checkpoint is loaded"
        elif not target.is_file():
            yield f"{where} must be `from .module import Name`"
        elif root not in target.parents:
            yield f"{where} leaves {root.name}/"
        elif path.parent.name == "layers" and target.parent != path.parent:
            yield f"{where}: a layer imports {target.name}, which stands above it"
        elif path.parent == root and target.parent not in (root, root / "layers"):
            yield f"{where}: what architectures share imports one of them, {target.name}"
        else:
            defined = ast.parse(target.read_text()).body
            known = {getattr(node, "name", "") for node in defined}
            known |= {t.id for n in defined if isinstance(n, ast.Assign) for t in n.targets if hasattr(t, "id")}
            yield from (f"{where}: {target.name} does not define {name}" for name in names if name not in known)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_what_travels_imports_only_what_is_there(path):
    assert list(violations(path)) == []


@pytest.mark.parametrize(
    ("where", "line", "complaint"),
    [
        ("modeling/layers/x.py", "import peft", "imports peft"),
        ("modeling/layers/x.py", "from hf_zoo.errors import unknown_name", "imports hf_zoo.errors"),
        ("modeling/layers/x.py", "from ..masks import encoder_mask", "stands above it"),
        ("modeling/layers/x.py", "from . import norm", "must be"),
        ("modeling/layers/x.py", "from ...tokenization.train import KINDS", "leaves modeling/"),
        ("modeling/x.py", "from .llm.modeling_llm import LlmBlock", "imports one of them"),
        ("modeling/llm/x.py", "from ..layers import norm", "must be"),
        ("modeling/llm/x.py", "from ..layers.attention import rotate", "does not define rotate"),
    ],
)
def test_forbidden_imports_are_found(tmp_path, where, line, complaint):
    for path in FILES:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    path = tmp_path / where
    path.write_text(f"def late():\n    {line}\n")
    (found,) = violations(path)
    assert complaint in found


def test_cheap_modules_import_nothing_heavy_at_their_top():
    """`hf-zoo list` and every `--help` import the command line, the table and the presets: no torch."""
    cheap = [*(ROOT / "hf_zoo" / "cli").glob("*.py"), *(ROOT / "hf_zoo").glob("*.py")]
    heavy = {"torch", "transformers", "peft", "datasets", "accelerate", "matplotlib"}
    for path in cheap:
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not heavy & {name.split(".")[0] for name in names}, f"{relative(path)}:{node.lineno}"


def similarity(one, other):
    """Share of non-blank lines that match once both architectures go by the same name."""
    texts = []
    for path in (one, other):
        name = path.stem.removeprefix("modeling_")
        camel = "".join(part.capitalize() for part in name.split("_"))
        text = re.sub(rf"(Zoo)?{camel}(?=[A-Z])", "X", path.read_text())
        text = re.sub(rf"(?<![a-z]){name}(?![a-z])", "x", text)
        texts.append([line.strip() for line in text.splitlines() if line.strip()])
    return difflib.SequenceMatcher(None, *texts, autojunk=False).ratio()


def test_no_model_is_a_copy_of_another():
    alike = {(a.name, b.name): similarity(a, b) for a, b in combinations(MODELS, 2)}
    assert {pair: share for pair, share in alike.items() if share > MOST_ALIKE} == {}


def test_a_copy_is_found(tmp_path):
    copy = tmp_path / "modeling_echo_net.py"
    source = (ROOT / "modeling/llm/modeling_llm.py").read_text()
    copy.write_text(source.replace("Llm", "EchoNet").replace("_llm", "_echo_net"))
    assert similarity(ROOT / "modeling/llm/modeling_llm.py", copy) > 0.99


def test_every_architecture_has_its_files():
    for name in (path.parent.name for path in MODELS):
        present = {path.name for path in (ROOT / "modeling" / name).iterdir()}
        files = {f"configuration_{name}.py", f"modeling_{name}.py", "presets.py", "README.md", "__init__.py"}
        assert files <= present, f"modeling/{name} lacks {sorted(files - present)}"
    assert {a.name for a in ARCHITECTURES.values()} <= {path.parent.name for path in MODELS}


def python_blocks(path):
    """The examples of a page."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda a: a.name)
def test_readme_runs(architecture, tmp_path, monkeypatch):
    blocks = python_blocks(ROOT / "modeling" / architecture.name / "README.md")
    assert blocks, f"the README of {architecture.name} has no example"
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, f"{architecture.name}/README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("folder", ["agents", "training"])
def test_readme_of_a_package_runs(folder, tmp_path, monkeypatch):
    """Its blocks are one story: names of the first are known in the second."""
    path = ROOT / "hf_zoo" / folder / "README.md"
    assert len(path.read_text().splitlines()) <= 90
    blocks, namespace = python_blocks(path), {"__name__": "__main__"}
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, f"{folder}/README.md", "exec"), namespace)


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_readme_fits_a_screen(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 60
    for heading in ("## What differs from the paper", "## Limits"):
        assert heading in text
