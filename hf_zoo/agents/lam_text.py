"""What a `zoo_lam` model reads when it decides, and how what it points at becomes an argument.

    memory: <what was recalled>
    done: <the first sentence of the task>
    call 0: <tool>
    result 0: <the beginning of what came back>
    later: <the third sentence, and all after it>
    now: <the second sentence>
    act:

The last token decides. A task is read a sentence for each call: the one whose turn it is comes last, and is missing
where there were as many calls as sentences. Training (`hf_zoo.training.trajectories`) and the runtime
(`lam_policy.py`) both write it here.
"""

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RESULT_CHARACTERS = 48  # of a result that are shown; the whole is what "result 0" stands for
MARKS = ("memory", "done", "call", "result", "later", "now", "act")  # words that lines begin with
_QUOTES = "'\"`"
# What is never cut: a quotation, a list or an object, a word or a number with the marks inside it
_UNIT = re.compile(
    r"""(?<!\w)(['"`]).*?\1(?!\w) | \[[^\[\]\n]*\] | \{[^{}\n]*\} | [-+]?\w+(?:[-+.,:/'@&_]+\w+)*""", re.VERBOSE
)
_SAID = re.compile(r"""['"`\[{]|[-+]?\d[-+.,:/\d]*$""")
_END = re.compile(r"[.?!](?=\s)")


@dataclass(frozen=True)
class ContextText:
    """The text, where it names results: (first character, one after the last, number), and where it says what to do
    now."""

    text: str
    results: tuple[tuple[int, int, int], ...]
    now: int

    def result_at(self, start: int, end: int) -> int | None:
        """The result that a span of characters names; None where it is a value."""
        return next((n for first, last, n in self.results if first <= start and end <= last), None)

    def whole(self, start: int, end: int) -> tuple[int, int]:
        """A span of characters with all of the quotations, lists, words and numbers that it has a part of."""
        text = self.text[start:end]
        start, end = start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())
        for first, last in self.units:
            if first < end and last > start:
                start, end = min(start, first), max(end, last)
        return start, end

    def may_be_value(self, start: int, end: int) -> bool:
        """Whether a span is of one line, and has no quotation beside other words: that is a value of its own."""
        held = [(a, b) for a, b in self.units if start <= a and b <= end and self.text[a] in _QUOTES]
        return "\n" not in self.text[start:end] and all(span == (start, end) for span in held)

    def values(self) -> list[tuple[int, int]]:
        """What is said to do now with: its quotations, lists, objects, and what is written in digits, as spans."""
        spans = [(start, end) for start, end in self.units if start >= self.now]
        return [(start, end) for start, end in spans if _SAID.match(self.text[start:end])]

    @functools.cached_property
    def units(self) -> tuple[tuple[int, int], ...]:
        """What is never cut, as spans of characters."""
        return tuple(match.span() for match in _UNIT.finditer(self.text))


def sentences(text: str) -> list[str]:
    """A text at the ends of its sentences; marks inside of quotations and lists are none."""
    held = [match.span() for match in _UNIT.finditer(text)]
    ends = [m.end() for m in _END.finditer(text) if not any(first < m.end() <= last for first, last in held)]
    parts = [text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [part for part in parts if part] or [""]


def context_text(task: str, calls: Sequence[tuple[str, str]] = (), memories: Sequence[str] = ()) -> ContextText:
    """The context of a decision.

    Args:
        task: in words.
        calls: (name, result in words) of the calls that succeeded, in order.
        memories: best first.
    """
    text = "".join(f"memory: {_one_line(memory)}\n" for memory in memories)
    asked, results = sentences(task), []
    for number, (name, result) in enumerate(calls):
        text += "".join(f"done: {sentence}\n" for sentence in asked[number : number + 1])
        text += f"call {number}: {name}\n"
        shown, mark = _one_line(result)[:RESULT_CHARACTERS], f"result {number}"
        results.append((len(text), len(text) + len(mark), number))
        text += f"{mark}: {shown}\n"
    text += "".join(f"later: {sentence}\n" for sentence in asked[len(calls) + 1 :])
    now = "".join(f"now: {sentence}\n" for sentence in asked[len(calls) : len(calls) + 1])
    return ContextText(f"{text}{now}act:", tuple(results), len(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def parse_value(text: str, schema: dict[str, Any]) -> Any:
    """A copied span as a value of its type; the span may have quotes or a full stop around the value.

    Raises:
        ValueError: it is none.
    """
    text = text.strip()
    inner = text
    if len(text) > 1 and text[0] in _QUOTES:  # the closing one may be a token of its own
        inner = text[1 : text.rfind(text[0])] if text.rfind(text[0]) > 0 else text[1:]
    elif len(text) > 1 and text[-1] in _QUOTES and text.count(text[-1]) == 1:
        inner = text[:-1]
    kind = schema.get("type", "string")
    if kind == "string":
        return inner if inner != text else _without_mark(text)
    for candidate in (inner, _without_mark(inner), inner.rstrip(".?!,;:'\")"), inner.strip(_QUOTES)):
        try:
            value = json.loads(candidate)
        except ValueError:
            continue
        if fits(value, kind):
            return int(value) if kind == "integer" else value
    raise ValueError(f"{text!r} is no {kind}")


def _without_mark(text: str) -> str:
    """Without the mark that ends a sentence."""
    return text[:-1].rstrip() if len(text) > 1 and text[-1] in ".?!,;" else text


def fits(value: Any, kind: str) -> bool:
    """Whether a value is of a type of JSON schema."""
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or isinstance(value, float) and value.is_integer()
    kinds = {"number": (int, float), "string": str, "array": list, "object": dict}
    return isinstance(value, kinds.get(kind, object))


def copied_value(context: ContextText, start: int, end: int, schema: dict[str, Any], num_results: int) -> Any:
    """What a span of characters binds a parameter to; None where it is no value of its type, or a part of one.

    Args:
        num_results: how many results there are to name.
    """
    text = context.text[start:end]
    start += len(text) - len(text.lstrip())
    number = context.result_at(start, end)
    if number is not None:
        return {"$result": number} if number < num_results else None
    around = context.text[max(start - 1, 0) : start], context.text[end : end + 2]
    if schema.get("type") in ("integer", "number") and (
        re.match(r"[\w.-]", around[0]) or re.match(r"[\w-]|\.\d", around[1])
    ):
        return None
    try:
        return parse_value(text, schema)
    except ValueError:
        return None


def find_value(context: ContextText, value: Any) -> list[tuple[int, int]]:
    """Where a value of an argument stands in a context, as spans of characters, likeliest first: in the sentence whose
    turn it is, then as a value of its own, then from the left. What came back from calls is named, not copied."""
    if isinstance(value, dict) and set(value) == {"$result"}:
        return [(first, last) for first, last, number in context.results if number == value["$result"]]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if not text:
        return []
    pattern = re.escape(text)
    if text[:1].isalnum():
        pattern = r"(?<![\w.])" + pattern
    if text[-1:].isalnum():
        pattern += r"(?!\w|\.\d)"
    shown = [(first, context.text.index("\n", first)) for first, _, _ in context.results]
    spans = [match.span() for match in re.finditer(pattern, context.text)]
    spans = [span for span in spans if not any(first <= span[0] < last for first, last in shown)]

    def rank(span: tuple[int, int]) -> tuple[bool, bool, int]:
        start, end = context.whole(*span)
        return span[0] < context.now, context.text[start:end].strip(_QUOTES) != text, span[0]

    return sorted(spans, key=rank)
