"""Days and months as integers: a day is days since 1970-01-01, a month 12 * year + (its number - 1). Pure."""

from __future__ import annotations

import datetime as dt
import re
from calendar import monthrange
from functools import lru_cache
from typing import Final

DAY_S: Final = 86_400
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()
_TEXT: Final = re.compile(r"(\d{4})-(0[1-9]|1[0-2])\Z")
YEARS: Final = (1970, 9990)


def day_of(date: dt.date) -> int:
    """A date as a day."""
    return date.toordinal() - _EPOCH


def date_of(day: int) -> dt.date:
    """A day as a date."""
    return dt.date.fromordinal(day + _EPOCH)


def month_of(day: int) -> int:
    """The month that a day is in."""
    date = date_of(day)
    return 12 * date.year + date.month - 1


@lru_cache(1024)
def days_of(month: int) -> tuple[int, int]:
    """A month's first day, and the first of the next."""
    return day_of(dt.date(month // 12, month % 12 + 1, 1)), day_of(dt.date((month + 1) // 12, (month + 1) % 12 + 1, 1))


@lru_cache(1 << 14)
def later(day: int, months: int) -> int:
    """The same day some calendar months later, or the last of that month: 31 August and six months is 28 or 29 February."""
    date = date_of(day)
    month = 12 * date.year + date.month - 1 + months
    year, index = month // 12, month % 12 + 1
    return day_of(dt.date(year, index, min(date.day, monthrange(year, index)[1])))


def month_named(text: str) -> int:
    """The month of a text like 2027-03; ValueError where it is none."""
    found = _TEXT.match(text)
    if found is None or not YEARS[0] <= int(found[1]) <= YEARS[1]:
        raise ValueError(f"a month is written like 2027-03, not {text[:40]!r}")
    return 12 * int(found[1]) + int(found[2]) - 1


def name_of(month: int) -> str:
    """A month as text, like 2027-03."""
    return f"{month // 12:04d}-{month % 12 + 1:02d}"
