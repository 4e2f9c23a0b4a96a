"""Arguments: references resolved, types coerced, defaults filled in, the rest refused with one message each."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import MissingExtra, unknown_name
from .tools import Tool
from .worker import MAX_DEPTH, is_deep

REFERENCE = "$result"
_PLAIN_OBJECT = {"type", "properties", "required", "description", "title", "additionalProperties"}
_PLAIN_VALUE = {"type", "items", "description", "title", "default"}
_PLAIN_TYPES = {"string": (str,), "boolean": (bool,), "integer": (int,), "number": (int, float)}
_TRUTHS = {"true": True, "false": False}


class InvalidArguments(ValueError):
    """Arguments that a tool does not take.

    Args:
        messages: one for each bad argument.
    """

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)


def bind(tool: Tool, arguments: Any, results: Sequence[Any] = ()) -> dict[str, Any]:
    """What a tool is called with.

    Args:
        tool: whose schema decides.
        arguments: as decided: an object, in which numbers may have been written as words of JSON, and
            `{"$result": n}` stands for a result.
        results: of the calls so far that succeeded.

    Raises:
        InvalidArguments: with one message for each argument that is unknown, missing or wrong.
        MissingExtra: jsonschema is not installed.
    """
    try:
        from jsonschema import Draft202012Validator
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ImportError:
        raise MissingExtra("jsonschema", "agents") from None
    check_depth(arguments)
    if not isinstance(arguments, Mapping):
        raise InvalidArguments([f"arguments must be an object, not {_show(arguments)}"])
    schema, properties = tool.parameters, tool.parameters.get("properties", {})
    bound: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, value in arguments.items():
        if name not in properties and not schema.get("additionalProperties", False):
            wrong[name] = str(unknown_name("argument", str(name)[:80], properties)) if properties else f"no {name!r}"
            continue
        try:
            bound[name] = coerce(resolve(value, results), properties.get(name, {}))
        except (ValueError, RecursionError) as error:
            wrong[name] = f"{name}: {error}"
    for name, property_schema in properties.items():
        if name not in bound and name not in wrong:
            if name in tool.defaults:
                bound[name] = tool.defaults[name]
            elif "default" in property_schema:
                bound[name] = property_schema["default"]
            elif name in schema.get("required", ()):
                wrong[name] = f"{name} is missing"
    given = {name: value for name, value in bound.items() if name in arguments}  # defaults are the tool's own affair
    if set(schema) <= _PLAIN_OBJECT:
        given = {
            name: value for name, value in given.items() if not _is_plainly_right(value, properties.get(name, {}))
        }
    validator = Draft202012Validator(_with_nulls({**schema, "required": []}), registry=Registry())
    try:
        for error in validator.iter_errors(given):
            where = [str(part) for part in error.absolute_path] or ["arguments"]
            wrong.setdefault(where[0], f"{'.'.join(where)}: {_brief(error.message)}")
    except Unresolvable as error:
        raise InvalidArguments([f"the schema of {tool.name} refers to what it does not hold: {error}"]) from None
    if wrong:
        raise InvalidArguments(list(wrong.values()))
    order = [*properties, *(name for name in bound if name not in properties)]
    return {name: bound[name] for name in order if name in bound}


def check_depth(arguments: Any) -> None:
    """Raise `InvalidArguments` if arguments are nested so deeply that nothing should walk through them."""
    if is_deep(arguments):
        raise InvalidArguments([f"arguments are nested more than {MAX_DEPTH} deep"])


def resolve(value: Any, results: Sequence[Any]) -> Any:
    """A value with `{"$result": n}` replaced, wherever it stands, by the n-th result; results are not looked into.

    Raises:
        ValueError: there is no such result.
    """
    if isinstance(value, Mapping):
        if set(value) == {REFERENCE}:
            number = value[REFERENCE]
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(results):
                raise ValueError(f"there is no result {_show(number)}; there are {len(results)} so far")
            return results[number]
        return {name: resolve(part, results) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(part, results) for part in value]
    return value


def coerce(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value as the type that a schema wants, where nothing is lost; else as it is.

    Raises:
        ValueError: a number that is none ("nan", infinity).
    """
    types = schema.get("type", ())
    types = (types,) if isinstance(types, str) else tuple(types)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON")
    for wanted in types:
        if isinstance(value, str) and wanted in ("integer", "number", "boolean", "array", "object", "null"):
            read = _TRUTHS.get(value.strip().lower(), value) if wanted == "boolean" else _read(value)
            if _fits(read, wanted) and "string" not in types:
                return coerce(read, schema)
        elif isinstance(value, float) and wanted == "integer" and "number" not in types and value.is_integer():
            return int(value)
        elif wanted == "string" and not isinstance(value, str | bool | None) and len(types) == 1:
            return json.dumps(value)
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return [coerce(part, schema["items"]) for part in value]
    return value


def _read(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: name)
    except (ValueError, RecursionError):
        return text


def _fits(value: Any, wanted: str) -> bool:
    if wanted in ("integer", "number"):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (wanted == "number" or float(value).is_integer())
    return isinstance(value, {"boolean": bool, "array": list, "object": dict, "null": type(None)}[wanted])


def _is_plainly_right(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is right by a schema of a type alone: saves the validator's walk through a long list."""
    if not set(schema) <= _PLAIN_VALUE:
        return False
    wanted = schema.get("type")
    if wanted == "array":
        items = schema.get("items", {})
        return type(value) is list and all(_is_plainly_right(part, items) for part in value)
    return isinstance(wanted, str) and type(value) in _PLAIN_TYPES.get(wanted, ())


def _with_nulls(schema: Any) -> Any:
    """transformers marks what may be absent with `nullable`, which JSON schema writes as a type."""
    if isinstance(schema, Mapping):
        inner = {name: _with_nulls(part) for name, part in schema.items() if name != "nullable" or part is not True}
        return {"anyOf": [inner, {"type": "null"}]} if schema.get("nullable") is True else inner
    if isinstance(schema, list):
        return [_with_nulls(part) for part in schema]
    return schema


def _brief(message: str) -> str:
    """A message whose middle, the value, may be long."""
    return message if len(message) <= 300 else f"{message[:100]}...{message[-150:]}"


def _show(value: Any) -> str:
    return f"{value!r:.80}"
