"""How things stand, S to D: who is in which tier, what it costs, how much of a month is on offer, who should be looked at.

A report has one line for each tier, also for one that nobody is in. A person without slots counts as none of them, not as
nobody: averages are over all people of the tier. A tier whose share of all people is far outside of what is expected has a
warning, never an error.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from server.batching.tiers.months import name_of
from server.batching.tiers.rules import RULES, TIERS, Span, Tier
from server.batching.tiers.runs import first_day
from server.batching.tiers.store import PAGE_MOST
from server.edge.postgres import Connection

FAR: Final = 2.0
"""A share is far outside when it is that many times above the most that is expected, or below the least."""

SHARES: Final = """
select s.tier::text, count(*), min(s.max_monthly_slots), max(s.max_monthly_slots), avg(s.max_monthly_slots)::float8,
    count(*) filter (where s.needs_review), count(*) filter (where s.source = 'no_evidence')
from tiers.celebrities c left join tiers.celebrity_settings s on s.celebrity_id = c.id where c.excluded is null group by 1"""
EXCLUDED: Final = "select count(*) from tiers.celebrities where excluded is not null"
FLAGS: Final = """
select f.flag, count(*) from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id, unnest(s.flags) f (flag)
where s.needs_review and c.excluded is null and f.flag <> all (c.accepted) group by 1 order by 2 desc"""
PRICES: Final = """
select tier::text, count(*), count(*) filter (where packages = 6), sum(packages)::bigint, sum(active)::bigint, min(cheapest),
    max(dearest), percentile_disc(0.5) within group (order by cheapest)
from (
    select s.tier, s.celebrity_id, count(p.celebrity_id) as packages, count(p.celebrity_id) filter (where p.active) as active,
        min(p.price_cents) as cheapest, max(p.price_cents) as dearest
    from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id
    left join tiers.celebrity_pricing p on p.celebrity_id = s.celebrity_id
    where c.excluded is null and s.tier is not null group by s.tier, s.celebrity_id
) each group by 1"""
COVERAGE: Final = """
with slots as (
    select celebrity_id, count(*) filter (where status <> 'cancelled') as live,
        count(*) filter (where status = 'available') as available, count(*) filter (where status = 'booked') as booked,
        count(*) filter (where status = 'expired') as expired, count(*) filter (where status = 'cancelled') as cancelled
    from tiers.availability where local_date >= $1 and local_date < $2
        and starts_at >= $1::date - interval '2 days' and starts_at < $2::date + interval '2 days'
    group by 1
), turns as (
    select celebrity_id, sum(ends_on - starts_on) as days, count(*) as many from tiers.rotations
    where ends_on > $1 and starts_on < $2 group by 1
)
select s.tier::text, count(*), count(*) filter (where a.live > 0), coalesce(sum(a.live), 0)::bigint,
    coalesce(avg(coalesce(a.live, 0)), 0)::float8, (sum(t.days) / sum(t.many))::float8, coalesce(sum(a.available), 0)::bigint,
    coalesce(sum(a.booked), 0)::bigint, coalesce(sum(a.expired), 0)::bigint, coalesce(sum(a.cancelled), 0)::bigint
from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id
left join slots a on a.celebrity_id = s.celebrity_id left join turns t on t.celebrity_id = s.celebrity_id
where c.excluded is null and s.tier is not null group by 1"""
REVIEW: Final = """
select s.celebrity_id, c.key, c.name, s.tier::text, s.source, s.reason, s.flags
from tiers.celebrity_settings s join tiers.celebrities c on c.id = s.celebrity_id
where s.needs_review and c.excluded is null and s.celebrity_id > $1 order by s.celebrity_id limit $2"""
HISTORY: Final = """
select at, from_tier::text, to_tier::text, source, reason, rule_version, who from tiers.tier_history
where celebrity_id = $1 order by id desc limit $2"""


@dataclass(frozen=True, slots=True)
class TierShare:
    """People of a tier and the most slots they have a month. `expected`: people, where there are EXPECTED_OF of them."""

    tier: Tier
    people: int
    share: float
    expected: Span
    warning: str | None
    min_slots: int | None
    max_slots: int | None
    avg_slots: float | None


@dataclass(frozen=True, slots=True)
class PricingRow:
    """Packages of a tier. `priced_people` have all six; `median_cents` is that of each one's cheapest."""

    tier: Tier
    people: int
    priced_people: int
    packages: int
    active_packages: int
    min_cents: int | None
    max_cents: int | None
    median_cents: int | None


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """A month of a tier; cancelled slots are in `cancelled` only."""

    tier: Tier
    people: int
    with_slots: int
    slots: int
    avg_slots_per_person: float
    avg_rotation_days: float | None
    available: int
    booked: int
    expired: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class Report:
    """See the module's docstring. `flags`: how many people should be looked at because of each."""

    month: str
    missing: int
    no_evidence: int
    needs_review: int
    excluded: int
    distribution: tuple[TierShare, ...]
    pricing: tuple[PricingRow, ...]
    coverage: tuple[CoverageRow, ...]
    flags: dict[str, int]


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """Somebody who should be looked at."""

    id: int
    key: str
    name: str
    tier: Tier
    source: str
    reason: str
    flags: Sequence[str]


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One change of a person's tier."""

    at: dt.datetime
    from_tier: Tier | None
    to_tier: Tier
    source: str
    reason: str
    rule_version: int
    who: str | None


async def report(connection: Connection, month: int) -> Report:
    """Everything."""
    shares = {row[0]: tuple(row)[1:] for row in await connection.fetch(SHARES)}
    prices = {row[0]: tuple(row)[1:] for row in await connection.fetch(PRICES)}
    dates = first_day(month), first_day(month + 1)
    covered = {row[0]: tuple(row)[1:] for row in await connection.fetch(COVERAGE, *dates)}
    people = {tier: shares[tier][0] if tier in shares else 0 for tier in TIERS}
    return Report(
        month=name_of(month),
        missing=shares[None][0] if None in shares else 0,
        no_evidence=sum(row[5] for row in shares.values()),
        needs_review=sum(row[4] for row in shares.values()),
        excluded=await connection.fetchval(EXCLUDED),
        distribution=tuple(_share(tier, people, shares.get(tier)) for tier in TIERS),
        pricing=tuple(PricingRow(tier, *prices.get(tier, (0, 0, 0, 0, None, None, None))) for tier in TIERS),
        coverage=tuple(CoverageRow(tier, *covered.get(tier, (0, 0, 0, 0.0, None, 0, 0, 0, 0))) for tier in TIERS),
        flags={row[0]: row[1] for row in await connection.fetch(FLAGS)},
    )


def _share(tier: Tier, people: Mapping[Tier, int], row: tuple[object, ...] | None) -> TierShare:
    least, most, average = row[1:4] if row is not None else (None, None, None)
    assert least is None or isinstance(least, int)
    assert most is None or isinstance(most, int)
    assert average is None or isinstance(average, float)
    everybody = sum(people.values())
    share = people[tier] / everybody if everybody else 0.0
    return TierShare(tier, people[tier], share, RULES[tier].expected, warning(tier, people), least, most, average)


def warning(tier: Tier, people: Mapping[Tier, int]) -> str | None:
    """What to say about a tier whose share is far outside of the expected one; None: nothing."""
    everybody = sum(people.values())
    if not everybody:
        return None
    share = people[tier] / everybody
    least = RULES[tier].expected[0] / sum(rules.expected[1] for rules in RULES.values())
    most = RULES[tier].expected[1] / sum(rules.expected[0] for rules in RULES.values())
    if least / FAR <= share <= most * FAR:
        return None
    return f"{share:.1%} of all people are in tier {tier}; expected are {least:.1%} to {most:.1%}"


async def review_queue(connection: Connection, after: int = 0, limit: int = 100) -> list[ReviewRow]:
    """Who should be looked at, by id."""
    return [ReviewRow(*row) for row in await connection.fetch(REVIEW, after, min(limit, PAGE_MOST))]


async def history(connection: Connection, person: int, limit: int = 100) -> list[HistoryRow]:
    """The tiers that a person had, newest first."""
    return [HistoryRow(*row) for row in await connection.fetch(HISTORY, person, min(limit, PAGE_MOST))]
