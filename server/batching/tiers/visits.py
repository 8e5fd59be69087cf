"""Where a person goes on which day: cooldowns, and the days that its rotations leave for visits. Pure.

A visit is one local day in one city, with all its slots on that day. So a city is never visited twice within its cooldown,
not within one rotation either, and no day has two cities. A cooldown holds both ways: a month planned after a later one
keeps away from the visits of that one too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from server.batching.tiers.chance import numbers, pick, within
from server.batching.tiers.months import days_of, later
from server.batching.tiers.rotations import Rotation, allowance
from server.batching.tiers.rules import CITIES_MOST, COOLDOWN_MONTHS, City


@dataclass(frozen=True, slots=True)
class Visit:
    """One local day in one city, and the months until it may be visited again."""

    city: int
    day: int
    months: int


def cooldown_months(seed: bytes, key: str, city: int) -> int:
    """How long a person stays away from a city that it has visited."""
    return within(numbers(seed, key, "cooldown", city)[0], COOLDOWN_MONTHS)


class Travels:
    """All visits of a person that a month has to respect, and those it adds."""

    __slots__ = ("_key", "_seed", "_visited", "added")

    def __init__(self, seed: bytes, key: str, visits: Iterable[Visit]) -> None:
        self._seed, self._key = seed, key
        self._visited: dict[int, list[Visit]] = {}
        self.added: list[Visit] = []
        for visit in visits:
            self._visited.setdefault(visit.city, []).append(visit)

    def free(self, pool: Sequence[City], home: str | None, day: int, draw: int) -> City | None:
        """The first city from the drawn one on that may be visited that day."""
        drawn = pick(draw, 0, len(pool) - 1)
        for step in range(len(pool)):
            city = pool[(drawn + step) % len(pool)]
            if city.country != home and (city.id not in self._visited or self._rested(city.id, day)):
                return city
        return None

    def _rested(self, city: int, day: int) -> bool:
        """Is it long enough after every visit before, and before every visit after?"""
        for visit in self._visited[city]:
            if visit.day <= day < later(visit.day, visit.months):
                return False
            if day < visit.day < later(day, cooldown_months(self._seed, self._key, city)):
                return False
        return True

    def add(self, city: int, day: int) -> None:
        """The person is there that day."""
        visit = Visit(city, day, cooldown_months(self._seed, self._key, city))
        self._visited.setdefault(city, []).append(visit)
        self.added.append(visit)


class Days:
    """The days of a month that visits may still be on."""

    __slots__ = ("_days", "_left")

    def __init__(
        self, month: int, span: tuple[int, int], rotations: Iterable[Rotation], visits: Sequence[Visit]
    ) -> None:
        """`span` are the days to choose from; `visits` all there are, in this month and in others."""
        taken = {visit.day for visit in visits}
        self._days: list[tuple[int, int]] = []
        self._left: list[int] = []
        for rotation in rotations:
            first, end = max(span[0], rotation.first), min(span[1], rotation.end)
            if first < end:
                index = len(self._left)
                self._left.append(_left(rotation, month, visits))
                self._days += [(day, index) for day in range(first, end) if day not in taken]

    @property
    def most(self) -> int:
        """Visits that there is room for."""
        return min(len(self._days), sum(self._left))

    def take(self, draw: int) -> tuple[int, int] | None:
        """The first day from the drawn one on whose rotation has room for a city, and which rotation that is; never again."""
        many = len(self._days)
        drawn = pick(draw, 0, many - 1)
        for step in range(many):
            entry = self._days[(drawn + step) % many]
            if self._left[entry[1]] > 0:
                self._days.remove(entry)
                return entry
        return None

    def use(self, rotation: int) -> None:
        """There is a visit on a day of that rotation."""
        self._left[rotation] -= 1


def _left(rotation: Rotation, month: int, visits: Sequence[Visit]) -> int:
    """Cities that a rotation may still get in a month."""
    room = allowance(rotation, month)
    if not visits:
        return room
    first, end = days_of(month)
    days = {visit.day for visit in visits if rotation.first <= visit.day < rotation.end}
    return min(room - sum(first <= day < end for day in days), CITIES_MOST - len(days))


def with_cities(rotation: Rotation, visits: Sequence[Visit]) -> Rotation:
    """The rotation with the cities of the visits in it, which are in the order of their days."""
    found = tuple(dict.fromkeys([visit.city for visit in visits if rotation.first <= visit.day < rotation.end]))
    return rotation if found == rotation.cities else replace(rotation, cities=found)
