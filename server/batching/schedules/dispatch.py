"""Which batches are due: an intent for each slot, in the transaction that moves the batch on to its next slot.

So a slot has exactly one intent, whatever crashed and however many believed to lead: the row of the batch is locked, the fence
holds the leader's term until the commit, and the key of the intent (batch and slot) is unique besides. Starting the run is somebody
else's, who finds the intent in the table.

After an outage a batch gets ONE intent, for the latest slot that passed, however many did; then the grid goes on (cadence.py says
why). A paused batch is not looked at, and what passes meanwhile is nobody's: `resume` begins with the next slot. An empty one only
moves on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from server.batching.schedules import store as s
from server.batching.schedules.plan import Platform, Type
from server.edge.postgres import Connection, Database

Fence: TypeAlias = Callable[[Connection], Awaitable[int]]
"""Holds the lead until the end of the transaction and answers its term; raises when it is lost."""

# slot_at and next_slot of cadence.py, for many at once. The tests hold the two against each other.
DUE: Final = """
with due as materialized (
    select id, platform, type, businesses, interval_hours * 60 as every, offset_minutes,
        floor(extract(epoch from $1::timestamptz) / 60)::bigint as minute
    from schedules.schedule
    where not paused and next_run_at <= $1 and ($4::boolean or provider_schedule_id is null)
    order by next_run_at, id limit $2
    for no key update skip locked
),
slots as (
    select due.*, minute - mod(minute - offset_minutes, every) as slot from due
),
advanced as (
    update schedules.schedule sc set next_run_at = to_timestamp((slots.slot + slots.every) * 60),
        last_run_at = case when slots.businesses > 0 then $1 else sc.last_run_at end
    from slots where sc.id = slots.id
),
intents as (
    insert into schedules.provider_run (intent_key, kind, schedule_id, platform, type, slot, term, created_at)
    select 'scheduled:' || id || ':' || slot, 'scheduled', id, platform, type, to_timestamp(slot * 60), $3, $1
    from slots where businesses > 0
    on conflict (intent_key) do nothing
    returning id, schedule_id
)
select slots.id, slots.platform, slots.type, to_timestamp(slots.slot * 60) as slot, intents.id as run_id
from slots left join intents on intents.schedule_id = slots.id order by slots.id"""


@dataclass(frozen=True, slots=True)
class Intent:
    """A run that is to be started."""

    run_id: int
    schedule_id: int
    platform: Platform
    type: Type
    slot: dt.datetime


@dataclass(frozen=True, slots=True)
class Due:
    """The intents that were made, how many batches only moved on, and whether more are due."""

    intents: tuple[Intent, ...]
    skipped: int
    more: bool


async def due(db: Database, now: dt.datetime, limit: int, fence: Fence, own_clock: bool = True) -> Due:
    """Make the intents of up to so many batches that are due at this time, those that wait longest first.

    `own_clock` false: those that the provider's own schedules serve (mirror.py) are left to them."""

    async def work(connection: Connection) -> Due:
        term = await fence(connection)
        await connection.execute(s.NOTING)
        rows = await connection.fetch(DUE, now, limit, term, own_clock)
        intents = tuple(
            Intent(r["run_id"], r["id"], r["platform"], r["type"], r["slot"]) for r in rows if r["run_id"] is not None
        )
        return Due(intents, len(rows) - len(intents), len(rows) == limit)

    return await s.settled(db, work)
