"""The tools of `python-tools`: functions over the standard library and a small SQLite database.

Every function takes and returns what JSON holds, touches no file and no network, and says the same on every machine.
"""

import base64
import binascii
import calendar
import codecs
import datetime
import difflib
import functools
import hashlib
import html
import json
import math
import sqlite3
import statistics
import string
import textwrap
import unicodedata
import urllib.parse
from collections import Counter
from typing import Any, Literal

# Arithmetic


def add(a: float, b: float) -> float:
    """Add two numbers: the sum of both.

    Args:
        a: The first number.
        b: The number to add to it.
    """
    return _tidy(a + b)


def subtract(a: float, b: float) -> float:
    """Subtract one number from another: the difference of both.

    Args:
        a: The number to start from.
        b: The number to take away.
    """
    return _tidy(a - b)


def multiply(a: float, b: float) -> float:
    """Multiply two numbers: their product.

    Args:
        a: The first factor.
        b: The second factor.
    """
    return _tidy(a * b)


def divide(a: float, b: float) -> float:
    """Divide one number by another: their quotient.

    Args:
        a: The number to divide.
        b: The divisor, not zero.
    """
    return _tidy(a / b)


def power(base: float, exponent: int) -> float:
    """Raise a number to a power.

    Args:
        base: The number to raise.
        exponent: How often it is multiplied by itself.
    """
    return _tidy(base**exponent)


def remainder(a: int, b: int) -> int:
    """What is left of a division of whole numbers (modulo).

    Args:
        a: The number to divide.
        b: The divisor, not zero.
    """
    return a % b


def square_root(number: float) -> float:
    """The square root of a number.

    Args:
        number: The number, not negative.
    """
    return _tidy(math.sqrt(number))


def absolute_value(number: float) -> float:
    """A number without its sign.

    Args:
        number: The number.
    """
    return abs(number)


def round_number(number: float, digits: int = 0) -> float:
    """Round a number to some digits after the point.

    Args:
        number: The number to round.
        digits: Digits to keep after the point.
    """
    return round(number, digits)


def greatest_common_divisor(a: int, b: int) -> int:
    """The greatest whole number that divides both.

    Args:
        a: The first whole number.
        b: The second whole number.
    """
    return math.gcd(a, b)


def least_common_multiple(a: int, b: int) -> int:
    """The least whole number that both divide.

    Args:
        a: The first whole number.
        b: The second whole number.
    """
    return math.lcm(a, b)


def factorial(number: int) -> int:
    """The product of all whole numbers from 1 to this one.

    Args:
        number: A whole number from 0 to 20.
    """
    if not 0 <= number <= 20:
        raise ValueError(f"number must be from 0 to 20, not {number}")
    return math.factorial(number)


def count_combinations(total: int, chosen: int) -> int:
    """In how many ways some things can be chosen from a number of things.

    Args:
        total: How many things there are.
        chosen: How many are chosen.
    """
    return math.comb(total, chosen)


def percent_of(percent: float, number: float) -> float:
    """So many percent of a number.

    Args:
        percent: The percentage.
        number: The number that it is taken of.
    """
    return _tidy(number * percent / 100)


def hypotenuse(a: float, b: float) -> float:
    """The longest side of a right triangle, by Pythagoras.

    Args:
        a: One short side.
        b: The other short side.
    """
    return _tidy(math.hypot(a, b))


def to_binary(number: int) -> str:
    """Write a whole number in binary digits.

    Args:
        number: The whole number.
    """
    return format(number, "b")


def to_hexadecimal(number: int) -> str:
    """Write a whole number in hexadecimal digits.

    Args:
        number: The whole number.
    """
    return format(number, "x")


# Dates


def days_between(start: str, end: str) -> int:
    """Count the days from one date to another.

    Args:
        start: The earlier date, as YYYY-MM-DD.
        end: The later date, as YYYY-MM-DD.
    """
    return (_date(end) - _date(start)).days


def add_days(date: str, days: int) -> str:
    """The date that lies some days after a date.

    Args:
        date: The date to start from, as YYYY-MM-DD.
        days: How many days later.
    """
    return (_date(date) + datetime.timedelta(days=days)).isoformat()


def subtract_weeks(date: str, weeks: int) -> str:
    """The date that lies some weeks before a date.

    Args:
        date: The date to start from, as YYYY-MM-DD.
        weeks: How many weeks earlier.
    """
    return (_date(date) - datetime.timedelta(weeks=weeks)).isoformat()


def weekday_name(date: str) -> str:
    """The name of the weekday of a date.

    Args:
        date: The date, as YYYY-MM-DD.
    """
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return names[_date(date).weekday()]


def day_of_year(date: str) -> int:
    """Which day of its year a date is, counted from 1.

    Args:
        date: The date, as YYYY-MM-DD.
    """
    return _date(date).timetuple().tm_yday


def iso_week(date: str) -> int:
    """The number of the calendar week of a date.

    Args:
        date: The date, as YYYY-MM-DD.
    """
    return _date(date).isocalendar().week


def is_leap_year(year: int) -> bool:
    """Whether a year has a 29th of February.

    Args:
        year: The year.
    """
    return calendar.isleap(year)


def days_in_month(year: int, month: int) -> int:
    """How many days a month has.

    Args:
        year: The year.
        month: The month, from 1 to 12.
    """
    return calendar.monthrange(year, month)[1]


def last_day_of_month(date: str) -> str:
    """The date on which the month of a date ends.

    Args:
        date: The date, as YYYY-MM-DD.
    """
    day = _date(date)
    return day.replace(day=calendar.monthrange(day.year, day.month)[1]).isoformat()


# Text


def count_words(text: str) -> int:
    """Count the words of a text.

    Args:
        text: The text.
    """
    return len(text.split())


def count_letters(text: str) -> int:
    """Count the characters of a text that are letters.

    Args:
        text: The text.
    """
    return sum(character.isalpha() for character in text)


def to_upper(text: str) -> str:
    """Write a text in capital letters.

    Args:
        text: The text.
    """
    return text.upper()


def to_title(text: str) -> str:
    """Begin every word of a text with a capital letter.

    Args:
        text: The text.
    """
    return string.capwords(text)


def reverse_text(text: str) -> str:
    """Write a text backwards.

    Args:
        text: The text.
    """
    return text[::-1]


def replace_text(text: str, old: str, new: str) -> str:
    """Replace a piece of a text by another, everywhere.

    Args:
        text: The text.
        old: What to look for.
        new: What to put in its place.
    """
    return text.replace(old, new)


def count_occurrences(text: str, piece: str) -> int:
    """Count how often a piece occurs in a text.

    Args:
        text: The text to look in.
        piece: What to look for.
    """
    return text.count(piece)


def longest_word(text: str) -> str:
    """The longest word of a text; the first if several are as long.

    Args:
        text: The text.
    """
    return max(text.split(), key=len)


def sort_words(text: str, order: Literal["ascending", "descending"] = "ascending") -> str:
    """Put the words of a text in alphabetical order.

    Args:
        text: The text.
        order: Alphabetical, or the other way round.
    """
    return " ".join(sorted(text.split(), reverse=order == "descending"))


def join_words(words: list[str], separator: str) -> str:
    """Join words to one text.

    Args:
        words: The words.
        separator: What to put between them.
    """
    return separator.join(words)


def split_text(text: str, separator: str) -> list[str]:
    """Cut a text into pieces wherever a separator stands.

    Args:
        text: The text.
        separator: Where to cut.
    """
    return text.split(separator)


def shorten_text(text: str, width: int) -> str:
    """Cut a text to a width, at the end of a word, with dots where something was left out.

    Args:
        text: The text.
        width: Most characters that may remain.
    """
    return textwrap.shorten(text, width, placeholder="...")


def text_similarity(first: str, second: str) -> float:
    """How alike two texts are, from 0 to 1.

    Args:
        first: One text.
        second: The other text.
    """
    return round(difflib.SequenceMatcher(None, first, second).ratio(), 4)


def rotate_letters(text: str) -> str:
    """Encode a text by moving every letter 13 places on (ROT13).

    Args:
        text: The text.
    """
    return codecs.encode(text, "rot13")


def sha256_of(text: str) -> str:
    """The SHA-256 digest of a text, in hexadecimal digits.

    Args:
        text: The text.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def checksum(text: str) -> int:
    """The CRC-32 checksum of a text.

    Args:
        text: The text.
    """
    return binascii.crc32(text.encode())


def to_base64(text: str) -> str:
    """Encode a text in Base64.

    Args:
        text: The text.
    """
    return base64.b64encode(text.encode()).decode()


def quote_for_url(text: str) -> str:
    """Encode a text so that it can stand in a web address.

    Args:
        text: The text.
    """
    return urllib.parse.quote(text)


def escape_html(text: str) -> str:
    """Encode the special characters of a text for HTML.

    Args:
        text: The text.
    """
    return html.escape(text)


def character_name(character: str) -> str:
    """The official Unicode name of a character.

    Args:
        character: A single character.
    """
    return unicodedata.name(character)


# JSON


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


# Statistics


def mean(numbers: list[float]) -> float:
    """The arithmetic mean, or average, of numbers.

    Args:
        numbers: The numbers.
    """
    return _tidy(statistics.fmean(numbers))


def median(numbers: list[float]) -> float:
    """The number in the middle of numbers once they are sorted.

    Args:
        numbers: The numbers.
    """
    return statistics.median(numbers)


def most_frequent(numbers: list[float]) -> float:
    """The number that occurs most often (the mode); the first if several do.

    Args:
        numbers: The numbers.
    """
    return Counter(numbers).most_common(1)[0][0]


def standard_deviation(numbers: list[float]) -> float:
    """The standard deviation of a sample.

    Args:
        numbers: At least two numbers.
    """
    return _tidy(statistics.stdev(numbers))


def variance(numbers: list[float]) -> float:
    """The variance of a sample.

    Args:
        numbers: At least two numbers.
    """
    return _tidy(statistics.variance(numbers))


def sum_of(numbers: list[float]) -> float:
    """The sum of a list of numbers.

    Args:
        numbers: The numbers.
    """
    return _tidy(math.fsum(numbers))


def largest_of(numbers: list[float]) -> float:
    """The largest of a list of numbers.

    Args:
        numbers: The numbers.
    """
    return max(numbers)


def smallest_of(numbers: list[float]) -> float:
    """The smallest of a list of numbers.

    Args:
        numbers: The numbers.
    """
    return min(numbers)


def sort_numbers(numbers: list[float], order: Literal["ascending", "descending"] = "ascending") -> list[float]:
    """Sort a list of numbers.

    Args:
        numbers: The numbers.
        order: From small to large, or from large to small.
    """
    return sorted(numbers, reverse=order == "descending")


def correlation(x: list[float], y: list[float]) -> float:
    """Pearson's correlation of two series of numbers, from -1 to 1.

    Args:
        x: The first series.
        y: The second series, as long as the first.
    """
    return round(statistics.correlation(x, y), 4)


# A database


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
    return _tidy(_single(f"SELECT SUM({_checked(table, column)}) FROM {table}"))


def average_column(table: str, column: str) -> float:
    """The average of a column of numbers of a table in the database.

    Args:
        table: Name of the table.
        column: Name of the column.
    """
    return _tidy(_single(f"SELECT AVG({_checked(table, column)}) FROM {table}"))


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


def _date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


def _tidy(number: float) -> float:
    """Without the noise of binary fractions, which no answer should depend on."""
    return round(number, 6) if isinstance(number, float) else number
