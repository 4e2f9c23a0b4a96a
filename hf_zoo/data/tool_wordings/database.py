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
            "name": Sort(lambda rng, values: str(rng.choice([row[0] for row in TABLES[values["table"]][1]]))),
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
}
