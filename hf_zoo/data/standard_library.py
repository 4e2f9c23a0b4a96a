"""The standard library's own source and docstrings as rows. Files are read and parsed, never imported.

Both datasets are split by the path of the module, so the docstrings of the test split come from modules that a model
trained on the train split of the source has never seen.
"""

import ast
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

_TEST_FOLDERS = {"test", "tests", "idle_test"}

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def python_source(include_tests: bool = False) -> tuple["Dataset", list[str]]:
    """One row a module: `path` in the library, with forward slashes, and its whole `text`; in the order of the paths.

    Args:
        include_tests: also the test suites inside packages, where the installation has them.

    Returns:
        The rows, and the path by which each is split.
    """
    from datasets import Dataset

    rows = [{"path": path, "text": text} for path, text in read_modules(include_tests)]
    return Dataset.from_list(rows), [row["path"] for row in rows]


def python_docs() -> tuple["Dataset", list[str]]:
    """One row a documented module, class, function or method.

    `name` (qualified, with the module), `kind` (module, class, function, method), `signature` (as the object is
    written up to the colon; empty for modules), `code` (its source with every docstring taken out, its own and those
    of what it holds), `doc` (without the indentation of the source, as `inspect.cleandoc` leaves it), `path` of the
    module. A text that documents several objects stands once, at the first, so that each `doc` has one right answer.

    Returns:
        The rows, and the path by which each is split.
    """
    from datasets import Dataset

    seen, rows = set(), []
    for path, text in read_modules(include_tests=False):
        for row in documented_objects(path, text):
            if row["doc"] not in seen:
                seen.add(row["doc"])
                rows.append(row)
    return Dataset.from_list(rows), [row["path"] for row in rows]


def read_modules(include_tests: bool) -> Iterator[tuple[str, str]]:
    """Path in the library and source of every module that can be read, in the order of the paths."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py"), key=lambda file: file.relative_to(root).as_posix()):
        path = file.relative_to(root)
        if path.parts[0].removesuffix(".py") not in sys.stdlib_module_names:  # site-packages, build configuration
            if not (include_tests and path.parts[0] in _TEST_FOLDERS):
                continue
        if not include_tests and _TEST_FOLDERS.intersection(path.parts[:-1]):
            continue
        try:
            with tokenize.open(file) as source:  # honours the encoding that the file declares
                text = source.read()
        except (SyntaxError, UnicodeDecodeError):
            continue
        if text.strip():
            yield path.as_posix(), text


def documented_objects(path: str, text: str) -> Iterator[dict[str, str]]:
    """Rows of `python-docs` for one module, in the order of the source; none where it does not parse.

    Functions inside functions are left out: nobody can name them.

    Args:
        path: of the module in its library, for example "json/decoder.py".
        text: its source.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    lines = _blank_docstrings(tree, text)
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if doc := ast.get_docstring(tree):
        code = "\n".join(line for line in lines if line is not None)
        yield {"name": module, "kind": "module", "signature": "", "code": code, "doc": doc, "path": path}
    yield from _documented_in(tree, module, path, lines)


def _documented_in(parent: ast.AST, prefix: str, path: str, lines: list[str | None]) -> Iterator[dict[str, str]]:
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, Definition):
            if not isinstance(node, ast.expr):
                yield from _documented_in(node, prefix, path, lines)  # definitions under `if` and `try`
            continue
        name = f"{prefix}.{node.name}"
        is_class = isinstance(node, ast.ClassDef)
        if doc := ast.get_docstring(node):
            yield {
                "name": name,
                "kind": "class" if is_class else "method" if isinstance(parent, ast.ClassDef) else "function",
                "signature": _signature(node),
                "code": _source(node, lines),
                "doc": doc,
                "path": path,
            }
        if is_class:
            yield from _documented_in(node, name, path, lines)


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        arguments = ", ".join(ast.unparse(argument) for argument in (*node.bases, *node.keywords))
        return f"class {node.name}({arguments})" if arguments else f"class {node.name}"
    keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{keyword} {node.name}({ast.unparse(node.args)}){returns}"


def _source(node: Definition, lines: list[str | None]) -> str:
    """The object's own lines, decorators included, moved to the left margin."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    indent = node.col_offset
    return "\n".join(
        line[indent:] if not line[:indent].strip() else line  # a string that continues further left stays
        for line in lines[first - 1 : node.end_lineno]
        if line is not None
    )


def _blank_docstrings(tree: ast.Module, text: str) -> list[str | None]:
    """The module's lines without docstrings; None where one stood alone, so that line numbers stay."""
    lines: list[str | None] = text.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, Definition | ast.Module) or ast.get_docstring(node, clean=False) is None:
            continue
        docstring = node.body[0]
        first, last = docstring.lineno - 1, docstring.end_lineno - 1
        before = lines[first].encode()[: docstring.col_offset].decode()  # ast counts bytes
        after = lines[last].encode()[docstring.end_col_offset :].decode()
        stands_alone = len(node.body) > 1 and not before.strip() and not after.strip()
        lines[first : last + 1] = [None] * (last - first + 1)
        if not stands_alone:
            lines[first] = f"{before}pass{after}"
    return lines
