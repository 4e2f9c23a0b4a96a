"""How tasks ask for the tools of `tool_functions.database`."""

from typing import Any

import numpy as np

from ..tool_functions.database import TABLES
from .sorts import Sort, Wording, wordings_of


def _column(rng: np.random.Generator, values: dict[str, Any]) -> str:
    return str(rng.choice(TABLES[values["table"]][0][1:]))


def _limit(rng: np.random.Generator, values: dict[str, Any]) -> float:
    columns, rows = TABLES[values["table"]]
    return rows[int(rng.integers(len(rows)))][columns.index(values["column"])]


TABLE = Sort(lambda rng, _: str(rng.choice(list(TABLES))))
COLUMN = Sort(_column)
NAME = Sort(lambda rng, values: str(rng.choice([row[0] for row in TABLES[values["table"]][1]])))
_COLUMN_OF = {"table": TABLE, "column": COLUMN}

_asked = wordings_of("sqlite")

WORDINGS: dict[str, Wording] = {
    "list_columns": _asked(
        *("words", {"table": TABLE}),
        *("list the columns of the table {table}", "say which columns {table} has in the database"),
    ),
    "count_rows": _asked(
        *("integer", {"table": TABLE}),
        *("count the rows of the table {table}", "say how many {table} are in the database"),
    ),
    "sum_column": _asked(
        *("number", _COLUMN_OF),
        *("sum up the column {column} of {table}", "find the total {column} of all {table} in the database"),
    ),
    "average_column": _asked(
        *("number", _COLUMN_OF),
        *("average the column {column} of {table}", "find the average {column} of all {table} in the database"),
    ),
    "largest_in_column": _asked(
        *("number", _COLUMN_OF),
        *("find the largest {column} in the table {table}", "say how high {column} goes in the table {table}"),
    ),
    "smallest_in_column": _asked(
        *("number", _COLUMN_OF),
        *("find the smallest {column} in the table {table}", "say how low {column} goes in the table {table}"),
    ),
    "look_up": _asked(
        "number",
        {
            "table": TABLE,
            "name": NAME,
            "column": COLUMN,
        },
        *("look up the {column} of {name} in {table}", "find {column} for {name} in the table {table}"),
    ),
    "count_above": _asked(
        *("integer", {**_COLUMN_OF, "limit": Sort(_limit)}),
        *("count the {table} whose {column} is above {limit}", "say how many {table} have more {column} than {limit}"),
    ),
    "names_in": _asked(
        *("words", {"table": TABLE}),
        *("list the names of all {table} in the database", "say what the {table} in the database are called"),
    ),
    "count_between": _asked(
        *("integer", {**_COLUMN_OF, "low": Sort(_limit), "high": Sort(_limit)}),
        *(
            "count the {table} with a {column} from {low} to {high}",
            "count each {column} in {table} of {low} to {high}",
        ),
    ),
    "names_above": _asked(
        *("words", {**_COLUMN_OF, "limit": Sort(_limit)}),
        *("name the {table} whose {column} exceeds {limit}", "list the names with a {column} over {limit} in {table}"),
    ),
    "compare_rows": _asked(
        *("number", {**_COLUMN_OF, "first": NAME, "second": NAME}),
        *("say how much more {column} {first} has than {second} in {table}",),
        "compare {first} with {second} by the column {column} of {table}",
    ),
    "largest_row": _asked(
        *("text", _COLUMN_OF),
        *("say which row of {table} has the largest {column}", "name the row with the largest {column} in {table}"),
    ),
}
