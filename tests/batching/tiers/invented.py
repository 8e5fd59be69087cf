"""Invented people, and a book of what was planned for one of them: the same rows that the database would hold.

`Book.plan` feeds a month with what stands in the book and puts what is new into it, so months can be planned one after the
other, again, in another order, or around bookings.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from server.batching.tiers import plan as planning
from server.batching.tiers.chance import seed_of
from server.batching.tiers.cities import shipped
from server.batching.tiers.classify import Appraisal, appraise
from server.batching.tiers.judge import Offered, Rows, Standing
from server.batching.tiers.months import days_of
from server.batching.tiers.plan import Kept, Plan, Reason, Request, Rotation, Visit
from server.batching.tiers.pool import by_country, pool
from server.batching.tiers.rules import BY_RANK, RULES, TIERS, UNRATED, Kind, Person, Ratings, Tier

SEED = seed_of("tests")
ATLAS = by_country(shipped())
CITY = {city.id: city for city in shipped()}
ZONES = (
    "America/New_York",
    "Europe/Berlin",
    "Asia/Tokyo",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "Asia/Kathmandu",
    "UTC",
)
HOMES = ("US", "DE", "JP", "FR", "GB", "AU", "BR", "KI")


def rated(tier: Tier | None) -> Ratings:
    """All five ratings alike."""
    return (tier, tier, tier, tier, tier)


def someone(chance: random.Random, number: int) -> Person:
    """A person as imports bring them: often D, sometimes unclear, mostly with a country."""
    base = chance.choices(range(5), weights=(60, 20, 10, 7, 3))[0]
    ratings = tuple(
        None if chance.random() < 0.15 else BY_RANK[min(4, max(0, base + chance.choice((-1, 0, 0, 0, 1))))]
        for _ in range(5)
    )
    return Person(
        key=f"person-{number}",
        name=f"Person {number}",
        ratings=ratings if len(ratings) == 5 else UNRATED,
        legacy=chance.random() < 0.05,
        global_award=chance.random() < 0.05,
        net_worth_cents=chance.choice((None, int(10 ** chance.uniform(6, 12)))),
        country=chance.choice((*HOMES, "", "USA")),
        timezone=chance.choice((*ZONES, "")),
        allow_physical=chance.random() < 0.95,
        allow_virtual=chance.random() < 0.95,
    )


def people(many: int, start: int = 0) -> list[Person]:
    """The same ones each time."""
    chance = random.Random(f"people {start}")
    return [someone(chance, number) for number in range(start, start + many)]


def requested(person: Person, appraised: Appraisal | None = None, seed: bytes = SEED) -> Request:
    """What planning is asked about a person that has just been classified."""
    made = appraised or appraise(person, {}, seed)
    prices = tuple(package.price_cents if package.active else None for package in made.packages)
    ids = pool(made.decision.tier, person.key, made.country, seed, ATLAS)
    return Request(
        key=person.key,
        tier=made.decision.tier,
        home=made.country,
        timezone=made.timezone,
        max_monthly_slots=made.max_monthly_slots,
        prices=prices,
        pool=tuple(CITY[one] for one in ids),
        allow_physical=person.allow_physical,
        allow_virtual=person.allow_virtual,
    )


def in_tier(tier: Tier, key: str = "one", **changes: object) -> Request:
    """A person of that tier."""
    return replace(requested(Person(key, key, rated(tier))), **changes)  # type: ignore[arg-type]


def one_of_each() -> list[Request]:
    """One person a tier."""
    return [in_tier(tier) for tier in TIERS]


def standing_of(person: Person, made: Appraisal) -> Standing:
    """What is written about a person that was classified."""
    return Standing(
        made.decision.tier,
        made.max_monthly_slots,
        True,
        made.country,
        made.packages,
        person.allow_physical,
        person.allow_virtual,
    )


@dataclass
class Book:
    """Everything planned for one person."""

    request: Request
    seed: bytes = SEED
    slots: list[Offered] = field(default_factory=list)
    rotations: dict[int, Rotation] = field(default_factory=dict)
    cooldowns: dict[tuple[int, int], int] = field(default_factory=dict)
    reasons: dict[int, Mapping[Kind, Reason]] = field(default_factory=dict)

    def plan(self, month: int, planned_at: int = 0) -> Plan:
        """Plan a month afresh around what is booked or over, and keep it."""
        first, end = days_of(month)
        self.slots = [slot for slot in self.slots if slot.status != "available" or not first <= slot.day < end]
        made = planning.month(self.asked(month), month, planned_at, self.seed)
        self.slots += [
            Offered(
                slot.kind,
                "available",
                slot.minutes,
                slot.city,
                CITY[slot.city].country if slot.city else None,
                slot.day,
                slot.starts,
                slot.ends,
                slot.price_cents,
            )
            for slot in made.slots
        ]
        self.rotations |= {one.first: one for one in made.rotations}
        self.cooldowns |= {(one.city, one.day): one.months for one in made.visits}
        self.reasons[month] = made.reasons
        return made

    def asked(self, month: int) -> Request:
        """The request for a month, with all that stands."""
        first, end = days_of(month)
        before = [one for one in self.rotations.values() if one.end <= first]
        stored = [one for one in self.rotations.values() if one.end > first]
        stored += [max(before, key=lambda one: one.end)] if before else []
        live = [slot for slot in self.slots if slot.status != "cancelled"]
        kept = [
            Kept(slot.kind, slot.city, slot.day, slot.starts, slot.ends)
            for slot in live
            if first - 3 <= slot.day < end + 3
        ]
        return replace(self.request, stored=tuple(stored), visits=self.visits(), kept=tuple(kept))

    def visits(self) -> tuple[Visit, ...]:
        """Every day in a city."""
        places = {(slot.city, slot.day) for slot in self.slots if slot.city is not None and slot.status != "cancelled"}
        return tuple(Visit(city, day, self.cooldowns[city, day]) for city, day in sorted(places))

    def book(self, index: int) -> Offered:
        """Somebody books a slot."""
        self.slots[index] = replace(self.slots[index], status="booked")
        return self.slots[index]

    def rows(self, month: int) -> Rows:
        """What verification reads."""
        first, end = days_of(month)
        inside = [one for one in self.rotations.values() if one.first < end and one.end > first]
        low = min((one.first for one in inside), default=first) - 3
        high = max((one.end for one in inside), default=end) + 3
        return Rows(
            month,
            tuple(slot for slot in self.slots if first <= slot.day < end),
            tuple(slot for slot in self.slots if low <= slot.day < high and not first <= slot.day < end),
            tuple(inside),
            self.visits(),
            self.reasons.get(month, {}),
        )


def bounds(request: Request, kind: Kind) -> tuple[int, int]:
    """The fewest and the most slots a month."""
    return RULES[request.tier].count(kind)
