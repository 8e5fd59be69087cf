"""The parts that messages share: viewport, location, filters. Strict: a number is a number, not a text that looks like one.

Filters: a list is OR, the fields of one filter are AND, an empty list is everything accessible. An empty `include`,
`exclude` or `status` asks for nothing in particular, that is: does not filter.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from server.core.event import Status

Longitude = Annotated[float, Field(strict=True, ge=-180, le=180, allow_inf_nan=False)]
Latitude = Annotated[float, Field(strict=True, ge=-90, le=90, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character can't be stored")
    return text


Identifier = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128), AfterValidator(_storable)]
Text = Annotated[str, StringConstraints(strict=True, max_length=200)]

MAX_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: what a datetime can hold."""
MIN_MS: Final = -62_135_596_800_000
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def to_ms(value: object) -> int:
    """Epoch ms of an ISO 8601 text with offset or Z, or of a number that is epoch ms already; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("a time is ISO 8601 with offset or Z, or epoch milliseconds")
    ms = _parse_iso(value) if isinstance(value, str) else _whole(value)
    if not MIN_MS <= ms <= MAX_MS:
        raise ValueError("a time lies between the years 1 and 9999")
    return ms


def to_iso(ms: int) -> str:
    """ISO 8601 in UTC with milliseconds and Z."""
    day, rest = divmod(ms, 86_400_000)
    seconds, rest = divmod(rest, 1000)
    minutes, second = divmod(seconds, 60)
    return f"{_day(day)}T{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{rest:03d}Z"


@lru_cache(maxsize=4096)
def _day(day: int) -> str:
    """The date so many days after the epoch; events crowd on few of them."""
    return (_EPOCH.date() + dt.timedelta(days=day)).isoformat()


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _whole(value: int | float) -> int:
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("a time is finite")
    return int(value)


def _parse_iso(text: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not ISO 8601 (2026-05-01T18:00:00Z)") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text[:40]!r} has no offset; write Z or +02:00")
    return round((moment - _EPOCH) / dt.timedelta(milliseconds=1))


def _moment_or_day(value: object) -> int | str:
    """Epoch ms, or a bare date kept as text (the local day of each event)."""
    if isinstance(value, str) and _DATE.fullmatch(value):
        dt.date.fromisoformat(value)
        return value
    return to_ms(value)


Moment = Annotated[int, BeforeValidator(to_ms), Field(json_schema_extra={"type": ["string", "integer"]})]
MomentOrDay = Annotated[int | str, BeforeValidator(_moment_or_day)]


class Wire(BaseModel):
    """Anything on the wire: camelCase outside, unknown fields ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Location(Wire):
    """A point, WGS 84 degrees."""

    latitude: Latitude
    longitude: Longitude


class Viewport(Wire):
    """What a viewer looks at, degrees, bounds inclusive; west > east crosses the antimeridian."""

    west: Longitude
    south: Latitude
    east: Longitude
    north: Latitude

    @model_validator(mode="after")
    def _has_area(self) -> Viewport:
        if self.south >= self.north:
            raise ValueError(f"south ({self.south}) must be below north ({self.north})")
        if self.west == self.east:
            raise ValueError(f"west and east are both {self.west}; a whole turn is -180 to 180")
        return self


class DateRange(Wire):
    """The event's [start, end] must overlap it; a side may be open; a bare date is that local day of the event."""

    start: MomentOrDay | None = None
    end: MomentOrDay | None = None

    @model_validator(mode="after")
    def _in_order(self) -> DateRange:
        start, end = self.start, self.end
        both_days = isinstance(start, str) and isinstance(end, str) and start > end
        if both_days or (isinstance(start, int) and isinstance(end, int) and start > end):
            raise ValueError("dateRange.start must not be after dateRange.end")
        return self


class Around(Wire):
    """Within `radius` metres of a point."""

    latitude: Latitude
    longitude: Longitude
    radius: Annotated[float, Field(strict=True, ge=0, le=30_000_000, allow_inf_nan=False)]


class Categories(Wire):
    """At least one of `include` (when given) and none of `exclude`."""

    include: tuple[Text, ...] = Field(default=(), max_length=100)
    exclude: tuple[Text, ...] = Field(default=(), max_length=100)


class Filter(Wire):
    """All of what is given must hold."""

    date_range: DateRange | None = None
    location: Around | None = None
    categories: Categories | None = None
    status: tuple[Status, ...] = Field(default=(), max_length=4)
    text: Text | None = None


def _at_most(limit: int) -> AfterValidator:
    def within(filters: tuple[Filter, ...]) -> tuple[Filter, ...]:
        if len(filters) > limit:
            raise ValueError(f"at most {limit} filters, not {len(filters)}")
        return filters

    return AfterValidator(within)


MAX_FILTERS: Final = 20
Filters = Annotated[tuple[Filter, ...], _at_most(MAX_FILTERS)]
Detail = Literal["full", "delta"]
