"""What verification asks of a person, rule by rule, over plain rows. Pure.

    foundation(standing)   after phase 1: tier, packages, prices, most slots, verified, country
    availability(standing, rows)   after a month was planned: slots, overlaps, cooldowns, home, counts, rotations, prices

The same rules stand in SQL, where all people are asked at once; here they are as slow and plain as can be, to be compared
with. They judge rows only, whoever wrote them, and know nothing of how they were planned.

What counts: every slot but a cancelled one; a cancelled one lets a month have fewer, nothing lets it have more than the
tier's most but booked and expired ones that are more by themselves. A month may have fewer slots of a kind where planning left a reason
(and none at all where the reason is that the kind is not allowed or the pool was exhausted). Slots that are available or
booked must not overlap. A booked slot keeps the price of its booking, so prices are asked of available ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeAlias

from server.batching.tiers.countries import codes
from server.batching.tiers.months import days_of, later
from server.batching.tiers.plan import Reason
from server.batching.tiers.pricing import Package
from server.batching.tiers.rotations import WEEK, Rotation
from server.batching.tiers.rules import CITIES_MOST, KINDS, PACKAGES, RULES, Kind, Tier
from server.batching.tiers.visits import Visit

Status: TypeAlias = Literal["available", "booked", "cancelled", "expired"]
Rule: TypeAlias = Literal[
    "missing_tier",
    "packages_six",
    "price_range",
    "max_slots",
    "verified",
    "country",
    "slots_present",
    "no_overlap",
    "cooldown",
    "home_country",
    "monthly_counts",
    "rotation_lengths",
    "slot_price",
]
FOUNDATION: Final[tuple[Rule, ...]] = (
    "missing_tier",
    "packages_six",
    "price_range",
    "max_slots",
    "verified",
    "country",
)
AVAILABILITY: Final[tuple[Rule, ...]] = (
    "slots_present",
    "no_overlap",
    "cooldown",
    "home_country",
    "monthly_counts",
    "rotation_lengths",
    "slot_price",
)


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a person breaks, and how."""

    rule: Rule
    detail: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What is written about a person after phase 1. None: nothing is."""

    tier: Tier | None
    max_monthly_slots: int | None
    verified: bool
    country: str | None
    packages: tuple[Package, ...]
    allow_physical: bool = True
    allow_virtual: bool = True

    def allows(self, kind: Kind) -> bool:
        """May there be slots of that kind?"""
        return self.allow_physical if kind == "physical" else self.allow_virtual


@dataclass(frozen=True, slots=True)
class Offered:
    """A slot as it is stored; `country` is its city's."""

    kind: Kind
    status: Status
    minutes: int
    city: int | None
    country: str | None
    day: int
    starts: int
    ends: int
    price_cents: int


@dataclass(frozen=True, slots=True)
class Rows:
    """A person's month. `slots` are those of the month, `near` all others of the days around it and of its rotations;
    rotations are all that hold a day of the month; visits go as far back and ahead as a cooldown lasts."""

    month: int
    slots: tuple[Offered, ...]
    near: tuple[Offered, ...]
    rotations: tuple[Rotation, ...]
    visits: tuple[Visit, ...]
    reasons: Mapping[Kind, Reason]


def foundation(standing: Standing) -> list[Violation]:
    """What is wrong with a person after phase 1."""
    return list(_foundation(standing))


def _foundation(standing: Standing) -> Iterator[Violation]:
    tier = standing.tier
    if tier is None:
        yield Violation("missing_tier", "it has no tier")
    found = Counter((package.kind, package.minutes) for package in standing.packages)
    if found != Counter(PACKAGES):
        yield Violation("packages_six", f"it has {len(standing.packages)} packages, not one of each of the six")
    wrong = [package for package in standing.packages if package.active != standing.allows(package.kind)]
    if wrong:
        yield Violation("packages_six", f"{_named(wrong[0])} is {'' if wrong[0].active else 'not '}active")
    if tier is not None:
        least, most = RULES[tier].price_cents
        for package in standing.packages:
            if not least <= package.price_cents <= most:
                yield Violation("price_range", f"{_named(package)} costs {package.price_cents}, not {least} to {most}")
    bounds = RULES[tier].max_slots if tier else (1, max(rules.max_slots[1] for rules in RULES.values()))
    if standing.max_monthly_slots is None or not bounds[0] <= standing.max_monthly_slots <= bounds[1]:
        yield Violation(
            "max_slots", f"max_monthly_slots is {standing.max_monthly_slots}, not {bounds[0]} to {bounds[1]}"
        )
    if not standing.verified:
        yield Violation("verified", "it is not verified")
    if standing.country not in codes():
        yield Violation("country", f"{standing.country!r} is no country of ISO 3166-1")


def _named(package: Package) -> str:
    return f"{package.kind} {package.minutes}"


def availability(standing: Standing, rows: Rows) -> list[Violation]:
    """What is wrong with a person's month."""
    found = [
        *_counted(standing, rows),
        *_overlaps(rows),
        *_cooldowns(rows),
        *_home(standing, rows),
        *_rotations(standing, rows),
        *_slot_prices(standing, rows),
    ]
    return found


def _counted(standing: Standing, rows: Rows) -> Iterator[Violation]:
    """slots_present and monthly_counts."""
    if standing.tier is None or standing.max_monthly_slots is None:
        return
    every = {kind: [slot for slot in rows.slots if slot.kind == kind] for kind in KINDS}
    counts = {kind: sum(slot.status != "cancelled" for slot in every[kind]) for kind in KINDS}
    due = [
        kind
        for kind in KINDS
        if standing.allows(kind) and RULES[standing.tier].count(kind)[0] and kind not in rows.reasons
    ]
    if due and not any(every.values()):
        yield Violation("slots_present", "it has no slots and no reason for that")
    for kind in KINDS:
        least, most = RULES[standing.tier].count(kind)
        reason = rows.reasons.get(kind)
        if not standing.allows(kind):
            least = most = 0
        if len(every[kind]) < least and reason is None:
            yield Violation("monthly_counts", f"{counts[kind]} {kind} slots, at least {least} without a reason")
        if counts[kind] > max(most, _settled(every[kind])):
            yield Violation("monthly_counts", f"{counts[kind]} {kind} slots, at most {most}")
    least_of_all = sum(max(RULES[standing.tier].count(kind)[0], _settled(every[kind])) for kind in KINDS)
    if sum(counts.values()) > max(standing.max_monthly_slots, least_of_all):
        yield Violation("monthly_counts", f"{sum(counts.values())} slots, at most {standing.max_monthly_slots} in all")


def _settled(slots: Sequence[Offered]) -> int:
    return sum(slot.status in ("booked", "expired") for slot in slots)


def _overlaps(rows: Rows) -> Iterator[Violation]:
    live = sorted((s.starts, s.ends) for s in (*rows.slots, *rows.near) if s.status in ("available", "booked"))
    latest = 0
    for starts, ends in live:
        if starts < latest:
            yield Violation("no_overlap", f"a slot begins at {starts}, before another ends at {latest}")
        latest = max(latest, ends)


def _cooldowns(rows: Rows) -> Iterator[Violation]:
    by_city: dict[int, dict[int, int]] = {}
    for visit in rows.visits:
        by_city.setdefault(visit.city, {})[visit.day] = visit.months
    for city, days in by_city.items():
        for one, other in pairwise(sorted(days)):
            if other < later(one, days[one]):
                yield Violation(
                    "cooldown", f"city {city} again on day {other}, {days[one]} months after {one} at the earliest"
                )
    by_day: dict[int, set[int | None]] = {}
    for slot in rows.slots:
        if slot.kind == "physical" and slot.status != "cancelled":
            by_day.setdefault(slot.day, set()).add(slot.city)
    for day, cities in by_day.items():
        if len(cities) > 1:
            yield Violation("cooldown", f"{len(cities)} cities on day {day}")


def _home(standing: Standing, rows: Rows) -> Iterator[Violation]:
    for slot in rows.slots:
        if slot.kind == "physical" and slot.country == standing.country and slot.status == "available":
            yield Violation("home_country", f"a slot on day {slot.day} is in {slot.country}, its own country")


def _rotations(standing: Standing, rows: Rows) -> Iterator[Violation]:
    """Whole weeks within bounds, no gap, no overlap, the month covered, 1 to 3 cities and those of its slots."""
    ordered = sorted(rows.rotations, key=lambda one: one.first)
    for one in ordered:
        least, most = RULES[one.tier].rotation_weeks
        weeks, rest = divmod(one.end - one.first, WEEK)
        if rest or not least <= weeks <= most:
            yield Violation(
                "rotation_lengths", f"the rotation of day {one.first} has {weeks} weeks, not {least} to {most}"
            )
    for one, other in pairwise(ordered):
        if one.end != other.first:
            yield Violation("rotation_lengths", f"a rotation ends on day {one.end}, the next begins on {other.first}")
    first, end = days_of(rows.month)
    if not ordered or ordered[0].first > first or ordered[-1].end < end:
        yield Violation("rotation_lengths", "there are days of the month without a rotation")
    stands = [slot for slot in (*rows.slots, *rows.near) if slot.kind == "physical" and slot.status != "cancelled"]
    for one in ordered:
        inside = [slot.city for slot in stands if one.first <= slot.day < one.end]
        if len(one.cities) > min(CITIES_MOST, len(inside)) or not set(inside) <= set(one.cities):
            yield Violation(
                "rotation_lengths", f"the rotation of day {one.first} has cities {one.cities}, its slots {inside}"
            )


def _slot_prices(standing: Standing, rows: Rows) -> Iterator[Violation]:
    prices = {(one.kind, one.minutes): one.price_cents for one in standing.packages if one.active}
    for slot in rows.slots:
        if slot.status == "available" and prices.get((slot.kind, slot.minutes)) != slot.price_cents:
            costs = prices.get((slot.kind, slot.minutes))
            yield Violation(
                "slot_price", f"{slot.kind} {slot.minutes} is offered for {slot.price_cents}, it costs {costs}"
            )
