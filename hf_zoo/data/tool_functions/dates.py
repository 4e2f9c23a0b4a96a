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


def add_months(months: int, date: str) -> str:
    """The date that lies some months after a date, or the end of that month where it is shorter.

    Args:
        months: How many months later.
        date: The date to start from, as YYYY-MM-DD.
    """
    day = _date(date)
    years, month = divmod(day.month - 1 + months, 12)
    last = calendar.monthrange(day.year + years, month + 1)[1]
    return day.replace(year=day.year + years, month=month + 1, day=min(day.day, last)).isoformat()


def earlier_date(first: str, second: str) -> str:
    """The earlier of two dates.

    Args:
        first: One date, as YYYY-MM-DD.
        second: The other date, as YYYY-MM-DD.
    """
    return min(_date(first), _date(second)).isoformat()


def quarter_of(date: str) -> int:
    """The quarter of the year that a date lies in, from 1 to 4.

    Args:
        date: The date, as YYYY-MM-DD.
    """
    return (_date(date).month + 2) // 3


def month_name(date: str) -> str:
    """The name of the month of a date.

    Args:
        date: The date, as YYYY-MM-DD.
    """
    names = "January February March April May June July August September October November December".split()
    return names[_date(date).month - 1]


def minutes_between(start: str, end: str) -> int:
    """Count the minutes from one time of the day to another.

    Args:
        start: The time at the beginning, as HH:MM.
        end: The time at the end, as HH:MM.
    """
    first, last = (datetime.datetime.strptime(time, "%H:%M") for time in (start, end))
    return round((last - first).total_seconds()) // 60


def _date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)
