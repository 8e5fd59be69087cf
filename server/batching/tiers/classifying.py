"""Phase 1 in batches: people by id, each with its tier, prices and all that follows from it, a transaction a batch.

A batch is read with what the database already says of it, decided by classify.py, and only what differs is written: running
again with the same inputs changes no row. The run's row is held while a batch is worked on, so two processes on one run
take turns, and a run that was killed goes on behind the last batch that was committed.

A tier that changes is noted in tier_history, and what was verified of the old and of the new tier holds no longer.
Comparables without a tier of their own are looked up among people with a curated override, by name and alias; a name that
stands for people of different tiers stands for nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg
import orjson

from server.batching.tiers.classify import Appraisal, appraise
from server.batching.tiers.names import folded
from server.batching.tiers.rules import KINDS, PACKAGES, RULE_VERSION, Comparable, Person, Tier
from server.batching.tiers.runs import RunView
from server.batching.tiers.store import Failures, apart, numerals, stale, told, turned
from server.edge.postgres import Connection
from server.edge.tasks import both

HOLD: Final = """
select position from tiers.runs where id = $1 and status = 'running' for update"""
# One row a person: what was told of it, what is decided of it, its packages in their order.
READ: Final = """
select c.id, c.key, c.name, c.global_recognition::text, c.career_legacy::text, c.current_relevance::text, c.demand::text,
    c.affluence::text, case when c.comparables <> '[]' then c.comparables::text end as comparables, c.legacy, c.global_award,
    c.net_worth_cents, coalesce(c.review_tier, c.override_tier)::text as override_tier,
    coalesce(c.review_reason, c.override_reason) as override_reason, c.country_given, c.timezone_given, c.accepted, c.country,
    c.country_source, s.allow_virtual, s.allow_physical, s.tier::text, s.max_monthly_slots, s.timezone, s.source, s.reason,
    s.needs_review, s.flags, s.rule_version, s.verified,
    array(select price_cents * 2 + active::int from tiers.celebrity_pricing p where p.celebrity_id = c.id
        order by meeting_type, duration) as prices
from tiers.celebrities c join tiers.celebrity_settings s on s.celebrity_id = c.id
where c.id > $1 and c.excluded is null and ($2::text is null or s.tier = $2::text::tiers.tier)
    and ($3::bigint is null or c.id = $3) and (not $4 or s.tier is null)
order by c.id limit $5 for no key update of c, s"""
KNOWN: Final = """
select a.folded, min(coalesce(c.review_tier, c.override_tier))::text
from tiers.aliases a join tiers.celebrities c on c.id = a.celebrity_id
where a.folded = any ($1::text[]) and coalesce(c.review_tier, c.override_tier) is not null
group by a.folded having count(distinct coalesce(c.review_tier, c.override_tier)) = 1"""
DECIDE: Final = """
update tiers.celebrity_settings s set tier = r.tier::tiers.tier, max_monthly_slots = r.most, timezone = r.timezone,
    source = r.source, reason = r.reason, needs_review = r.needs_review, flags = string_to_array(r.flags, ' '),
    rule_version = $9, verified = true, decided_at = clock_timestamp(), updated_at = clock_timestamp()
from unnest($1::bigint[], $2::text[], $3::smallint[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::text[])
    r (id, tier, most, timezone, source, reason, needs_review, flags)
where s.celebrity_id = r.id"""
SETTLE: Final = """
update tiers.celebrities c set country = r.country, country_source = r.source, updated_at = clock_timestamp()
from unnest($1::bigint[], $2::text[], $3::text[]) r (id, country, source) where c.id = r.id"""
_PACKAGES: Final = ", ".join(
    f"('{kind}'::tiers.meeting, {minutes}::smallint, p{n}, {kind})" for n, (kind, minutes) in enumerate(PACKAGES)
)
# Whoever has no packages yet is most of a first run, and costs half without looking for conflicts.
PRICE: Final = f"""
insert into tiers.celebrity_pricing as p (celebrity_id, meeting_type, duration, price_cents, active)
select r.id, k.kind, k.minutes, k.cents, k.active
from unnest($1::text::bigint[], $2::boolean[], $3::boolean[], $4::text::bigint[], $5::text::bigint[], $6::text::bigint[],
    $7::text::bigint[], $8::text::bigint[], $9::text::bigint[]) r (id, physical, virtual, p0, p1, p2, p3, p4, p5)
cross join lateral (values {_PACKAGES}) k (kind, minutes, cents, active)"""  # noqa: S608  names of ours
REPRICE: Final = f"""{PRICE}
on conflict (celebrity_id, meeting_type, duration) do update
set price_cents = excluded.price_cents, active = excluded.active, updated_at = clock_timestamp()
where (p.price_cents, p.active) is distinct from (excluded.price_cents, excluded.active)"""
NOTE: Final = """
insert into tiers.tier_history (celebrity_id, from_tier, to_tier, source, reason, rule_version, who)
select r.id, r.was::tiers.tier, r.tier::tiers.tier, r.source, r.reason, $6, $7
from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]) r (id, was, tier, source, reason)"""
FAIL: Final = """
insert into tiers.run_items (run_id, celebrity_id, status, reason)
select $1, r.id, 'failed', r.reason from unnest($2::bigint[], $3::text[]) r (id, reason)
on conflict (run_id, celebrity_id) do update set reason = excluded.reason, at = clock_timestamp()"""
MOVE: Final = """
update tiers.runs set position = $2, done = done + $3, unchanged = unchanged + $4, failed = failed + $5,
    progress_at = clock_timestamp() where id = $1"""

PART: Final = 250
"""People that are decided while as many are written."""

Breathe: TypeAlias = Callable[[], Awaitable[None]]
"""Called between two people: lets the event loop go on, now and then."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of one batch; `taken` of zero: nobody waits any more."""

    taken: int = 0
    done: int = 0
    unchanged: int = 0
    failed: int = 0
    slots: int = 0


@dataclass(slots=True)
class Change:
    """A person with something to write: decided anew, settled in another country, priced anew."""

    row: asyncpg.Record
    made: Appraisal
    decided: bool
    settled: bool
    priced: bool


async def classify_batch(connection: Connection, run: RunView, size: int, seed: bytes, breathe: Breathe) -> Batch:
    """The next people of a run, within the caller's transaction."""
    position = await connection.fetchval(HOLD, run.id)
    if position is None:  # Stopped, or ended by another process.
        return Batch()
    rows = await connection.fetch(READ, position, run.tier, run.person, run.scope == "new", size)
    if not rows:
        return Batch()
    changed, failed = await _worked_off(connection, rows, seed, breathe, run.started_by)
    if failed:
        await connection.execute(FAIL, run.id, list(failed), list(failed.values()))
    same = len(rows) - changed - len(failed)
    await connection.execute(MOVE, run.id, rows[-1]["id"], changed, same, len(failed))
    return Batch(len(rows), changed, same, len(failed))


async def _worked_off(
    connection: Connection, rows: Sequence[asyncpg.Record], seed: bytes, breathe: Breathe, who: str | None
) -> tuple[int, Failures]:
    """How many were written, and who failed. While PostgreSQL writes one part, the next is decided."""
    wanted = [_person(row) for row in rows]
    known = await _known(connection, wanted)
    changes: list[Change] = []
    changed, failed = 0, Failures()
    for first in range(0, len(rows) + PART, PART):
        part = slice(first, first + PART)
        (following, undecided), unwritten = await both(
            decide(rows[part], wanted[part], known, seed, breathe),
            apart(connection, changes, lambda some: write(connection, some, who), _id),
        )
        changed += len(changes) - len(unwritten)
        failed |= undecided | unwritten
        changes = following
    return changed, failed


async def classify_one(connection: Connection, person: int, seed: bytes, who: str | None) -> None:
    """One person, within the caller's transaction; a failure passes through."""
    rows = await connection.fetch(READ, person - 1, None, person, False, 1)
    wanted = [_person(row) for row in rows]
    changes, failed = await decide(rows, wanted, await _known(connection, wanted), seed, _at_once)
    assert not failed, failed
    await write(connection, changes, who)


async def decide(
    rows: Sequence[asyncpg.Record], wanted: Sequence[Person], known: Mapping[str, Tier], seed: bytes, breathe: Breathe
) -> tuple[list[Change], Failures]:
    """What of these people is not as it should be."""
    changes: list[Change] = []
    failed: Failures = {}
    for row, person in zip(rows, wanted, strict=True):
        try:
            change = _compared(row, appraise(person, known, seed))
        except Exception as error:  # noqa: BLE001  whatever is wrong with one person must not stop the others
            failed[row["id"]] = told(error)
            continue
        if change is not None:
            changes.append(change)
        await breathe()
    return changes, failed


def _person(row: asyncpg.Record) -> Person:
    (_, key, name, *ratings) = row[:8]
    comparables = row["comparables"]
    return Person(
        key,
        name,
        tuple(ratings),
        _comparables(comparables) if comparables else (),
        row["legacy"],
        row["global_award"],
        row["net_worth_cents"],
        row["override_tier"],
        row["country_given"],
        row["timezone_given"],
        row["allow_virtual"],
        row["allow_physical"],
    )


def _comparables(text: str) -> tuple[Comparable, ...]:
    return tuple(Comparable(one["name"], one["tier"]) for one in orjson.loads(text))


async def _known(connection: Connection, people: Sequence[Person]) -> Mapping[str, Tier]:
    names = {folded(one.name) for person in people for one in person.comparables if one.tier is None}
    return {row[0]: row[1] for row in await connection.fetch(KNOWN, list(names))} if names else {}


def _compared(row: asyncpg.Record, made: Appraisal) -> Change | None:
    """What differs from what the row says; None: nothing."""
    decision = made.decision
    now = (
        *(decision.tier, made.max_monthly_slots, made.timezone, decision.source, _reason(row, made)),
        *(bool(_open(row, made)), list(made.flags), RULE_VERSION, True),
    )
    decided = now != row[21:30]
    settled = (made.country, made.country_source) != (row["country"], row["country_source"])
    priced = [package.price_cents * 2 + package.active for package in made.packages] != row["prices"]
    return Change(row, made, decided, settled, priced) if decided or settled or priced else None


def _reason(row: asyncpg.Record, made: Appraisal) -> str:
    """A curated override has a reason of its own."""
    reason, own = made.decision.reason, row["override_reason"]
    return f"{reason}: {own}" if own and made.decision.source in ("override", "guard") else reason


def _open(row: asyncpg.Record, made: Appraisal) -> list[str]:
    """Flags that nobody has let pass."""
    return [flag for flag in made.flags if flag not in row["accepted"]]


async def write(connection: Connection, changes: Sequence[Change], who: str | None) -> None:
    """All that differs."""
    if settled := [one for one in changes if one.settled]:
        columns = ((one.row["id"], one.made.country, one.made.country_source) for one in settled)
        await connection.execute(SETTLE, *turned(3, columns))
    if decided := [one for one in changes if one.decided]:
        await connection.execute(DECIDE, *turned(8, map(_decided, decided)), RULE_VERSION)
    if moved := [one for one in decided if one.row["tier"] != one.made.decision.tier]:
        tiers = {tier for one in moved for tier in (one.row["tier"], one.made.decision.tier) if tier is not None}
        await stale(connection, sorted(tiers))
        await connection.execute(NOTE, *turned(5, map(_noted, moved)), RULE_VERSION, who)
    priced = [one for one in changes if one.priced]
    if new := [one for one in priced if not one.row["prices"]]:
        await connection.execute(PRICE, *_prices(new))
    if old := [one for one in priced if one.row["prices"]]:
        await connection.execute(REPRICE, *_prices(old))


def _id(one: Change) -> int:
    person: int = one.row["id"]
    return person


def _decided(one: Change) -> tuple[object, ...]:
    row, made = one.row, one.made
    return (
        *(row["id"], made.decision.tier, made.max_monthly_slots, made.timezone, made.decision.source),
        *(_reason(row, made), bool(_open(row, made)), " ".join(made.flags)),
    )


def _prices(priced: Sequence[Change]) -> Iterable[object]:
    yield numerals([one.row["id"] for one in priced])
    for kind in KINDS:
        yield [one.row[f"allow_{kind}"] for one in priced]
    for place in range(len(PACKAGES)):
        yield numerals([one.made.packages[place].price_cents for one in priced])


def _noted(one: Change) -> tuple[object, ...]:
    decision = one.made.decision
    return one.row["id"], one.row["tier"], decision.tier, decision.source, _reason(one.row, one.made)


async def _at_once() -> None:
    """Nobody to make room for."""
