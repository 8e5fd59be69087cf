"""The order of plan.py as SQL: claims of the most urgent clips, exact over all that are due, at the price of a few index scans.

    claims = await claim(db, run_id, 100, lease_s)          fewer than asked for: nothing else is due
    await release(connection, releases)                     in the transaction of what was found; says which were still ours
    await let_go(connection, holds)                         given back unseen: still due
    await renew(connection, holds, lease_s)                 by a heartbeat; says which are still ours

A score changes with every second, its order does not (see plan.py): within a *lane* (tracking.lane: active or ended, never looked at,
campaign new or old) it is that of the last look. So the index holds lanes in that order, and the most urgent of all are among the
first few of each lane. What is not due yet must not be walked over: a lane has only clips that wait about as long after their
last look, so the due ones are its older end, and the few others in there (put off after a failure) are passed within the index.
Time alone moves a clip from one lane to another in one case, when its newest campaign becomes seven days old; `age` writes
that down, once for a clip, and a claim sees to it before it looks. The planner is not asked: with the sizes of the moment it
would at times sort, or read the whole table.

A clip is held as long as its row has the lease's number and the lease has not run out. Nothing cleans up after the dead: what ran
out may be claimed. Claims wait for each other (a lock of a few milliseconds), so that each finds the others' leases written; SKIP LOCKED is
for those who hold a clip for another reason just now.

What it costs: the index names last_checked_at and next_due_at, so a settlement's update of a clip is no HOT update. Measured
(tests/bench/bench_tracking.py keeps it): a settlement of 10,000 counts takes some 10 % more CPU than without the index. A table
beside clips with a copy of these times would save that, for a second truth and one more write a look.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

import asyncpg

from server.batching.tracking import plan
from server.batching.tracking.cadence import COUNTS_MOST, Count, Pace
from server.batching.tracking.plan import State, Tracked
from server.batching.tracking.posts import Platform
from server.batching.tracking.store import serving
from server.edge.postgres import Connection, Database

CLAIM_MOST: Final = 10_000
"""Clips of one claim."""
SPARES: Final = (16, 1_000)
"""So many more than asked for are looked at, in case somebody else holds some of them just now; then, if it was too few, so many."""
AGE_SLICE: Final = 5_000
"""Clips that are told in one transaction that their campaign is not new any more."""
COUNTED_MOST: Final = 1_000
"""Due clips of a lane are counted up to here."""
CLAIMING: Final = 7_238_114_011
"""The lock that claims wait for each other with: any number that nothing else in this database locks."""

ACTIVE: Final = (0, 10, *range(20, 28), *range(30, 38))
ENDED: Final = (40, *range(50, 58))
WAITS_H: Final = (0, 2, 4, 8, 16, 24, 48, 72)
"""By the last digit of a lane that waits: its clips are due so many hours after their last look, or later."""
NEVER: Final = (0, 10, 40)
ALWAYS: Final = dt.datetime.max.replace(tzinfo=dt.UTC)
MARGIN: Final = dt.timedelta(minutes=10)
"""A look comes so much after the beginning of its run at most, else its clip is counted to the lane that waits less."""

# A plan that sorts or reads the whole table would be as right and a thousand times slower, and where few clips are due the planner's
# guess is often wrong. Then the lock of all claims, and what time it is once it is held.
BEGIN: Final = """
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true),
    pg_advisory_xact_lock($1), clock_timestamp() as moment"""
NOW: Final = "select clock_timestamp()"
# The older end of each lane is put together and ordered; then rows are locked in that order until there are enough. What is asked once more
# of `held` is for those that somebody changed in between.
CLAIM: Final = """
with asked as (
    select lane, until from unnest($2::smallint[], $3::timestamptz[]) as a (lane, until)
), found as (
    select c.* from asked a cross join lateral (
        select c.id, c.lane, c.last_checked_at, coalesce(c.last_checked_at, c.created_at) as oldest, c.young
        from tracking.clips c
        where c.lane = a.lane and coalesce(c.last_checked_at, c.created_at) <= a.until and c.next_due_at <= $1
            and (c.lease_until is null or c.lease_until <= $1)
        order by coalesce(c.last_checked_at, c.created_at), c.id limit $4
    ) c
), scored as (
    select id, last_checked_at, oldest, case when young then 3 else 2 end * case
        when last_checked_at is null then 2 * 999 * 3600000000::bigint
        else (extract(epoch from since) * 1000000)::bigint
            * case when since >= interval '8 hours' then 4 when since >= interval '4 hours' then 2 else 1 end
        end as score
    from (select *, $1::timestamptz - last_checked_at as since from found) f
), first as (
    select id, row_number() over (order by last_checked_at is not null, score desc, oldest, id) as place from scored
    order by place limit $4
), held as (
    select c.id, f.place from first f join tracking.clips c on c.id = f.id
    where c.lane = any($2) and c.next_due_at <= $1 and (c.lease_until is null or c.lease_until <= $1)
    order by f.place limit $5 for no key update of c skip locked
)
update tracking.clips c
set lease = c.lease + 1, lease_run = $6, lease_until = $1::timestamptz + make_interval(secs => $7)
from held where c.id = held.id
returning held.place, c.id as clip_id, c.lease, c.platform, c.post_id, c.url, c.tracked, c.pressing, c.baseline_wanted, c.created_at,
    c.last_checked_at, c.newest_campaign_at, c.not_found, c.pace"""
AGE: Final = """
with old as (
    select id from tracking.clips where id = any(array(
        select id from tracking.clips where young and newest_campaign_at <= $1::timestamptz - interval '7 days' limit $2))
    order by id for no key update skip locked
)
update tracking.clips c set young = false from old where c.id = old.id"""

MINE: Final = """
with asked as (select * from unnest($1::bigint[], $2::bigint[]) as a (id, lease)), mine as (
    select c.id from tracking.clips c join asked a on a.id = c.id and a.lease = c.lease
    where c.lease_until is not null order by c.id for no key update of c
)"""
RELEASE: Final = f"""{MINE}
update tracking.clips c
set next_due_at = r.due, pace = r.pace, state = r.state, not_found = r.not_found, lease_until = null, lease_run = null
from mine join unnest($1::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::int[]) as r (id, due, pace, state, not_found)
    on r.id = mine.id
where c.id = mine.id returning c.id"""  # noqa: S608  a constant of ours
LET_GO: Final = f"""{MINE}
update tracking.clips c set lease_until = null, lease_run = null from mine where c.id = mine.id"""  # noqa: S608  a constant of ours
RENEW: Final = f"""{MINE}
update tracking.clips c set lease_until = clock_timestamp() + make_interval(secs => $3)
from mine where c.id = mine.id returning c.id"""  # noqa: S608  a constant of ours

COUNTS: Final = """
select a.id, v.observed_at, v.views from unnest($1::bigint[]) as a (id) cross join lateral (
    select observed_at, views from tracking.view_tracking
    where clip_id = a.id and state in ('counted', 'lower', 'accepted') order by observed_at desc limit $2
) v order by a.id, v.observed_at desc"""
DUE: Final = """
select a.lane, count(c) as count, count(c) filter (where c.lease_until > $1) as leased,
    coalesce(extract(epoch from $1::timestamptz - min(c.next_due_at)), 0)::float8 as late_s
from unnest($2::smallint[], $3::timestamptz[]) as a (lane, until) left join lateral (
    select c.next_due_at, c.lease_until from tracking.clips c
    where c.lane = a.lane and coalesce(c.last_checked_at, c.created_at) <= a.until and c.next_due_at <= $1
    order by coalesce(c.last_checked_at, c.created_at), c.id limit $4
) c on true group by a.lane"""
MORE: Final = """
select exists (
    select from unnest($2::smallint[], $3::timestamptz[]) as a (lane, until) cross join lateral (
        select from tracking.clips c
        where c.lane = a.lane and coalesce(c.last_checked_at, c.created_at) <= a.until and c.next_due_at <= $1
            and (c.lease_until is null or c.lease_until <= $1)
        order by coalesce(c.last_checked_at, c.created_at), c.id limit 1
    ) c
)"""
LIVE: Final = """
select tracked, pressing, pace, state, count(*) as count
from tracking.clips where tracked <> 'none' group by tracked, pressing, pace, state"""

Hold: TypeAlias = tuple[int, int]
"""A clip and the number of the lease on it."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A clip that is ours until the lease runs out."""

    clip_id: int
    lease: int
    platform: Platform
    post_id: str
    url: str
    tracked: Tracked
    pressing: bool
    baseline_wanted: bool
    created_at: dt.datetime
    last_checked_at: dt.datetime | None
    newest_campaign_at: dt.datetime | None
    not_found: int
    pace: Pace
    priority: float

    @property
    def hold(self) -> Hold:
        """What says that it is ours."""
        return self.clip_id, self.lease


@dataclass(frozen=True, slots=True)
class Release:
    """What becomes of a clip that was looked at."""

    clip_id: int
    lease: int
    next_due_at: dt.datetime
    pace: Pace
    state: State = "ok"
    not_found: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """Clips that are due: never looked at, of active campaigns, of those that are over; how many of them are leased at the moment,
    and for how long the one that waits longest has been due. `capped`: more than were counted."""

    never: int
    active: int
    ended: int
    leased: int
    late_s: float
    capped: bool

    @property
    def all(self) -> int:
        """All of them, with those that are being looked at."""
        return self.never + self.active + self.ended


@dataclass(frozen=True, slots=True)
class Live:
    """Clips that are needed: of active campaigns by pace (those of a campaign that has nearly spent its budget apart), of those that
    are over, and those among all that can't be read."""

    paces: dict[Pace, int]
    pressing: int
    ended: int
    unavailable: int
    unsupported: int

    @property
    def active(self) -> int:
        """Clips of active campaigns that can be read."""
        return sum(self.paces.values()) + self.pressing


# --- claims ---


async def claim(
    db: Database, run_id: int, wanted: int, lease_s: float, now: dt.datetime | None = None
) -> list[Claimed]:
    """The most urgent clips at this moment (the database's own, if none is said), leased to a run, in order."""
    assert 0 < wanted <= CLAIM_MOST, f"{wanted} clips in one claim"
    while True:
        async with serving(db) as connection:
            begun = await connection.fetchrow(BEGIN, CLAIMING)
            assert begun is not None
            moment = now or begun["moment"]
            if await _age(connection, moment) < AGE_SLICE:
                return await _most_urgent(connection, moment, wanted, run_id, lease_s)


async def _most_urgent(
    connection: Connection, now: dt.datetime, wanted: int, run_id: int, lease_s: float
) -> list[Claimed]:
    claimed: list[Claimed] = []
    for lanes, spare in product((ACTIVE, ENDED), SPARES):
        if (left := wanted - len(claimed)) > 0:
            values = (lanes, _untils(lanes, now), left + spare, left, run_id, lease_s)
            rows = await connection.fetch(CLAIM, now, *values)
            claimed += [_claimed(row, now) for row in sorted(rows, key=lambda row: int(row["place"]))]
    return claimed


def _untils(lanes: Iterable[int], now: dt.datetime) -> list[dt.datetime]:
    """By lane: who was looked at later can't be due."""
    waits = [WAITS_H[lane % 10] for lane in lanes]
    return [now - dt.timedelta(hours=hours) + MARGIN if hours else ALWAYS for hours in waits]


def _claimed(row: asyncpg.Record, now: dt.datetime) -> Claimed:
    values = {name: value for name, value in row.items() if name != "place"}
    return Claimed(**values, priority=plan.priority(row["last_checked_at"], row["newest_campaign_at"], now))


async def age(db: Database, now: dt.datetime | None = None) -> int:
    """Write down whose newest campaign has become seven days old; how many clips that were."""
    aged, told = 0, AGE_SLICE
    while told == AGE_SLICE:
        async with serving(db) as connection:
            begun = await connection.fetchrow(BEGIN, CLAIMING)
            assert begun is not None
            told = await _age(connection, now or begun["moment"])
        aged += told
    return aged


async def _age(connection: Connection, now: dt.datetime) -> int:
    return _count(await connection.execute(AGE, now, AGE_SLICE))


async def moment_of(connection: Connection) -> dt.datetime:
    """What the database's clock says."""
    moment: dt.datetime = await connection.fetchval(NOW)
    return moment


# --- what becomes of them ---


async def release(connection: Connection, releases: Sequence[Release]) -> frozenset[int]:
    """Write when they are due again and let go of them; those that were still ours."""
    if not releases:
        return frozenset()
    columns = [
        [getattr(one, name) for one in releases]
        for name in ("clip_id", "lease", "next_due_at", "pace", "state", "not_found")
    ]
    return frozenset(row["id"] for row in await connection.fetch(RELEASE, *columns))


async def let_go(connection: Connection, holds: Sequence[Hold]) -> int:
    """Give them back unseen; how many were still ours."""
    return _count(await connection.execute(LET_GO, *_columns(holds))) if holds else 0


async def renew(connection: Connection, holds: Sequence[Hold], lease_s: float) -> frozenset[int]:
    """Hold them for so long from now; those that are still ours."""
    if not holds:
        return frozenset()
    return frozenset(row["id"] for row in await connection.fetch(RENEW, *_columns(holds), lease_s))


# --- what there is ---


async def counts_of(connection: Connection, clips: Sequence[int]) -> dict[int, tuple[Count, ...]]:
    """The last counts of these clips, newest first, as many as a pace looks back at; those of no counts are not in it."""
    found: dict[int, list[Count]] = {}
    for row in await connection.fetch(COUNTS, list(clips), COUNTS_MOST):
        found.setdefault(row["id"], []).append(Count(row["observed_at"], row["views"]))
    return {clip: tuple(counts) for clip, counts in found.items()}


async def due(connection: Connection, now: dt.datetime | None = None) -> Due:
    """How many are due, each lane counted up to a bound."""
    moment = now or await moment_of(connection)
    lanes = ACTIVE + ENDED
    rows = await connection.fetch(DUE, moment, lanes, _untils(lanes, moment), COUNTED_MOST)
    counts = {row["lane"]: row["count"] for row in rows}
    return Due(
        never=sum(counts[lane] for lane in NEVER),
        active=sum(counts[lane] for lane in ACTIVE if lane not in NEVER),
        ended=sum(counts[lane] for lane in ENDED if lane not in NEVER),
        leased=sum(row["leased"] for row in rows),
        late_s=max(row["late_s"] for row in rows),
        capped=any(count >= COUNTED_MOST for count in counts.values()),
    )


async def more(connection: Connection, now: dt.datetime | None = None) -> bool:
    """Is any clip due that nobody has a lease on? Cheap, unlike counting."""
    moment = now or await moment_of(connection)
    lanes = ACTIVE + ENDED
    return bool(await connection.fetchval(MORE, moment, lanes, _untils(lanes, moment)))


async def live(connection: Connection) -> Live:
    """All clips that are needed, counted one by one: for people, not for a loop."""
    rows = await connection.fetch(LIVE)
    paces, pressing = Counter[Pace](), 0
    others = Counter[State]()
    for row in rows:
        if row["state"] != "ok" or row["tracked"] == "ended":
            others[row["state"]] += row["count"]
        elif row["pressing"]:
            pressing += row["count"]
        else:
            paces[row["pace"]] += row["count"]
    return Live(dict(paces), pressing, others["ok"], others["unavailable"], others["unsupported"])


def _columns(holds: Sequence[Hold]) -> tuple[list[int], list[int]]:
    return [clip for clip, _ in holds], [lease for _, lease in holds]


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])
