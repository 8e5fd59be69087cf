"""Where a person can be booked: 12 countries, never its own, and in each as many cities as its tier has. Pure.

Drawn once for a person and tier and stored; countries, cities and how many of each country all come from hashes, and the
order too, so that neighbours in it are no neighbours on the map by more than chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from server.batching.tiers.chance import A_DIGEST, numbers, within
from server.batching.tiers.rules import COUNTRIES, RULES, City, PlanError, Tier

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Atlas:
    """Ids of cities by country, both in order."""

    cities: Mapping[str, tuple[int, ...]]
    _abroad: dict[tuple[str | None, int], tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)

    def abroad(self, home: str | None, least: int) -> tuple[str, ...]:
        """Countries with so many cities, but for one of them; remembered, as there are few homes and fewer tiers."""
        asked = (home if home in self.cities else None), least
        if asked not in self._abroad:
            self._abroad[asked] = tuple(one for one, of in self.cities.items() if one != home and len(of) >= least)
        return self._abroad[asked]


def pool(tier: Tier, key: str, home: str | None, seed: bytes, atlas: Atlas) -> tuple[int, ...]:
    """The ids of the cities of a person's pool."""
    span = RULES[tier].cities_each
    abroad = atlas.abroad(home, span[1])
    if len(abroad) < COUNTRIES:
        raise PlanError(
            f"only {len(abroad)} countries abroad have {span[1]} cities, {COUNTRIES} are needed: add cities"
        )
    chosen = _some(abroad, COUNTRIES, numbers(seed, key, "pool", tier))
    found: list[int] = []
    for country in chosen:
        many, *order = numbers(seed, key, "cities", f"{tier} {country}")
        found += _some(atlas.cities[country], within(many, span), order)
    return tuple(found)


def by_country(cities: Iterable[City]) -> Atlas:
    """What pools are drawn from, the same in whatever order the cities come."""
    found: dict[str, list[int]] = {}
    for country, city in sorted((city.country, city.id) for city in cities):
        found.setdefault(country, []).append(city)
    return Atlas({country: tuple(ids) for country, ids in found.items()})


def _some(of: Sequence[T], many: int, draws: Sequence[int]) -> list[T]:
    """So many of them, each set of them as likely as any other (the first steps of a Fisher-Yates shuffle)."""
    left = list(of)
    size = len(left)
    assert many <= min(size, len(draws), A_DIGEST)
    for index in range(many):
        other = index + (draws[index] * (size - index) >> 32)  # as `pick` does
        left[index], left[other] = left[other], left[index]
    return left[:many]
