"""Which tier a person is in, and why; and all that phase 1 writes about a person (`appraise`). Pure.

    override, else comparables with a known tier (upper median), else ratings (upper median of at least 3 known ones)
    then the guards: legacy is at least B, a global award at least C, whatever came before (an override too)

Ratings that are fewer than 3, or 3 levels or more apart (D and A, C and S), are unclear: the lowest of them and one tier
up, for a person to look at. The lowest known rating is the lowest plausible tier; guards come after. Nothing known at all
is D; a flag alone is not a rating, so such a person keeps the source `no_evidence` unless a guard lifts it.

Comparables count when a tier stands beside them or when a curated override is known by that name (`known`). Tiers that
classification itself gave are not looked up: the result would depend on who was classified first.
Followers, listeners and streams are no input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from server.batching.tiers.cities import zone_of
from server.batching.tiers.countries import CountrySource, country
from server.batching.tiers.names import folded
from server.batching.tiers.pricing import Package, priced
from server.batching.tiers.rules import BY_RANK, RANK, Person, Tier, higher
from server.batching.tiers.zones import known_zone

Source: TypeAlias = Literal["override", "comparables", "ratings", "unclear", "no_evidence", "guard"]
Flag: TypeAlias = Literal["unclear", "no_evidence", "net_worth", "country", "timezone"]

SOURCES: Final[tuple[Source, ...]] = ("override", "comparables", "ratings", "unclear", "no_evidence", "guard")
KNOWN_LEAST: Final = 3
SPAN_UNCLEAR: Final = 3
TOP: Final = RANK["S"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A tier and how it came about."""

    tier: Tier
    source: Source
    reason: str
    flag: Flag | None = None

    @property
    def needs_review(self) -> bool:
        """Should a person look at it?"""
        return self.flag is not None


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What phase 1 writes about a person. `flags` say why somebody should look at it."""

    decision: Decision
    country: str | None
    country_source: CountrySource
    timezone: str
    max_monthly_slots: int
    packages: tuple[Package, ...]
    flags: tuple[Flag, ...] = ()

    @property
    def needs_review(self) -> bool:
        """Should a person look at it?"""
        return bool(self.flags)


def appraise(person: Person, known: Mapping[str, Tier], seed: bytes) -> Appraisal:
    """Tier, country, time zone, packages and the most slots a month."""
    decision = classify(person, known)
    home = country(person.country)
    zone, guessed = _timezone(person.timezone, home.code)
    prices = priced(decision.tier, person, seed)
    flags: list[Flag] = []
    if decision.flag is not None:
        flags.append(decision.flag)
    if prices.over_net_worth:
        flags.append("net_worth")
    if home.code is None:
        flags.append("country")
    if guessed:
        flags.append("timezone")
    return Appraisal(decision, home.code, home.source, zone, prices.max_monthly_slots, prices.packages, tuple(flags))


def classify(person: Person, known: Mapping[str, Tier]) -> Decision:
    """The tier of a person; `known` are the tiers of curated people by folded name (`names.directory`)."""
    found = _found(person, known)
    guard, words = _guard(person)
    if guard is None or RANK[found.tier] >= RANK[guard]:
        return found
    return Decision(guard, "guard", f"{found.reason}; {words}", found.flag)


def _found(person: Person, known: Mapping[str, Tier]) -> Decision:
    """Before the guards."""
    if person.override is not None:
        return Decision(person.override, "override", f"{person.override} by a curated override")
    beside = _comparables(person, known) if person.comparables else []
    if beside:
        tier = BY_RANK[_upper_median(beside)]
        return Decision(tier, "comparables", f"{tier}: {_median_of(len(beside))}")
    return _rated(sorted(RANK[rating] for rating in person.ratings if rating is not None))


def _median_of(people: int) -> str:
    return "as the one comparable person" if people == 1 else f"the upper median of {people} comparable people"


def _rated(ranks: list[int]) -> Decision:
    if not ranks:
        return Decision("D", "no_evidence", "D: nothing is known", "no_evidence")
    lowest, apart = ranks[0], ranks[-1] - ranks[0]
    if len(ranks) >= KNOWN_LEAST and apart < SPAN_UNCLEAR:
        tier = BY_RANK[ranks[len(ranks) // 2]]
        return Decision(tier, "ratings", f"{tier}: the upper median of {len(ranks)} ratings")
    why = f"they are {apart} levels apart" if apart >= SPAN_UNCLEAR else f"only {len(ranks)} known"
    tier = BY_RANK[min(TOP, lowest + 1)]
    return Decision(tier, "unclear", f"{tier}: ratings unclear ({why}), one above {BY_RANK[lowest]}", "unclear")


def _upper_median(ranks: Sequence[int]) -> int:
    return sorted(ranks)[len(ranks) // 2]


def _comparables(person: Person, known: Mapping[str, Tier]) -> list[int]:
    """The ranks of those whose tier is known."""
    tiers = (one.tier or known.get(folded(one.name)) for one in person.comparables)
    return [RANK[tier] for tier in tiers if tier is not None]


def _guard(person: Person) -> tuple[Tier | None, str]:
    """The lowest tier that the flags allow."""
    if person.legacy:
        return higher("B", "C"), "a legacy is at least B"
    if person.global_award:
        return "C", "a global award is at least C"
    return None, ""


def _timezone(text: str, home: str | None) -> tuple[str, bool]:
    """The zone as given; where it is none, that of the country's largest city, and that it was guessed from a wrong one."""
    spelled = text.strip()
    if known_zone(spelled):
        return spelled, False
    return zone_of(home), bool(spelled)
