"""What must have happened before a tier's month may be planned, and what the monthly loop does next. Pure.

    everybody has a tier --> S planned --> S verified --> A planned --> ... --> D verified
                                              | fails: stop, and say so, until somebody verifies it again

A gate is closed by a person without a tier, and by the tier before, while its verification of that month has not passed or
no longer holds. The second can be overridden; who did is in the audit log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from server.batching.tiers.rules import TIERS, Tier

Verdict: TypeAlias = Literal["passed", "failed", "stale", "none"]
"""The last verification of a tier and month; `stale`: something was changed since."""


@dataclass(frozen=True, slots=True)
class Month:
    """How far a month is: people without a tier, what was verified, which tiers are through."""

    missing: int
    verdicts: Mapping[Tier, Verdict]
    planned: frozenset[Tier]
    """Tiers in which nobody waits to be planned."""
    people: int = 1
    """Without anybody there is no month to plan."""


@dataclass(frozen=True, slots=True)
class Step:
    """What comes next: plan or verify a tier, nothing (`rest`), or nothing until somebody looks at it (`stop`)."""

    action: Literal["plan", "verify", "rest", "stop"]
    tier: Tier | None = None
    why: str = ""


REST: Final = Step("rest")


def before(tier: Tier) -> Tier | None:
    """The tier that comes first."""
    at = TIERS.index(tier)
    return TIERS[at - 1] if at else None


def closed(tier: Tier, month: str, state: Month, override: bool) -> str | None:
    """Why this tier must wait; None: it may be planned."""
    if state.missing:
        return f"people without a tier: {state.missing}; classify them first (tiers classify --new-only)"
    first = before(tier)
    if first is None or override:
        return None
    verdict = state.verdicts.get(first, "none")
    if verdict == "passed":
        return None
    return f"tier {first} {_WORDS[verdict]} for {month}; run: tiers verify --tier {first} --month {month}, or override the gate"


_WORDS: Final[Mapping[Verdict, str]] = {
    "failed": "has failed its verification",
    "stale": "was changed since it was verified",
    "none": "is not verified",
}


def next_step(state: Month) -> Step:
    """What the monthly loop does now. A tier that failed is not verified again by the loop: somebody has to look at it."""
    if not state.people:
        return REST
    if state.missing:
        return Step("stop", None, f"people without a tier: {state.missing}")
    for tier in TIERS:
        verdict = state.verdicts.get(tier, "none")
        if tier not in state.planned:  # Before what was verified of it: planning makes that stale.
            return Step("plan", tier)
        if verdict == "failed":
            return Step("stop", tier, f"tier {tier} has failed its verification")
        if verdict != "passed":
            return Step("verify", tier)
    return REST
