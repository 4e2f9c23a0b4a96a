"""JSON objects, as text."""

import json
from typing import Any


def json_value(document: str, key: str) -> Any:
    """The value that stands under a key of a JSON object.

    Args:
        document: The JSON object, as text.
        key: The key.
    """
    return json.loads(document)[key]


def json_keys(document: str) -> list[str]:
    """The keys of a JSON object, in alphabetical order.

    Args:
        document: The JSON object, as text.
    """
    return sorted(json.loads(document))


def json_size(document: str) -> int:
    """Count the entries of a JSON object.

    Args:
        document: The JSON object, as text.
    """
    return len(json.loads(document))


def json_without(document: str, key: str) -> str:
    """Remove a key from a JSON object.

    Args:
        document: The JSON object, as text.
        key: The key to remove.
    """
    return json.dumps({name: value for name, value in json.loads(document).items() if name != key})


def json_with(document: str, key: str, value: float) -> str:
    """Set a key of a JSON object to a number.

    Args:
        document: The JSON object, as text.
        key: The key to set.
        value: The number to put there.
    """
    return json.dumps({**json.loads(document), key: value})


def json_merge(first: str, second: str) -> str:
    """Merge two JSON objects; the second wins where both have a key.

    Args:
        first: One JSON object, as text.
        second: The other JSON object, as text.
    """
    return json.dumps({**json.loads(first), **json.loads(second)})


def rename_key(document: str, key: str, name: str) -> str:
    """Rename a key of a JSON object; its value stays.

    Args:
        document: The JSON object, as text.
        key: The key to rename.
        name: What it is called from then on.
    """
    return json.dumps({name if old == key else old: value for old, value in json.loads(document).items()})


def json_increase(document: str, key: str, amount: int) -> str:
    """Raise the number under a key of a JSON object by an amount.

    Args:
        document: The JSON object, as text.
        key: The key whose number is raised.
        amount: By how much.
    """
    values = json.loads(document)
    return json.dumps({**values, key: values[key] + amount})


def json_list(document: str, key: str) -> str:
    """Make the value under a key of a JSON object a list with one entry.

    Args:
        document: The JSON object, as text.
        key: The key whose value becomes a list.
    """
    values = json.loads(document)
    return json.dumps({**values, key: [values[key]]})
