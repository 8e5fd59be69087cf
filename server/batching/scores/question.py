"""What one viewer asks: where it looks, which filters, who it is, how many. Pure tests of one event against it.

Equal questions have equal answers, so a question is a hashable value and the key under which a turn shares its work.
Access is tested first, on every path.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache
from zoneinfo import ZoneInfo

from server.batching.scores.score import Vector, chord2, chord2_of_km, unit_vector
from server.core.event import SHOWN, Event, visible_to
from server.protocol.values import MAX_MS, DateRange, Filter, Location, Viewport

DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Question:
    """`user` is None for an anonymous viewer; `limit` is how many events the view holds at most."""

    viewport: Viewport
    filters: tuple[Filter, ...] = ()
    location: Location | None = None
    user: str | None = None
    limit: int = 50

    def origin(self) -> Vector:
        """Where distances are measured from: the viewer's location, else the viewport's centre."""
        if self.location is not None:
            return unit_vector(self.location.latitude, self.location.longitude)
        return unit_vector(*centre(self.viewport))


@dataclass(frozen=True, slots=True)
class Window:
    """How far from now an event's start may lie, ms, both bounds inclusive."""

    past_ms: int
    ahead_ms: int

    def holds(self, start_ms: int, now_ms: int) -> bool:
        """Is an occurrence that starts then on the map now?"""
        return now_ms - self.past_ms <= start_ms <= now_ms + self.ahead_ms


def centre(viewport: Viewport) -> tuple[float, float]:
    """Latitude and longitude of the viewport's middle, across the antimeridian too."""
    width = viewport.east - viewport.west
    longitude = viewport.west + (width if width > 0 else width + 360) / 2
    return (viewport.south + viewport.north) / 2, longitude - 360 if longitude > 180 else longitude


def in_viewport(viewport: Viewport, latitude: float, longitude: float) -> bool:
    """Bounds inclusive; west > east crosses the antimeridian."""
    if not viewport.south <= latitude <= viewport.north:
        return False
    if viewport.west < viewport.east:
        return viewport.west <= longitude <= viewport.east
    return longitude >= viewport.west or longitude <= viewport.east


def passes(filters: tuple[Filter, ...], event: Event, start_ms: int, end_ms: int | None) -> bool:
    """Any of the filters, or none given."""
    return not filters or any(_matches(one, event, start_ms, end_ms) for one in filters)


def admits(question: Question, event: Event, start_ms: int, end_ms: int | None, window: Window, now_ms: int) -> bool:
    """Is the event a candidate for this question now? Access first."""
    return (
        visible_to(event, question.user)
        and event.status in SHOWN
        and in_viewport(question.viewport, event.latitude, event.longitude)
        and window.holds(start_ms, now_ms)
        and passes(question.filters, event, start_ms, end_ms)
    )


def _matches(one: Filter, event: Event, start_ms: int, end_ms: int | None) -> bool:
    return (
        (not one.status or event.status in one.status)
        and (one.categories is None or _categorised(one, event))
        and (one.location is None or _near(one, event))
        and (one.date_range is None or _overlaps(one.date_range, event.timezone, start_ms, end_ms))
        and (one.text is None or _says(one.text, event))
    )


def _categorised(one: Filter, event: Event) -> bool:
    wanted = one.categories
    assert wanted is not None
    included = not wanted.include or any(c in event.categories for c in wanted.include)
    return included and not any(c in event.categories for c in wanted.exclude)


def _near(one: Filter, event: Event) -> bool:
    around = one.location
    assert around is not None
    here = unit_vector(around.latitude, around.longitude)
    there = unit_vector(event.latitude, event.longitude)
    return chord2(here, there) <= chord2_of_km(around.radius / 1000)


def _overlaps(span: DateRange, zone: str | None, start_ms: int, end_ms: int | None) -> bool:
    begins = day_start_ms(span.start, zone) if isinstance(span.start, str) else span.start
    ends = day_start_ms(span.end, zone, after=True) - 1 if isinstance(span.end, str) else span.end
    last = start_ms if end_ms is None else end_ms
    return (begins is None or last >= begins) and (ends is None or start_ms <= ends)


@lru_cache(maxsize=4096)
def day_start_ms(day: str, zone: str | None, *, after: bool = False) -> int:
    """When a local day begins (`after`: when the next one does), UTC epoch ms."""
    date = dt.date.fromisoformat(day)
    if after and date == dt.date.max:
        return MAX_MS + 1
    local = dt.datetime.combine(date + DAY if after else date, dt.time(), tzinfo=ZoneInfo(zone or "UTC"))
    return round(local.timestamp() * 1000)


def _says(text: str, event: Event) -> bool:
    hay = haystack(event.title, event.categories, event.description)
    return all(word in hay for word in text.casefold().split())


@lru_cache(maxsize=65_536)
def haystack(title: str, categories: tuple[str, ...], description: str | None) -> str:
    """What a text filter searches, case folded; a newline keeps words of two fields apart."""
    return "\n".join((title, *categories, description or "")).casefold()
