"""Where a person can be booked: 12 countries, never its own, and in each as many cities as its tier has. Pure.

Drawn once for a person and tier and stored; countries, cities and how many of each country all come from hashes, and the
order too, so that neighbours in it are no neighbours on the map by more than chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from server.batching.tiers.chance import A_DIGEST, numbers, pick, within
from server.batching.tiers.rules import COUNTRIES, RULES, City, PlanError, Tier

T = TypeVar("T")


Atlas: TypeAlias = Mapping[str, tuple[int, ...]]
"""Ids of cities by country, both in order."""


def pool(tier: Tier, key: str, home: str | None, seed: bytes, atlas: Atlas) -> tuple[int, ...]:
    """The ids of the cities of a person's pool."""
    span = RULES[tier].cities_each
    abroad = [country for country, of in atlas.items() if country != home and len(of) >= span[1]]
    if len(abroad) < COUNTRIES:
        raise PlanError(
            f"only {len(abroad)} countries abroad have {span[1]} cities, {COUNTRIES} are needed: add cities"
        )
    chosen = _some(abroad, COUNTRIES, numbers(seed, key, "pool", tier))
    found: list[int] = []
    for country in chosen:
        many, *order = numbers(seed, key, "cities", f"{tier} {country}")
        found += _some(atlas[country], within(many, span), order)
    return tuple(found)


def by_country(cities: Iterable[City]) -> Atlas:
    """What pools are drawn from, the same in whatever order the cities come."""
    found: dict[str, list[int]] = {}
    for country, city in sorted((city.country, city.id) for city in cities):
        found.setdefault(country, []).append(city)
    return {country: tuple(ids) for country, ids in found.items()}


def _some(of: Iterable[T], many: int, draws: Sequence[int]) -> list[T]:
    """So many of them, each set of them as likely as any other (the first steps of a Fisher-Yates shuffle)."""
    left = list(of)
    assert many <= min(len(left), len(draws), A_DIGEST)
    for index, draw in zip(range(many), draws, strict=False):
        other = pick(draw, index, len(left) - 1)
        left[index], left[other] = left[other], left[index]
    return left[:many]
