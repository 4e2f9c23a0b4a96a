"""How tasks ask for the tools of `tool_functions.dates`."""

import datetime
from typing import Any

import numpy as np

from .sorts import Sort, Wording, integer, wordings_of


def _date(rng: np.random.Generator, _: dict[str, Any]) -> str:
    return (datetime.date(1950, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 36500)))).isoformat()


def _later_date(rng: np.random.Generator, values: dict[str, Any]) -> str:
    start = datetime.date.fromisoformat(values["start"])
    return (start + datetime.timedelta(days=int(rng.integers(1, 2000)))).isoformat()


def _time(rng: np.random.Generator, _: dict[str, Any]) -> str:
    return f"{rng.integers(24):02d}:{rng.integers(60):02d}"


DAYS = Sort(integer(3, 900), ("integer",))
YEAR = Sort(integer(1900, 2100))
DATE = Sort(_date, ("date",))

_asked = wordings_of("dates")

WORDINGS: dict[str, Wording] = {
    "days_between": _asked(
        *("integer", {"start": DATE, "end": Sort(_later_date)}),
        *("count the days from {start} to {end}", "say how many days lie between {start} and {end}"),
    ),
    "add_days": _asked(
        *("date", {"date": DATE, "days": DAYS}),
        *("add {days} days to {date}", "find the date {days} days after {date}", "go {days} days on from {date}"),
    ),
    "subtract_weeks": _asked(
        *("date", {"date": DATE, "weeks": Sort(integer(2, 300), ("integer",))}),
        *("go back {weeks} weeks from {date}", "find the date {weeks} weeks before {date}"),
    ),
    "weekday_name": _asked(
        *("text", {"date": DATE}),
        *("say on which weekday {date} falls", "find the day of the week of {date}", "name the weekday of {date}"),
    ),
    "day_of_year": _asked(
        *("integer", {"date": DATE}),
        *("say which day of its year {date} is", "find the day of the year of {date}"),
    ),
    "iso_week": _asked(
        *("integer", {"date": DATE}),
        *("find the calendar week of {date}", "say in which week of the year {date} lies"),
    ),
    "is_leap_year": _asked(
        *("boolean", {"year": YEAR}),
        *("say whether {year} is a leap year", "check if {year} has a 29th of February", "tell if {year} leaps"),
    ),
    "days_in_month": _asked(
        *("integer", {"year": YEAR, "month": Sort(integer(1, 12))}),
        *("say how many days month {month} of {year} has", "count the days of month {month} in the year {year}"),
    ),
    "last_day_of_month": _asked(
        *("date", {"date": DATE}),
        *("find the last day of the month of {date}", "say on which date the month of {date} ends"),
    ),
    "add_months": _asked(
        *("date", {"date": DATE, "months": Sort(integer(2, 60), ("integer",))}),
        *("go {months} months on from {date}", "find the date {months} months after {date}"),
    ),
    "earlier_date": _asked(
        *("date", {"first": DATE, "second": DATE}),
        *("find the earlier of {first} and {second}", "say which date is earlier, {first} or {second}"),
    ),
    "quarter_of": _asked(
        *("integer", {"date": DATE}),
        *("find the quarter of {date}", "say in which quarter of the year {date} lies"),
    ),
    "month_name": _asked(
        *("text", {"date": DATE}),
        *("name the month of {date}", "say what the month of {date} is called"),
    ),
    "minutes_between": _asked(
        *("integer", {"start": Sort(_time), "end": Sort(_time)}),
        *("count the minutes from {start} to {end}", "say how many minutes lie between {start} and {end}"),
    ),
}
