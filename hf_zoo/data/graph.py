"""The standard library as a knowledge graph, and questions that are answered by following its relations.

Files are parsed, never imported. Entities are packages, modules and the classes that modules define, by their full
names, and the built-in classes that they derive from. Each fact stands in both directions.
"""

import ast
import builtins
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .standard_library import read_modules

if TYPE_CHECKING:
    from datasets import Dataset

# relation -> (what it is called the other way round, what the tail is of the head)
RELATIONS = {
    "defined in": ("defines", "the module of {}"),
    "defines": ("defined in", "the class in {}"),
    "derives from": ("base of", "the base class of {}"),
    "base of": ("derives from", "the subclass of {}"),
    "part of": ("contains", "the package of {}"),
    "contains": ("part of", "the module inside {}"),
    "imports": ("imported by", "the module imported by {}"),
    "imported by": ("imports", "the module that imports {}"),
}
_BUILT_IN_CLASSES = {name for name, value in vars(builtins).items() if isinstance(value, type)}
_MOST_ALIKE = 5  # questions with the same relations and answer
_MOST_RENAMINGS = 8  # of an imported name on its way from where it is defined; more are a circle

Triple = tuple[str, str, str]


def python_graph_triples() -> tuple["Dataset", list[str]]:
    """One row a fact: `head`, `relation` (of RELATIONS), `tail`, and `text`, which says it in words.

    Returns:
        The rows, sorted, and the text of each; all are of the training split, since a graph is known as a whole.
    """
    from datasets import Dataset

    rows = [
        {"head": head, "relation": relation, "tail": tail, "text": fact(head, relation, tail)}
        for head, relation, tail in triples_of(read_modules(include_tests=False))
    ]
    return Dataset.from_list(rows), [row["text"] for row in rows]


def python_graph(max_hops: int = 3) -> tuple["Dataset", list[str]]:
    """One row a question with one right answer: `question`, `answer`, `path`, `relations`, `hops`.

    `path` holds the entities from the one that is named in the question to the answer, `relations` what leads from
    each to the next. Every step of a path is the only one that its relation allows, and no path comes back. At most
    a few questions of one form have the same answer, or the form alone would tell it.

    Args:
        max_hops: longest paths that are asked for.

    Returns:
        The rows, and the question by which each is split.
    """
    from datasets import Dataset

    rows = few_alike(list(questions_of(triples_of(read_modules(include_tests=False)), max_hops)))
    return Dataset.from_list(rows), [row["question"] for row in rows]


def fact(head: str, relation: str, tail: str) -> str:
    """A triple in words: "One base class of json.decoder.JSONDecodeError is ValueError."; there may be others."""
    phrase = RELATIONS[relation][1].replace("the", "One", 1).format(head)
    return f"{phrase} is {tail}."


def triples_of(modules: Iterable[tuple[str, str]]) -> list[Triple]:
    """All facts of a library, sorted, each in both directions.

    Args:
        modules: path in the library ("json/decoder.py") and source of each; those that do not parse are left out.
    """
    parsed = {}
    for path, text in modules:
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        parsed[name] = _Module(name, path.endswith("__init__.py"), tree)
    facts = set()
    for module in parsed.values():
        parent = module.name.rpartition(".")[0]
        if parent in parsed:
            facts.add((module.name, "part of", parent))
        for target in module.imports:
            found = next((name for name in target if name in parsed), None)
            if found not in (None, module.name):
                facts.add((module.name, "imports", found))
        for name, bases in module.classes.items():
            facts.add((f"{module.name}.{name}", "defined in", module.name))
            for base in bases:
                if found := _find_class(parsed, module, base):
                    facts.add((f"{module.name}.{name}", "derives from", found))
    facts = {fact for fact in facts if fact[0] != fact[2]}
    return sorted(facts | {(tail, RELATIONS[relation][0], head) for head, relation, tail in facts})


def questions_of(triples: Iterable[Triple], max_hops: int) -> Iterator[dict[str, Any]]:
    """Every question about a graph that has one right answer, reached in one way; short ones first."""
    tails: dict[tuple[str, str], list[str]] = {}
    for head, relation, tail in triples:
        tails.setdefault((head, relation), []).append(tail)
    steps: dict[str, list[tuple[str, str]]] = {}
    for (head, relation), found in tails.items():
        if len(found) == 1:
            steps.setdefault(head, []).append((relation, found[0]))
    paths = [([head], [], head) for head in steps]
    for hops in range(1, max_hops + 1):
        paths = [
            ([*path, tail], [*relations, relation], RELATIONS[relation][1].format(phrase))
            for path, relations, phrase in paths
            for relation, tail in steps.get(path[-1], ())
            if tail not in path
        ]
        for path, relations, phrase in paths:
            question = f"What is {phrase}?"
            yield {"question": question, "answer": path[-1], "path": path, "relations": relations, "hops": hops}


def few_alike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `questions_of`, of which at most a few have both relations and answer in common; a hash says which."""
    counts: Counter[tuple[str, ...]] = Counter()
    kept = set()
    for row in sorted(rows, key=lambda row: zlib.crc32(row["question"].encode())):
        form = (*row["relations"], row["answer"])
        counts[form] += 1
        if counts[form] <= _MOST_ALIKE:
            kept.add(row["question"])
    return [row for row in rows if row["question"] in kept]


class _Module:
    """What a module's own lines say.

    Attributes:
        names: name in the module -> full name of what it stands for, for what is imported.
        imports: one an import, full names of what may be a module, the likeliest first.
        classes: name -> its bases as written, where they are names.
    """

    def __init__(self, name: str, is_package: bool, tree: ast.Module) -> None:
        self.name = name
        self.names: dict[str, str] = {}
        self.imports: list[tuple[str, ...]] = []
        self.classes: dict[str, list[str]] = {}
        self._package = name if is_package else name.rpartition(".")[0]
        self._read(tree)

    def _read(self, parent: ast.AST) -> None:
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base) for base in node.bases if isinstance(base, ast.Name | ast.Attribute)]
                self.classes.setdefault(node.name, bases)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    self.imports.append((alias.name,))
                    first = alias.name.partition(".")[0]
                    self.names[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom):
                source = self._source(node)
                for alias in node.names:
                    full = f"{source}.{alias.name}"
                    self.imports.append((full, source))
                    self.names[alias.asname or alias.name] = full
            elif not isinstance(node, ast.expr | ast.FunctionDef | ast.AsyncFunctionDef):
                self._read(node)  # definitions and imports under `if` and `try`

    def _source(self, node: ast.ImportFrom) -> str:
        parts = self._package.split(".")[: len(self._package.split(".")) + 1 - node.level] if node.level else []
        return ".".join((*parts, *filter(None, (node.module,))))


def _find_class(modules: dict[str, _Module], module: _Module, name: str) -> str | None:
    """The full name of a class that is called `name` in a module; None where nobody can tell without importing."""
    for _ in range(_MOST_RENAMINGS):
        if name in module.classes:
            return f"{module.name}.{name}"
        first, dot, rest = name.partition(".")
        if first in module.names:
            name = module.names[first] + dot + rest
        elif name in _BUILT_IN_CLASSES:
            return name
        else:
            return None
        owner = next((prefix for prefix in _prefixes(name) if prefix in modules), None)
        if owner is None:
            return None
        module, name = modules[owner], name[len(owner) + 1 :]
    return None


def _prefixes(name: str) -> Iterator[str]:
    """Every "a.b" and "a" of "a.b.c", the longest first."""
    while name := name.rpartition(".")[0]:
        yield name
