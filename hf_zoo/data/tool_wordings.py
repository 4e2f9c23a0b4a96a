"""How tasks of `python-tools` ask for a tool, and what values they ask it with."""

import datetime
import json
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tool_functions import TABLES

_WORDS = (
    "amber anchor autumn basket bridge candle canyon castle cedar cloud copper coral desert dragon eagle ember engine "
    "fabric falcon feather forest garden glacier granite harbor hazel island ivory jacket jasmine jungle kettle "
    "ladder lantern lemon linen magnet maple marble meadow mirror mountain needle nutmeg ocean olive orchard paper "
    "pebble pepper pilot planet pocket prairie quartz rabbit raven ribbon river saddle sailor shadow silver "
    "spring stone sugar summer temple thunder timber tulip tunnel umbrella valley velvet violet walnut whisper willow winter"
).split()
_SYMBOLS = "&%#@*+=<>?!$~^|"

Draw = Callable[[np.random.Generator, dict[str, Any]], Any]


@dataclass(frozen=True)
class Sort:
    """What a parameter takes.

    Args:
        draw: a value, given random numbers and the call's arguments so far.
        accepts: sorts of results that may stand in its place.
        quoted: whether the task shows it in quotation marks.
    """

    draw: Draw
    accepts: tuple[str, ...] = ()
    quoted: bool = False


@dataclass(frozen=True)
class Wording:
    """How a task asks for a tool.

    Args:
        kind: of the task.
        returns: sort of the result.
        sorts: of the parameters, in the order in which they are drawn.
        phrases: to follow "please"; those that leave an optional parameter out ask for its default.
    """

    kind: str
    returns: str
    sorts: dict[str, Sort]
    phrases: tuple[str, ...]


def _integer(low: int, high: int) -> Draw:
    return lambda rng, _: int(rng.integers(low, high + 1))


def _number(rng: np.random.Generator, _: dict[str, Any]) -> float:
    return int(rng.integers(2, 500)) if rng.random() < 0.5 else round(float(rng.uniform(1, 100)), 2)


def _numbers(rng: np.random.Generator, _: dict[str, Any]) -> list[int]:
    numbers = rng.integers(1, 60, rng.integers(4, 8)).tolist()
    return [*numbers, numbers[0]]  # so that one of them is the most frequent


def _text(rng: np.random.Generator, _: dict[str, Any]) -> str:
    return " ".join(rng.choice(_WORDS, rng.integers(3, 7), replace=False))


def _word_of(parameter: str) -> Draw:
    return lambda rng, values: str(rng.choice(values[parameter].split()))


def _markup(rng: np.random.Generator, _: dict[str, Any]) -> str:
    first, second, third = rng.choice(_WORDS, 3, replace=False)
    return str(
        rng.choice([f"{first} & {second} < {third}", f"<b>{first}</b> {second} & {third}", f"{first} > {second}"])
    )


def _date(rng: np.random.Generator, _: dict[str, Any]) -> str:
    return (datetime.date(1950, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 36500)))).isoformat()


def _later_date(rng: np.random.Generator, values: dict[str, Any]) -> str:
    start = datetime.date.fromisoformat(values["start"])
    return (start + datetime.timedelta(days=int(rng.integers(1, 2000)))).isoformat()


def _document(rng: np.random.Generator, _: dict[str, Any]) -> str:
    keys = rng.choice(_WORDS, rng.integers(2, 5), replace=False).tolist()
    return json.dumps({key: int(rng.integers(1, 1000)) for key in keys})


def _key(rng: np.random.Generator, values: dict[str, Any]) -> str:
    return str(rng.choice(list(json.loads(values["document"]))))


def _column(rng: np.random.Generator, values: dict[str, Any]) -> str:
    return str(rng.choice(TABLES[values["table"]][0][1:]))


def _limit(rng: np.random.Generator, values: dict[str, Any]) -> float:
    columns, rows = TABLES[values["table"]]
    return rows[int(rng.integers(len(rows)))][columns.index(values["column"])]


NUMBER = Sort(_number, ("number", "integer"))
INTEGER = Sort(_integer(2, 900), ("integer",))
SMALL = Sort(_integer(2, 9))
DAYS = Sort(_integer(3, 900), ("integer",))
YEAR = Sort(_integer(1900, 2100))
NUMBERS = Sort(_numbers, ("numbers",))
DATE = Sort(_date, ("date",))
TEXT = Sort(_text, ("text",), quoted=True)
WORD = Sort(lambda rng, _: str(rng.choice(_WORDS)), quoted=True)
WORDS = Sort(lambda rng, _: rng.choice(_WORDS, rng.integers(2, 6), replace=False).tolist(), ("words",))
DOCUMENT = Sort(_document, ("json",), quoted=True)
KEY = Sort(_key, quoted=True)
TABLE = Sort(lambda rng, _: str(rng.choice(list(TABLES))))
COLUMN = Sort(_column)
ORDER = Sort(lambda rng, _: str(rng.choice(["ascending", "descending"])))
SYMBOL = Sort(lambda rng, _: str(rng.choice(list(_SYMBOLS))), quoted=True)

_PAIR = {"a": NUMBER, "b": NUMBER}
_INTEGERS = {"a": INTEGER, "b": INTEGER}
_COLUMN_OF = {"table": TABLE, "column": COLUMN}


def _arithmetic(returns: str, sorts: dict[str, Sort], *phrases: str) -> Wording:
    return Wording("arithmetic", returns, sorts, phrases)


def _dates(returns: str, sorts: dict[str, Sort], *phrases: str) -> Wording:
    return Wording("dates", returns, sorts, phrases)


def _texts(returns: str, sorts: dict[str, Sort], *phrases: str) -> Wording:
    return Wording("text", returns, sorts, phrases)


def _jsons(returns: str, sorts: dict[str, Sort], *phrases: str) -> Wording:
    return Wording("json", returns, sorts, phrases)


def _statistics(returns: str, *phrases: str, **sorts: Sort) -> Wording:
    return Wording("statistics", returns, {"numbers": NUMBERS, **sorts}, phrases)


def _sqlite(returns: str, sorts: dict[str, Sort], *phrases: str) -> Wording:
    return Wording("sqlite", returns, sorts, phrases)


WORDINGS: dict[str, Wording] = {
    "add": _arithmetic(
        *("number", _PAIR),
        *("add {a} and {b}", "work out {a} plus {b}", "find the sum of {a} and {b}", "increase {a} by {b}"),
    ),
    "subtract": _arithmetic(
        *("number", _PAIR),
        *("subtract {b} from {a}", "work out {a} minus {b}", "take {b} away from {a}", "decrease {a} by {b}"),
    ),
    "multiply": _arithmetic(
        *("number", _PAIR),
        *("multiply {a} by {b}", "work out {a} times {b}", "find the product of {a} and {b}"),
    ),
    "divide": _arithmetic(
        *("number", _PAIR),
        *("divide {a} by {b}", "work out the quotient of {a} and {b}", "find {a} divided by {b}"),
    ),
    "power": _arithmetic(
        *("number", {"base": Sort(_integer(2, 30), ("integer",)), "exponent": SMALL}),
        *("raise {base} to the power {exponent}", "find {base} to the power of {exponent}"),
    ),
    "remainder": _arithmetic(
        *("integer", _INTEGERS),
        *("find the remainder of {a} divided by {b}", "work out {a} modulo {b}", "say what is left of {a} over {b}"),
    ),
    "square_root": _arithmetic(
        *("number", {"number": NUMBER}),
        *("take the square root of {number}", "find the square root of {number}", "work out the root of {number}"),
    ),
    "absolute_value": _arithmetic(
        *("number", {"number": Sort(_integer(-900, -2), ("number", "integer"))}),
        *("give the absolute value of {number}", "drop the sign of {number}", "find the magnitude of {number}"),
    ),
    "round_number": _arithmetic(
        "number",
        {"number": Sort(lambda rng, _: round(float(rng.uniform(1, 900)), 6), ("number",)), "digits": SMALL},
        *("round {number} to {digits} digits", "round {number} to {digits} places after the point"),
        *("round {number} to a whole number", "round {number}"),
    ),
    "greatest_common_divisor": _arithmetic(
        *("integer", _INTEGERS),
        *("find the greatest common divisor of {a} and {b}", "say which largest number divides both {a} and {b}"),
    ),
    "least_common_multiple": _arithmetic(
        *("integer", _INTEGERS),
        *("find the least common multiple of {a} and {b}", "say which smallest number both {a} and {b} divide"),
    ),
    "factorial": _arithmetic(
        *("integer", {"number": Sort(_integer(2, 20), ("integer",))}),
        *("find the factorial of {number}", "multiply all numbers from 1 to {number}", "work out {number} factorial"),
    ),
    "count_combinations": _arithmetic(
        *("integer", {"total": Sort(_integer(9, 60), ("integer",)), "chosen": SMALL}),
        *(
            "count the ways to choose {chosen} of {total} things",
            "say how many combinations of {chosen} in {total} are",
        ),
    ),
    "percent_of": _arithmetic(
        *("number", {"percent": Sort(_integer(1, 99)), "number": NUMBER}),
        *(
            "find {percent} percent of {number}",
            "work out {percent}% of {number}",
            "take {percent} percent of {number}",
        ),
    ),
    "hypotenuse": _arithmetic(
        *("number", _PAIR),
        *("find the hypotenuse of a right triangle with sides {a} and {b}", "apply Pythagoras to {a} and {b}"),
        "get the longest side of the right triangle whose short sides are {a} and {b}",
    ),
    "to_binary": _arithmetic(
        *("text", {"number": INTEGER}),
        *("write {number} in binary", "convert {number} to binary digits", "give the binary form of {number}"),
    ),
    "to_hexadecimal": _arithmetic(
        *("text", {"number": INTEGER}),
        *(
            "write {number} in hexadecimal",
            "convert {number} to base sixteen",
            "give the hexadecimal form of {number}",
        ),
    ),
    "days_between": _dates(
        *("integer", {"start": DATE, "end": Sort(_later_date)}),
        *("count the days from {start} to {end}", "say how many days lie between {start} and {end}"),
    ),
    "add_days": _dates(
        *("date", {"date": DATE, "days": DAYS}),
        *("add {days} days to {date}", "find the date {days} days after {date}", "go {days} days on from {date}"),
    ),
    "subtract_weeks": _dates(
        *("date", {"date": DATE, "weeks": Sort(_integer(2, 300), ("integer",))}),
        *("go back {weeks} weeks from {date}", "find the date {weeks} weeks before {date}"),
    ),
    "weekday_name": _dates(
        *("text", {"date": DATE}),
        *("say on which weekday {date} falls", "find the day of the week of {date}", "name the weekday of {date}"),
    ),
    "day_of_year": _dates(
        *("integer", {"date": DATE}),
        *("say which day of its year {date} is", "find the day of the year of {date}"),
    ),
    "iso_week": _dates(
        *("integer", {"date": DATE}),
        *("find the calendar week of {date}", "say in which week of the year {date} lies"),
    ),
    "is_leap_year": _dates(
        *("boolean", {"year": YEAR}),
        *("say whether {year} is a leap year", "check if {year} has a 29th of February", "tell if {year} leaps"),
    ),
    "days_in_month": _dates(
        *("integer", {"year": YEAR, "month": Sort(_integer(1, 12))}),
        *("say how many days month {month} of {year} has", "count the days of month {month} in the year {year}"),
    ),
    "last_day_of_month": _dates(
        *("date", {"date": DATE}),
        *("find the last day of the month of {date}", "say on which date the month of {date} ends"),
    ),
    "count_words": _texts(
        *("integer", {"text": TEXT}),
        *("count the words in {text}", "say how many words {text} has", "find the number of words of {text}"),
    ),
    "count_letters": _texts(
        *("integer", {"text": TEXT}),
        *("count the letters in {text}", "say how many letters {text} has", "find the number of letters of {text}"),
    ),
    "to_upper": _texts(
        *("text", {"text": TEXT}),
        *("write {text} in capital letters", "put {text} in upper case", "make {text} all capitals"),
    ),
    "to_title": _texts(
        *("text", {"text": TEXT}),
        *("begin each word of {text} with a capital", "put {text} in title case", "write {text} as a title"),
    ),
    "reverse_text": _texts(
        *("text", {"text": TEXT}),
        *("write {text} backwards", "reverse {text}", "turn {text} around"),
    ),
    "replace_text": _texts(
        *("text", {"text": TEXT, "old": Sort(_word_of("text"), quoted=True), "new": WORD}),
        *("replace {old} by {new} in {text}", "put {new} in the place of {old} in {text}"),
        "swap every {old} in {text} for {new}",
    ),
    "count_occurrences": _texts(
        "integer",
        {"text": TEXT, "piece": Sort(lambda rng, _: str(rng.choice(list(string.ascii_lowercase))), quoted=True)},
        *("count how often {piece} occurs in {text}", "say how many times {text} has {piece}"),
    ),
    "longest_word": _texts(
        *("text", {"text": TEXT}),
        *("find the longest word of {text}", "say which word in {text} is the longest"),
    ),
    "sort_words": _texts(
        *("text", {"text": TEXT, "order": ORDER}),
        *("sort the words of {text} in {order} order", "put the words of {text} in {order} alphabetical order"),
        *("sort the words of {text}", "put the words of {text} in alphabetical order"),
    ),
    "join_words": _texts(
        *("text", {"words": WORDS, "separator": SYMBOL}),
        *("join {words} with {separator}", "put {words} together with {separator} between them"),
    ),
    "split_text": _texts(
        "words",
        {
            "text": Sort(
                lambda rng, _: str(rng.choice(list(",;/:"))).join(rng.choice(_WORDS, 4, replace=False)), quoted=True
            ),
            "separator": Sort(lambda rng, values: next(c for c in values["text"] if c in ",;/:"), quoted=True),
        },
        *(
            "split {text} at {separator}",
            "cut {text} into pieces at every {separator}",
            "break {text} up at {separator}",
        ),
    ),
    "shorten_text": _texts(
        *("text", {"text": TEXT, "width": Sort(_integer(14, 24))}),
        *("shorten {text} to {width} characters", "cut {text} to a width of {width}"),
    ),
    "text_similarity": _texts(
        *("number", {"first": TEXT, "second": TEXT}),
        *("say how similar {first} and {second} are", "compare {first} with {second}"),
    ),
    "rotate_letters": _texts(
        *("text", {"text": TEXT}),
        *("encode {text} in ROT13", "rotate the letters of {text} by 13", "move each letter of {text} 13 places on"),
    ),
    "sha256_of": _texts(
        *("text", {"text": TEXT}),
        *("find the SHA-256 of {text}", "hash {text} with SHA-256", "give the SHA-256 digest of {text}"),
    ),
    "checksum": _texts(
        *("integer", {"text": TEXT}),
        *("find the checksum of {text}", "work out the CRC-32 of {text}"),
    ),
    "to_base64": _texts(
        *("text", {"text": TEXT}),
        *("encode {text} in Base64", "give the Base64 form of {text}", "turn {text} into Base64"),
    ),
    "quote_for_url": _texts(
        *("text", {"text": TEXT}),
        *("encode {text} for a web address", "quote {text} for a URL", "make {text} safe for a link"),
    ),
    "escape_html": _texts(
        *("text", {"text": Sort(_markup, ("text",), quoted=True)}),
        *("escape {text} for HTML", "make {text} safe for a web page", "encode the special characters of {text}"),
    ),
    "character_name": _texts(
        *(
            "text",
            {
                "character": Sort(
                    lambda rng, _: chr(int(rng.choice([*range(945, 970), *range(8592, 8600)]))), ("",), True
                )
            },
        ),
        *("give the Unicode name of {character}", "say what the character {character} is called"),
    ),
    "json_value": _jsons(
        *("integer", {"document": DOCUMENT, "key": KEY}),
        *("read {key} from {document}", "get the value of {key} in {document}", "say what {document} has under {key}"),
    ),
    "json_keys": _jsons(
        *("words", {"document": DOCUMENT}),
        *("list the keys of {document}", "say which keys {document} has", "find all keys in {document}"),
    ),
    "json_size": _jsons(
        *("integer", {"document": DOCUMENT}),
        *("count the entries of {document}", "say how many keys {document} has"),
    ),
    "json_without": _jsons(
        *("json", {"document": DOCUMENT, "key": KEY}),
        *("remove {key} from {document}", "delete the key {key} of {document}", "drop {key} from {document}"),
    ),
    "json_with": _jsons(
        *("json", {"document": DOCUMENT, "key": WORD, "value": NUMBER}),
        *("set {key} to {value} in {document}", "put {value} under {key} in {document}"),
    ),
    "json_merge": _jsons(
        *("json", {"first": DOCUMENT, "second": DOCUMENT}),
        *("merge {first} with {second}", "combine {first} and {second}", "put {first} and {second} into one object"),
    ),
    "mean": _statistics(
        "number",
        *("find the mean of {numbers}", "average {numbers}", "work out the average of {numbers}"),
    ),
    "median": _statistics(
        "number",
        *("find the median of {numbers}", "say which number is in the middle of {numbers}"),
    ),
    "most_frequent": _statistics(
        "number",
        *("find the mode of {numbers}", "say which number is the most frequent in {numbers}"),
    ),
    "standard_deviation": _statistics(
        "number",
        *("find the standard deviation of {numbers}", "work out the standard deviation of the sample {numbers}"),
    ),
    "variance": _statistics(
        "number",
        *("find the variance of {numbers}", "work out the variance of the sample {numbers}"),
    ),
    "sum_of": _statistics(
        "number",
        *("sum up {numbers}", "find the total of {numbers}", "add up all of {numbers}"),
    ),
    "largest_of": _statistics(
        "number",
        *(
            "find the largest of {numbers}",
            "say which number in {numbers} is the greatest",
            "take the most of {numbers}",
        ),
    ),
    "smallest_of": _statistics(
        "number",
        *("find the smallest of {numbers}", "say which number in {numbers} is the least"),
    ),
    "sort_numbers": _statistics(
        "numbers",
        *("sort {numbers} in {order} order", "put {numbers} in {order} order", "sort {numbers}"),
        order=ORDER,
    ),
    "correlation": Wording(
        "statistics",
        "number",
        {
            "x": NUMBERS,
            "y": Sort(lambda rng, values: rng.integers(1, 60, len(values["x"])).tolist()),
        },
        ("find the correlation of {x} and {y}", "say how {x} and {y} correlate"),
    ),
    "list_columns": _sqlite(
        *("words", {"table": TABLE}),
        *("list the columns of the table {table}", "say which columns {table} has in the database"),
    ),
    "count_rows": _sqlite(
        *("integer", {"table": TABLE}),
        *("count the rows of the table {table}", "say how many {table} are in the database"),
    ),
    "sum_column": _sqlite(
        *("number", _COLUMN_OF),
        *("sum up the column {column} of {table}", "find the total {column} of all {table} in the database"),
    ),
    "average_column": _sqlite(
        *("number", _COLUMN_OF),
        *("average the column {column} of {table}", "find the average {column} of all {table} in the database"),
    ),
    "largest_in_column": _sqlite(
        *("number", _COLUMN_OF),
        *("find the largest {column} in the table {table}", "say how high {column} goes in the table {table}"),
    ),
    "smallest_in_column": _sqlite(
        *("number", _COLUMN_OF),
        *("find the smallest {column} in the table {table}", "say how low {column} goes in the table {table}"),
    ),
    "look_up": _sqlite(
        "number",
        {
            "table": TABLE,
            "name": Sort(lambda rng, values: str(rng.choice([row[0] for row in TABLES[values["table"]][1]]))),
            "column": COLUMN,
        },
        *("look up the {column} of {name} in {table}", "find {column} for {name} in the table {table}"),
    ),
    "count_above": _sqlite(
        *("integer", {**_COLUMN_OF, "limit": Sort(_limit)}),
        *("count the {table} whose {column} is above {limit}", "say how many {table} have more {column} than {limit}"),
    ),
    "names_in": _sqlite(
        *("words", {"table": TABLE}),
        *("list the names of all {table} in the database", "say what the {table} in the database are called"),
    ),
}
