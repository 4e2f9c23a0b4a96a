"""What tools say, as typed observations: JSON, tables, text; cut to what a context has room for, with a note."""

import csv
import json
from typing import Any

from .executor import Outcome
from .policy import Observation

MAX_CHARS = 4000
_SEPARATORS = (",", "\t", ";", "|")
_MIN_ROWS = 2


def parse(source: str, outcome: Outcome, max_chars: int = MAX_CHARS) -> Observation:
    """The observation of an outcome.

    Args:
        source: name of the tool.
        outcome: what came of the call.
        max_chars: of the text; more are left out from the end, which the note says.
    """
    if outcome.status != "OK":
        text, note = shorten(outcome.error, max_chars)
        return Observation(source, outcome.status, "error", None, text, note)
    value, note = outcome.value, ""
    kind, parsed = read(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    total = outcome.total or len(text)
    text, note = shorten(text, max_chars, total)
    return Observation(source, "OK", kind, value, text, note, parsed)


def read(value: Any) -> tuple[str, Any]:
    """Of what kind a value is, and what it says: objects and lists of JSON text, rows of a table as objects."""
    if not isinstance(value, str):
        is_table = isinstance(value, list) and len(value) > 1 and all(isinstance(row, dict) for row in value)
        return "table" if is_table and len({tuple(row) for row in value}) == 1 else "json", value
    text = value.strip()
    if text.startswith(("{", "[")):
        try:
            return "json", json.loads(text)
        except (ValueError, RecursionError):
            pass
    rows = _rows(text)
    return ("table", rows) if rows else ("text", value)


def _rows(text: str) -> list[dict[str, Any]]:
    """Rows of a table by its header: separated by one character, as many columns in each line; none otherwise."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < _MIN_ROWS:
        return []
    if all(line.startswith("|") and line.endswith("|") for line in lines):  # Markdown
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        cells = [row for row in cells if not all(cell and set(cell) <= set("-: ") for cell in row)]
        return _by_header(cells)
    for separator in _SEPARATORS:
        try:
            cells = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
        except csv.Error:
            continue
        if len(cells[0]) > 1 and (rows := _by_header(cells)) and not any(" " in cell.strip() for cell in cells[0]):
            return rows  # a sentence with commas is no header
    return []


def _by_header(cells: list[list[str]]) -> list[dict[str, Any]]:
    header = cells[0]
    if len(cells) < _MIN_ROWS or len(set(header)) < len(header) or any(len(row) != len(header) for row in cells):
        return []
    return [dict(zip(header, map(_typed, row), strict=True)) for row in cells[1:]]


def _typed(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            pass
    return cell


def shorten(text: str, most: int, total: int | None = None) -> tuple[str, str]:
    """The beginning of a text, and a note on how much was left out, empty if nothing was.

    Args:
        text: or the beginning that is left of it.
        most: characters to keep.
        total: characters that it had, if some were cut off before.
    """
    total = len(text) if total is None else total
    kept = text[:most]
    return kept, f"cut: the first {len(kept):,} of {total:,} characters" if len(kept) < total else ""
