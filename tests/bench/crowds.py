"""Worlds to measure in, from a seed: events as arrays, the `Event` objects they stand for, and who looks where.

    cities(...)  events clustered like cities of very different size, some countryside; each viewer looks at a box round a
                 place in a city that holds about so many candidates, whatever the city's density
    square(...)  events spread evenly over one degree by one, each view a given share of it

Some events are never candidates (outside the window, rejected), a few are private. Ids sort as their numbers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from server.batching.scores.question import Question
from server.batching.scores.score import HOUR_MS
from server.core.event import Event
from server.protocol.values import Location, Viewport

Floats = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NOW_MS: Final = 1_790_000_000_000
EVENTS_A_CITY: Final = 3300
"""On average: more events mean more cities, not denser ones."""
CITY_DEGREES: Final = 0.12
COUNTRYSIDE: Final = 0.04
PLAIN_BYTES: Final = 525
"""What an event's JSON takes here without its description."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Events, by number. `counts` are scans, saves, RSVPs; a confidence that is not known is NaN."""

    latitude: Floats
    longitude: Floats
    start: Longs
    created: Longs
    counts: Longs
    confidence: Floats
    shown: Flags
    private: Flags

    def __len__(self) -> int:
        return len(self.latitude)

    def event(self, number: int, size: int = 600) -> Event:
        """One event whose JSON takes about `size` bytes."""
        confidence = float(self.confidence[number])
        scan, save, rsvp = self.counts[number].tolist()
        return Event(
            event_id(number),
            float(self.latitude[number]),
            float(self.longitude[number]),
            int(self.start[number]),
            title=f"Meeting {number} at the old market",
            emoji="🎪",
            description="A word or two about it. "[: max(0, size - PLAIN_BYTES)].ljust(max(0, size - PLAIN_BYTES), "x"),
            categories=("music", "food"),
            end_ms=None,
            timezone="Europe/Berlin",
            status="VERIFIED" if self.shown[number] else "REJECTED",
            counts=(scan, save, rsvp),
            confidence=None if np.isnan(confidence) else confidence,
            private=bool(self.private[number]),
            creator_id="owner" if self.private[number] else None,
            created_ms=int(self.created[number]),
            updated_ms=int(self.created[number]),
            version=number + 1,
        )

    def events(self) -> Iterator[Event]:
        """All of them."""
        return (self.event(number) for number in range(len(self)))


@dataclass(frozen=True, slots=True)
class Views:
    """Who looks where: boxes that cross no antimeridian, and where distances are measured from."""

    west: Floats
    south: Floats
    east: Floats
    north: Floats
    latitude: Floats
    longitude: Floats
    limit: int = 50

    def __len__(self) -> int:
        return len(self.west)

    def question(self, number: int) -> Question:
        """What viewer `number` asks."""
        box = Viewport(
            west=float(self.west[number]),
            south=float(self.south[number]),
            east=float(self.east[number]),
            north=float(self.north[number]),
        )
        home = Location(latitude=float(self.latitude[number]), longitude=float(self.longitude[number]))
        return Question(box, (), home, None, self.limit)

    def questions(self) -> list[Question]:
        """All of them."""
        return [self.question(number) for number in range(len(self))]

    def everywhere(self) -> Views:
        """The same viewers, each looking at the whole world."""
        one = np.ones(len(self))
        return Views(-180 * one, -90 * one, 180 * one, 90 * one, self.latitude, self.longitude, self.limit)


def event_id(number: int) -> str:
    """Its id."""
    return f"e{number:07d}"


def cities(seed: int, events: int, viewers: int, candidates: int) -> tuple[Crowd, Views]:
    """Events clustered like cities, and viewers in them who see about `candidates` each."""
    dice = np.random.default_rng(seed)
    count = max(1, events // EVENTS_A_CITY)
    weight = 1 / np.arange(8, count + 8) ** 0.6
    weight /= weight.sum()
    centre = np.column_stack([dice.uniform(-45, 62, count), dice.uniform(-170, 170, count)])
    home = dice.choice(count, events, p=weight)
    place = centre[home] + dice.normal(0, CITY_DEGREES, (events, 2)) * _stretch(centre[home])
    rural = dice.random(events) < COUNTRYSIDE
    place[rural] = np.column_stack([dice.uniform(-60, 70, rural.sum()), dice.uniform(-179, 179, rural.sum())])
    crowd = _crowd(dice, place)
    lives = dice.choice(count, viewers, p=weight)
    at = centre[lives] + dice.normal(0, 0.4 * CITY_DEGREES, (viewers, 2)) * _stretch(centre[lives])
    return crowd, _boxes_of(crowd, at, candidates)


def square(seed: int, events: int, viewers: int, share: float) -> tuple[Crowd, Views]:
    """Events spread over one degree by one, views of that share of it."""
    dice = np.random.default_rng(seed)
    crowd = _crowd(dice, np.column_stack([dice.uniform(52, 53, events), dice.uniform(13, 14, events)]))
    side = share**0.5
    south, west = dice.uniform(52, 53 - side, viewers), dice.uniform(13, 14 - side, viewers)
    return crowd, Views(west, south, west + side, south + side, south + side / 2, west + side / 2)


def _stretch(place: Floats) -> Floats:
    """Degrees of latitude and longitude that are about as long as one of latitude."""
    return np.column_stack([np.ones(len(place)), 1 / np.cos(np.radians(place[:, 0]))])


def _crowd(dice: np.random.Generator, place: Floats) -> Crowd:
    count = len(place)
    hours = np.where(dice.random(count) < 0.03, dice.uniform(800, 2000, count), dice.uniform(-30, 400, count))
    return Crowd(
        place[:, 0].copy(),
        place[:, 1].copy(),
        NOW_MS + (hours * HOUR_MS).astype(np.int64),
        NOW_MS - (dice.exponential(72, count) * HOUR_MS).astype(np.int64),
        dice.poisson((3.0, 0.8, 0.3), (count, 3)).astype(np.int64),
        np.where(dice.random(count) < 0.3, np.nan, dice.random(count).round(2)),
        dice.random(count) >= 0.02,
        dice.random(count) < 0.01,
    )


def _boxes_of(crowd: Crowd, at: Floats, candidates: int) -> Views:
    """A box round each place, as wide as needed: its half height is that of the nearest `candidates` there are about."""
    order = np.argsort(crowd.latitude, kind="stable")
    latitude, longitude = crowd.latitude[order], crowd.longitude[order]
    half = np.array([_half(latitude, longitude, lat, lon, candidates) for lat, lon in at.tolist()])
    wide = half / np.cos(np.radians(at[:, 0]))
    return Views(at[:, 1] - wide, at[:, 0] - half, at[:, 1] + wide, at[:, 0] + half, at[:, 0].copy(), at[:, 1].copy())


def _half(latitude: Floats, longitude: Floats, lat: float, lon: float, candidates: int) -> float:
    """Half the height of the box round a place that holds that many events (a few of them are no candidates)."""
    reach, wanted = 0.08, int(candidates * 1.06)
    while True:
        near = slice(*np.searchsorted(latitude, (lat - reach, lat + reach)).tolist())
        apart = np.maximum(np.abs(latitude[near] - lat), np.abs(longitude[near] - lon) * float(np.cos(np.radians(lat))))
        inside = apart[apart <= reach]
        if len(inside) >= wanted or reach > 3:
            return float(np.partition(inside, wanted - 1)[wanted - 1]) if len(inside) >= wanted else reach
        reach *= 2
