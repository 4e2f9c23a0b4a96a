"""A small SQLite database."""

import functools
import sqlite3
from typing import Any

from .tidy import tidy


def list_columns(table: str) -> list[str]:
    """The names of the columns of a table in the database.

    Args:
        table: Name of the table.
    """
    return [row[1] for row in _database().execute(f"PRAGMA table_info({_checked(table)})")]


def count_rows(table: str) -> int:
    """Count the rows of a table in the database.

    Args:
        table: Name of the table.
    """
    return _single(f"SELECT COUNT(*) FROM {_checked(table)}")


def sum_column(table: str, column: str) -> float:
    """Sum up a column of numbers of a table in the database.

    Args:
        table: Name of the table.
        column: Name of the column.
    """
    return tidy(_single(f"SELECT SUM({_checked(table, column)}) FROM {table}"))


def average_column(table: str, column: str) -> float:
    """The average of a column of numbers of a table in the database.

    Args:
        table: Name of the table.
        column: Name of the column.
    """
    return tidy(_single(f"SELECT AVG({_checked(table, column)}) FROM {table}"))


def largest_in_column(table: str, column: str) -> float:
    """The largest number in a column of a table in the database.

    Args:
        table: Name of the table.
        column: Name of the column.
    """
    return _single(f"SELECT MAX({_checked(table, column)}) FROM {table}")


def smallest_in_column(table: str, column: str) -> float:
    """The smallest number in a column of a table in the database.

    Args:
        table: Name of the table.
        column: Name of the column.
    """
    return _single(f"SELECT MIN({_checked(table, column)}) FROM {table}")


def look_up(table: str, name: str, column: str) -> Any:
    """Look up what stands in a column of a table in the database, in the row with a name.

    Args:
        table: Name of the table.
        name: The name in the row.
        column: Name of the column to read.
    """
    return _single(f"SELECT {_checked(table, column)} FROM {table} WHERE name = ?", name)


def count_above(table: str, column: str, limit: float) -> int:
    """Count the rows of a table in the database whose number in a column is above a limit.

    Args:
        table: Name of the table.
        column: Name of the column.
        limit: The number that must be exceeded.
    """
    return _single(f"SELECT COUNT(*) FROM {table} WHERE {_checked(table, column)} > ?", limit)


def names_in(table: str) -> list[str]:
    """All names that stand in a table of the database, in alphabetical order.

    Args:
        table: Name of the table.
    """
    return [row[0] for row in _database().execute(f"SELECT name FROM {_checked(table)} ORDER BY name")]


def count_between(table: str, column: str, low: float, high: float) -> int:
    """Count the rows of a table in the database whose number in a column is in a range.

    Args:
        table: Name of the table.
        column: Name of the column.
        low: The least number of the range.
        high: The most of the range.
    """
    query = f"SELECT COUNT(*) FROM {table} WHERE {_checked(table, column)} BETWEEN ? AND ?"
    return _single(query, low, high)


def names_above(limit: float, column: str, table: str) -> list[str]:
    """The names in a table of the database whose number in a column exceeds a limit, in alphabetical order.

    Args:
        limit: The number that must be exceeded.
        column: Name of the column.
        table: Name of the table.
    """
    query = f"SELECT name FROM {table} WHERE {_checked(table, column)} > ? ORDER BY name"
    return [row[0] for row in _database().execute(query, (limit,))]


def compare_rows(table: str, column: str, first: str, second: str) -> float:
    """How much more one row of a table in the database has in a column than another.

    Args:
        table: Name of the table.
        column: Name of the column to compare.
        first: The name in the row that has more.
        second: The name in the row that has less.
    """
    return tidy(look_up(table, first, column) - look_up(table, second, column))


def largest_row(table: str, column: str) -> str:
    """The name in the row of a table in the database that has the largest number in a column.

    Args:
        table: Name of the table.
        column: Name of the column.
    """
    return _single(f"SELECT name FROM {table} ORDER BY {_checked(table, column)} DESC, name")


# The rows of every table begin with a name, which is unique in it; all other columns are numbers.
TABLES: dict[str, tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]] = {
    "products": (
        ("name", "price", "stock", "weight"),
        (
            ("lamp", 24.5, 120, 900),
            ("chair", 79.0, 35, 5200),
            ("table", 189.9, 12, 18500),
            ("mirror", 45.25, 60, 3100),
            ("shelf", 64.0, 48, 7400),
            ("carpet", 110.0, 22, 6800),
            ("clock", 19.95, 210, 450),
            ("vase", 14.5, 95, 800),
        ),
    ),
    "employees": (
        ("name", "salary", "age", "years"),
        (
            ("Ada", 5200, 36, 9),
            ("Boris", 3900, 28, 3),
            ("Chen", 4700, 41, 12),
            ("Dalia", 4100, 33, 5),
            ("Emeka", 6100, 52, 20),
            ("Freya", 3500, 24, 1),
            ("Goran", 4400, 45, 15),
        ),
    ),
    "planets": (
        ("name", "moons", "radius", "distance"),
        (
            ("Mercury", 0, 2440, 57.9),
            ("Venus", 0, 6052, 108.2),
            ("Earth", 1, 6371, 149.6),
            ("Mars", 2, 3390, 227.9),
            ("Jupiter", 95, 69911, 778.5),
            ("Saturn", 146, 58232, 1432.0),
            ("Uranus", 28, 25362, 2867.0),
            ("Neptune", 16, 24622, 4515.0),
        ),
    ),
    "rivers": (
        ("name", "length", "countries"),
        (
            ("Nile", 6650, 11),
            ("Amazon", 6400, 7),
            ("Danube", 2850, 10),
            ("Volga", 3530, 1),
            ("Rhine", 1230, 6),
            ("Ganges", 2525, 2),
        ),
    ),
}


@functools.cache
def _database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    for table, (columns, rows) in TABLES.items():
        connection.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
        connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows)
    return connection


def _single(query: str, *values: Any) -> Any:
    row = _database().execute(query, values).fetchone()
    if row is None:
        raise ValueError(f"nothing is called {values[0]!r}")
    return row[0]


def _checked(table: str, column: str | None = None) -> str:
    """The last of both names, once the database is known to have them: a name cannot be a parameter of SQL."""
    if table not in TABLES:
        raise ValueError(f"there is no table {table!r}; there are {', '.join(TABLES)}")
    if column is None:
        return table
    if column not in TABLES[table][0]:
        raise ValueError(f"{table} has no column {column!r}; it has {', '.join(TABLES[table][0])}")
    return column
