"""What a tier means: the table that every other file of the tiers reads, and the values they hand each other. Pure.

A tier is one of S, A, B, C, D; in comparisons S is the highest. `RULES` is the whole of what a tier decides: prices, counts,
rotations, pools. Money is integer cents, an instant is UTC epoch seconds, a day is days since 1970-01-01, a month is
12 * year + (its number - 1): plain integers, so that planning a million people makes no objects it doesn't need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

Tier: TypeAlias = Literal["S", "A", "B", "C", "D"]
Kind: TypeAlias = Literal["physical", "virtual"]
Span: TypeAlias = tuple[int, int]
"""At least and at most, both reachable."""

TIERS: Final[tuple[Tier, ...]] = ("S", "A", "B", "C", "D")
RANK: Final[Mapping[Tier, int]] = MappingProxyType({"D": 0, "C": 1, "B": 2, "A": 3, "S": 4})
BY_RANK: Final[tuple[Tier, ...]] = ("D", "C", "B", "A", "S")
KINDS: Final[tuple[Kind, ...]] = ("physical", "virtual")
DURATIONS: Final = (15, 30, 60)
PACKAGES: Final[tuple[tuple[Kind, int], ...]] = tuple((kind, minutes) for kind in KINDS for minutes in DURATIONS)

RULE_VERSION: Final = 1
"""Goes up with every change that gives the same person another tier, price or plan."""
COUNTRIES: Final = 12
"""Countries in a person's pool."""
CITIES_MOST: Final = 3
"""Cities in one rotation."""
COOLDOWN_MONTHS: Final[Span] = (3, 6)
LEAD_DAYS: Final[Mapping[Kind, int]] = MappingProxyType({"physical": 7, "virtual": 3})
HOURS: Final[Mapping[Kind, Span]] = MappingProxyType({"physical": (10, 21), "virtual": (9, 22)})
"""Local hours that a slot begins and ends in."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for everybody in a tier."""

    expected: Span
    price_cents: Span
    max_slots: Span
    physical: Span
    virtual: Span
    rotation_weeks: Span
    cities_each: Span

    def count(self, kind: Kind) -> Span:
        """Slots of that kind in a calendar month."""
        return self.physical if kind == "physical" else self.virtual


RULES: Final[Mapping[Tier, Rules]] = MappingProxyType(
    {
        "S": Rules((10, 50), (100_000_00, 2_000_000_00), (2, 4), (0, 1), (1, 2), (8, 12), (3, 3)),
        "A": Rules((200, 500), (20_000_00, 500_000_00), (4, 8), (1, 2), (1, 4), (6, 8), (3, 4)),
        "B": Rules((500, 1_000), (5_000_00, 50_000_00), (8, 15), (1, 3), (2, 6), (4, 6), (3, 5)),
        "C": Rules((1_000, 3_000), (1_000_00, 10_000_00), (15, 25), (1, 4), (3, 8), (3, 5), (4, 6)),
        "D": Rules((5_000, 8_000), (100_00, 2_000_00), (20, 40), (1, 5), (5, 10), (2, 4), (5, 6)),
    }
)

Ratings: TypeAlias = tuple[Tier | None, Tier | None, Tier | None, Tier | None, Tier | None]
RATINGS: Final = ("global_recognition", "career_legacy", "current_relevance", "demand", "affluence")
UNRATED: Final[Ratings] = (None, None, None, None, None)


class PlanError(ValueError):
    """What is wrong with one person, in words; the others go on."""


@dataclass(frozen=True, slots=True)
class Comparable:
    """Somebody of the same standing; without a tier of its own it is looked up by name."""

    name: str
    tier: Tier | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """What is known about a person before it is classified. `key` is what every draw depends on, so it never changes."""

    key: str
    name: str
    ratings: Ratings = UNRATED
    comparables: tuple[Comparable, ...] = ()
    legacy: bool = False
    global_award: bool = False
    net_worth_cents: int | None = None
    override: Tier | None = None
    country: str = ""
    timezone: str = ""
    allow_virtual: bool = True
    allow_physical: bool = True


@dataclass(frozen=True, slots=True)
class City:
    """A city people can be booked in; `id` is its GeoNames id."""

    id: int
    name: str
    country: str
    timezone: str
    latitude: float
    longitude: float
    population: int


def higher(one: Tier, other: Tier) -> Tier:
    """The higher of two tiers."""
    return one if RANK[one] >= RANK[other] else other
