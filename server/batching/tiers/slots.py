"""Where a slot fits into a day: local hours, whole quarters, nothing else at that time. Pure.

A time that is taken, too early, or reaches into a clock change moves on to the next quarter that is free; past the evening
it goes on from the morning. So a slot always has the length that was drawn, and a day is only given up when it is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from server.batching.tiers.chance import pick
from server.batching.tiers.months import DAY_S
from server.batching.tiers.rules import DURATIONS, HOURS, Kind
from server.batching.tiers.zones import instant, offset_s

Instants: TypeAlias = tuple[int, int]
"""Half-open."""
QUARTER: Final = 15
_MINUTES: Final = (DURATIONS[0],) * 45 + (DURATIONS[1],) * 40 + (DURATIONS[2],) * 15
"""One for each percent."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A slot that stays. `day` is its local day."""

    kind: Kind
    city: int | None
    day: int
    starts: int
    ends: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that is offered."""

    kind: Kind
    minutes: int
    city: int | None
    timezone: str
    day: int
    starts: int
    ends: int
    price_cents: int


@dataclass(frozen=True, slots=True)
class Place:
    """What slots of one kind at one place have in common. `prices` by minutes; nothing begins before `earliest`."""

    kind: Kind
    timezone: str
    prices: Mapping[int, int]
    earliest: int
    city: int | None = None


class Agenda:
    """A person's time: what is taken, and the slots that are offered in the rest of it."""

    __slots__ = ("_busy", "slots")

    def __init__(self, kept: Iterable[Kept]) -> None:
        self._busy: list[Instants] = [(slot.starts, slot.ends) for slot in kept]
        self.slots: list[Slot] = []

    def offer(self, place: Place, day: int, length: int, hour: int) -> bool:
        """A slot of the drawn length, at the drawn hour or the next that is free; False when the day has none."""
        minutes = _MINUTES[pick(length, 0, 99)]
        found = self._fit(place, day, minutes, hour)
        if found is None:
            return False
        self._busy.append(found)
        self.slots.append(Slot(place.kind, minutes, place.city, place.timezone, day, *found, place.prices[minutes]))
        return True

    def _fit(self, place: Place, day: int, minutes: int, hour: int) -> Instants | None:
        opens, shuts = HOURS[place.kind]
        many = (60 * (shuts - opens) - minutes) // QUARTER + 1
        drawn = pick(hour, 0, many - 1)
        steady = offset_s(place.timezone, day)
        for step in range(many):
            minute = 60 * opens + QUARTER * ((drawn + step) % many)
            begins = (
                day * DAY_S + 60 * minute - steady if steady is not None else _unsteady(place, day, minute, minutes)
            )
            if begins is not None and begins >= place.earliest and self._free(begins, begins + 60 * minutes):
                return begins, begins + 60 * minutes
        return None

    def _free(self, begins: int, ends: int) -> bool:
        for taken_from, taken_to in self._busy:  # noqa: SIM110  any() with a generator takes twice as long
            if begins < taken_to and taken_from < ends:
                return False
        return True


def _unsteady(place: Place, day: int, minute: int, minutes: int) -> int | None:
    """The instant of a local time on a day with a clock change; None where the slot would reach into the change."""
    begins, ends = instant(place.timezone, day, minute), instant(place.timezone, day, minute + minutes)
    return begins if begins is not None and ends == begins + 60 * minutes else None
