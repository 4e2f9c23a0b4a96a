"""`python-tools`: tasks in words, the tools on offer, the calls that solve them, and what those return."""

import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .splits import SPLITS, generator_of, split_of
from .tool_functions import MODULES
from .tool_wordings import WORDINGS

if TYPE_CHECKING:
    from datasets import Dataset

NUM_OFFERED = 8
TOOL_SHARES = (0.70, 0.10, 0.20)
_NUM_ROWS = {1: 60, 2: 40, 3: 30}  # that end with each tool, by the number of steps
_MAX_SIZE = 240  # characters of a result in JSON
_REQUESTS = ("{}.", "Please {}.", "{}, please.", "Can you {}?", "I need you to {}.", "Could you {} for me?")
_THEN = ("Then {}.", "After that, {}.", "Next, {}.", "Now {}.")
_LAST = ("Finally, {}.", "In the end, {}.", "Then {}.")
_RESULT = ("the result", "that result", "what you got")
_ALIKE = 5.0  # by how much a tool of the same kind is likelier on offer than another
_FIRST_RESULT = "the first result"


def python_tools() -> dict[str, Callable[..., Any]]:
    """The tools of `python-tools` by name: plain functions with type hints and docstrings."""
    return {
        name: function
        for module in MODULES
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }


def split_of_tool(name: str) -> str:
    """The only split whose tasks call or offer a tool, by a hash of its name."""
    return split_of(name, TOOL_SHARES)


def split_of_tasks(keys: list[str], shares: tuple[float, float, float]) -> list[str]:
    """The split of each task, which is that of all its tools; the keys are the splits, and the shares were spent on
    tools."""
    return keys


def tool_tasks() -> tuple["Dataset", list[str]]:
    """One row a task of one to three calls. No tool stands in two splits, so those of the test split are new.

    `task` in words; `tools` on offer, each as the JSON of `transformers.utils.get_json_schema`; `calls` in order, with
    `name`, `arguments` (JSON) and `result` (JSON), where the argument `{"$result": n}` stands for the result of the
    n-th call, counted from 0; `answer`, the last result in words; `kind` of the calls, such as "text+arithmetic";
    `num_steps`. All other values of arguments, but for defaults, which are left out, can be copied from the task.

    Returns:
        The rows, and the split of each.
    """
    from datasets import Dataset
    from transformers.utils import get_json_schema

    functions = python_tools()
    schemas = {name: json.dumps(get_json_schema(function)) for name, function in functions.items()}
    rows, keys = [], []
    for split in SPLITS:
        names = [name for name in functions if split_of_tool(name) == split]
        seen: set[str] = set()
        for num_steps, num_rows in _NUM_ROWS.items():
            for last in names:
                rng = generator_of(f"{last} {num_steps}")
                for path in _paths(rng, names, last, num_steps, num_rows):
                    task = _draw_task(rng, path, functions)
                    if task is None or task["task"] in seen:
                        continue
                    seen.add(task["task"])
                    rows.append({"task": task["task"], "tools": _offer(rng, path, split, names, schemas), **task})
                    keys.append(split)
    return Dataset.from_list(rows), keys


def _paths(rng: np.random.Generator, names: list[str], last: str, num_steps: int, num_rows: int) -> list[list[str]]:
    """Chains of tools that end with one, where each takes what the one before returns."""
    paths = []
    for _ in range(num_rows):
        path = [last]
        while len(path) < num_steps:
            before = [name for name in names if name not in path and _inputs(path[0], WORDINGS[name].returns)]
            if not before:
                break
            path.insert(0, str(rng.choice(before)))
        if len(path) == num_steps:
            paths.append(path)
    return paths


def _inputs(name: str, returned: str) -> list[str]:
    """Parameters of a tool that take such a result."""
    return [parameter for parameter, sort in WORDINGS[name].sorts.items() if returned in sort.accepts]


def _draw_task(
    rng: np.random.Generator, path: list[str], functions: dict[str, Callable[..., Any]]
) -> dict[str, Any] | None:
    """A task for a chain of tools, without those on offer; None where a tool does not take what was drawn."""
    sentences: list[str] = []
    calls: list[dict[str, str]] = []
    results: list[Any] = []
    for step, name in enumerate(path):
        wording = WORDINGS[name]
        phrase = str(rng.choice(wording.phrases))
        arguments, values, shown = {}, {}, {}
        sources = _sources(rng, path, step)
        for parameter, sort in wording.sorts.items():
            if f"{{{parameter}}}" not in phrase and parameter not in sources:
                continue  # the phrase asks for the default
            if parameter in sources:
                source = sources[parameter]
                arguments[parameter], values[parameter] = {"$result": source}, results[source]
                shown[parameter] = str(rng.choice(_RESULT)) if source == step - 1 else _FIRST_RESULT
            else:
                try:
                    value = sort.draw(rng, values)
                except (KeyError, ValueError, IndexError):  # what was passed on has no such part
                    return None
                arguments[parameter] = values[parameter] = value
                shown[parameter] = _show(rng, value, sort.quoted)
        try:
            result = functions[name](**values)
        except (ArithmeticError, ValueError, LookupError, TypeError):
            return None
        if len(json.dumps(result)) > _MAX_SIZE or isinstance(result, complex):
            return None
        results.append(result)
        calls.append({"name": name, "arguments": json.dumps(arguments), "result": json.dumps(result)})
        forms = _REQUESTS if step == 0 else _LAST if step == len(path) - 1 else _THEN
        sentence = str(rng.choice(forms)).format(phrase.format(**shown))
        sentences.append(sentence[0].upper() + sentence[1:])
    kinds = dict.fromkeys(WORDINGS[name].kind for name in path)
    return {
        "task": " ".join(sentences),
        "calls": calls,
        "answer": results[-1] if isinstance(results[-1], str) else json.dumps(results[-1]),
        "kind": "+".join(kinds),
        "num_steps": len(path),
    }


def _sources(rng: np.random.Generator, path: list[str], step: int) -> dict[str, int]:
    """Which parameters of a step take which earlier result: one the last, sometimes another the first of all."""
    if step == 0:
        return {}
    taken = str(rng.choice(_inputs(path[step], WORDINGS[path[step - 1]].returns)))
    sources = {taken: step - 1}
    others = [parameter for parameter in _inputs(path[step], WORDINGS[path[0]].returns) if parameter != taken]
    if step > 1 and others and rng.random() < 0.5:
        sources[str(rng.choice(others))] = 0
    return sources


def _show(rng: np.random.Generator, value: Any, quoted: bool) -> str:
    """A value as it stands in a task."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if not quoted:
        return text
    marks = [mark for mark in ("'", '"') if mark not in text]
    mark = str(rng.choice(marks))
    return f"{mark}{text}{mark}"


def _offer(
    rng: np.random.Generator, path: list[str], split: str, names: list[str], schemas: dict[str, str]
) -> list[str]:
    """Schemas of the tools of a chain among others of their split, in any order.

    The training split has so many tools that few drawn at random would be alike; there those of the chain's kinds are
    drawn first as a rule, so that they have to be told apart.
    """
    others = [name for name in names if name not in path]
    num_others = min(NUM_OFFERED - len(path), len(others))
    kinds, shares = {WORDINGS[name].kind for name in path}, None
    if split == "train":
        weights = np.array([_ALIKE if WORDINGS[name].kind in kinds else 1.0 for name in others])
        shares = weights / weights.sum()
    offered = [*path, *rng.choice(others, num_others, replace=False, p=shares)]
    return [schemas[offered[i]] for i in rng.permutation(len(offered))]
