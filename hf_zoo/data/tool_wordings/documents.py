"""How tasks ask for the tools of `tool_functions.documents`."""

import json
from typing import Any

import numpy as np

from .sorts import INTEGER, NOUNS, NUMBER, WORD, Sort, Wording, wordings_of


def _document(rng: np.random.Generator, _: dict[str, Any]) -> str:
    keys = rng.choice(NOUNS, rng.integers(2, 5), replace=False).tolist()
    return json.dumps({key: int(rng.integers(1, 1000)) for key in keys})


def _key(rng: np.random.Generator, values: dict[str, Any]) -> str:
    return str(rng.choice(list(json.loads(values["document"]))))


DOCUMENT = Sort(_document, ("json",), quoted=True)
KEY = Sort(_key, quoted=True)

_asked = wordings_of("json")

WORDINGS: dict[str, Wording] = {
    "json_value": _asked(
        *("integer", {"document": DOCUMENT, "key": KEY}),
        *("read {key} from {document}", "get the value of {key} in {document}", "say what {document} has under {key}"),
    ),
    "json_keys": _asked(
        *("words", {"document": DOCUMENT}),
        *("list the keys of {document}", "say which keys {document} has", "find all keys in {document}"),
    ),
    "json_size": _asked(
        *("integer", {"document": DOCUMENT}),
        *("count the entries of {document}", "say how many keys {document} has"),
    ),
    "json_without": _asked(
        *("json", {"document": DOCUMENT, "key": KEY}),
        *("remove {key} from {document}", "delete the key {key} of {document}", "drop {key} from {document}"),
    ),
    "json_with": _asked(
        *("json", {"document": DOCUMENT, "key": WORD, "value": NUMBER}),
        *("set {key} to {value} in {document}", "put {value} under {key} in {document}"),
    ),
    "json_merge": _asked(
        *("json", {"first": DOCUMENT, "second": DOCUMENT}),
        *("merge {first} with {second}", "combine {first} and {second}", "put {first} and {second} into one object"),
    ),
    "rename_key": _asked(
        *("json", {"document": DOCUMENT, "key": KEY, "name": WORD}),
        *("rename the key {key} to {name} in {document}", "call {key} in {document} {name} from then on"),
        "give the name {name} to the key {key} of {document}",
    ),
    "json_increase": _asked(
        *("json", {"document": DOCUMENT, "key": KEY, "amount": INTEGER}),
        *("raise {key} by {amount} in {document}", "increase the number under {key} in {document} by {amount}"),
    ),
    "json_list": _asked(
        *("json", {"document": DOCUMENT, "key": KEY}),
        *("make a list of what is under {key} in {document}", "let {document} have a list under {key}"),
    ),
}
