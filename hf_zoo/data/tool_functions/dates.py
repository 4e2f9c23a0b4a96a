"""Dates of the calendar, as YYYY-MM-DD."""

import calendar
import datetime


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


def _date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)
