"""Six packages per person and the most slots a month, drawn by hash. Pure.

The physical quarter of an hour is p, drawn log-uniform between the tier's minimum / v and maximum / 3: the exact window in
which all six prices stay in the tier's range (a wider draw scaled down would put everybody on one price). 30 minutes are
1.8 p and 60 are 3.0 p; virtual is v times physical, with one v of 0.60..0.80 per person.

Exact to the cent: p is a multiple of `STEP` and v a whole percent, so no price is ever rounded. A net worth caps physical
60 at 1 % of it; where that is below the window, p is the lowest of the window and the person is flagged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.batching.tiers.chance import fraction, numbers, within
from server.batching.tiers.rules import DURATIONS, RULES, Kind, Person, Span, Tier

STEP: Final = 500
"""Cents. p = STEP k gives 1.8 p = 900 k and 3 p = 1500 k; v % of it 5 v k, 9 v k and 15 v k."""
_PHYSICAL: Final = (500, 900, 1500)
_VIRTUAL: Final = (5, 9, 15)
VIRTUAL_PERCENT: Final[Span] = (60, 80)
WORTH_PARTS: Final = 100
"""Physical 60 is at most one of so many parts of the net worth."""


@dataclass(frozen=True, slots=True)
class Package:
    """What a meeting of this kind and length costs; an inactive one is not sold."""

    kind: Kind
    minutes: int
    price_cents: int
    active: bool


@dataclass(frozen=True, slots=True)
class Prices:
    """A person's packages. `over_net_worth`: even the cheapest of its tier is more than 1 % of what it owns."""

    packages: tuple[Package, ...]
    max_monthly_slots: int
    over_net_worth: bool


def priced(tier: Tier, person: Person, seed: bytes) -> Prices:
    """The packages of a person in this tier."""
    share, height, most, *_ = numbers(seed, person.key, "price", tier)
    rules = RULES[tier]
    percent = within(share, VIRTUAL_PERCENT)
    least, top = window(rules.price_cents, percent)
    over = False
    if person.net_worth_cents is not None:
        cap = person.net_worth_cents // (WORTH_PARTS * _PHYSICAL[-1])
        over, top = cap < least, max(least, min(top, cap))
    steps = log_uniform(least, top, fraction(height))
    physical, virtual = person.allow_physical, person.allow_virtual
    packages = (
        *(Package("physical", m, p * steps, physical) for m, p in zip(DURATIONS, _PHYSICAL, strict=True)),
        *(Package("virtual", m, v * percent * steps, virtual) for m, v in zip(DURATIONS, _VIRTUAL, strict=True)),
    )
    return Prices(packages, within(most, rules.max_slots), over)


def window(price_cents: Span, percent: int) -> Span:
    """The fewest and the most steps of p that keep all six prices in range."""
    return -(-price_cents[0] // (_VIRTUAL[0] * percent)), price_cents[1] // _PHYSICAL[-1]


def log_uniform(least: int, most: int, height: float) -> int:
    """One of least..most, by logarithm as likely as any other; `height` is 0 <= x < 1."""
    return min(most, int(least * ((most + 1) / least) ** height))
