"""Counts that rose too much at once, and wait until an admin says what they are.

    await reviews.held(who)                        what waits, oldest first
    await reviews.accept(observation_id, who)      it was so: it counts from now on, and is settled, once
    await reviews.reject(observation_id, who)      it was not: it never counts; both take a note for the trail

A clip whose count has jumped is held at each further check too. Judging one of these judges those before it the same way: they are
the same jump, still on its way. Those after an accepted one are no jumps any more, or wait on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from server.batching import audit
from server.batching.tracking import money as m
from server.batching.tracking.settlement import book, entries_of, hold_campaigns, hold_clips
from server.batching.tracking.store import PAGE_MOST, admin, freshen, refresh, serving, told
from server.core.identity import Identity
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

HELD: Final = """
select v.id, v.clip_id, c.platform, c.post_id, c.url, v.observed_at, v.views, v.before
from tracking.view_tracking v join tracking.clips c on c.id = v.clip_id
where v.state = 'held' and v.id > $1 order by v.id limit $2"""
FIND: Final = "select clip_id from tracking.view_tracking where id = $1 and state in ('held', 'accepted', 'rejected')"
OPEN: Final = """
select id, observed_at, views from tracking.view_tracking where clip_id = $1 and state = 'held' order by observed_at"""
JUDGED: Final = """
select id, state, judged_by from tracking.view_tracking where id = $1 and state in ('held', 'accepted', 'rejected')"""
JUDGE: Final = """
update tracking.view_tracking set state = $2, judged_at = clock_timestamp(), judged_by = $3 where id = any($1) and state = 'held'"""
BEST: Final = """
update tracking.clips set best_views = $2, best_observation_id = $3, views = $4 where id = $1"""


@dataclass(frozen=True, slots=True)
class Held:
    """A count that waits; `before` is the clip's best at that time."""

    observation_id: int
    clip_id: int
    platform: str
    post_id: str
    url: str
    at: dt.datetime
    views: int
    before: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of it; `also` are the other counts of the clip that were judged with it."""

    observation_id: int
    clip_id: int
    state: m.State
    also: tuple[int, ...]
    granted_cents: int
    completed: tuple[int, ...]
    audit_id: int


class Reviews:
    """The verbs of admins on held counts."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def held(self, who: Identity, after: int = 0, limit: int = 50) -> Sequence[Held]:
        """What waits, oldest first."""
        admin(who, "the list of counts to review")
        async with serving(self._db) as connection:
            return [Held(*row) for row in await connection.fetch(HELD, after, min(limit, PAGE_MOST))]

    async def accept(self, observation_id: int, who: Identity, note: str = "") -> Verdict:
        """Let it count: the best count rises to it, and submissions are paid what follows from that."""
        name, text = admin(who, "accepting a count"), told(note, "note")
        async with serving(self._db) as connection:
            clip, accounts, sight = await _hold(connection, observation_id)
            waiting = await connection.fetch(OPEN, clip)
            accepted = _accepted(waiting, observation_id, sight)
            entries = await entries_of(connection, [clip], accounts)
            settled = m.settle(accounts, entries, accepted)
            also = await _judge(connection, [one.observation_id for one in accepted], observation_id, "accepted", name)
            rise = accepted[-1]
            await connection.execute(BEST, clip, rise.best, _best_id(accepted), rise.views)
            changed = await book(connection, settled)
            await refresh(connection, settled.based)
            noted = await _note(connection, observation_id, "accepted", name, also, text)
        if changed:
            await freshen(self._db, changed)
        money = (settled.granted_cents, settled.completed)
        return Verdict(observation_id, clip, "accepted", also, *money, noted)

    async def reject(self, observation_id: int, who: Identity, note: str = "") -> Verdict:
        """Never let it count."""
        name, text = admin(who, "rejecting a count"), told(note, "note")
        async with serving(self._db) as connection:
            clip, _, _ = await _hold(connection, observation_id)
            doomed = [row["id"] for row in _upto(await connection.fetch(OPEN, clip), observation_id)]
            also = await _judge(connection, doomed, observation_id, "rejected", name)
            noted = await _note(connection, observation_id, "rejected", name, also, text)
        return Verdict(observation_id, clip, "rejected", also, 0, (), noted)


async def _hold(connection: Connection, observation_id: int) -> tuple[int, list[m.Account], m.Sight]:
    """The clip of a count that waits, its campaigns and itself locked."""
    clip = await connection.fetchval(FIND, observation_id)
    if clip is None:
        raise Refused(Code.NOT_FOUND, f"no count {observation_id} waits for a review", field="id")
    accounts = await hold_campaigns(connection, [clip])
    sights = await hold_clips(connection, [clip])
    row = await connection.fetchrow(JUDGED, observation_id)
    if row is None or row["state"] != "held":
        by = f"{row['state']} by {row['judged_by']}" if row else "gone"
        raise Refused(Code.CONFLICT, f"the count {observation_id} has been judged already: {by}", field="id")
    return clip, accounts, sights[clip]


def _upto(waiting: Sequence[asyncpg.Record], observation_id: int) -> list[asyncpg.Record]:
    """Those up to the one that is judged, in the order of their times."""
    place = [row["id"] for row in waiting].index(observation_id)
    return list(waiting[: place + 1])


def _accepted(waiting: Sequence[asyncpg.Record], observation_id: int, sight: m.Sight) -> list[m.Sighted]:
    """The one that is accepted, those before it, and those after it that are no jumps any more by it."""
    best, accepted = sight.best, list[m.Sighted]()
    sure = len(_upto(waiting, observation_id))
    for place, row in enumerate(waiting):
        if place < sure or not m.is_jump(row["views"], best):
            best = max(best or 0, row["views"])
            accepted.append(m.Sighted(row["id"], sight.clip_id, row["views"], best, row["observed_at"], accepted=True))
    return accepted


def _best_id(accepted: Sequence[m.Sighted]) -> int | None:
    """The first count that reached what is the best now."""
    return next(one.observation_id for one in accepted if one.best == accepted[-1].best)


async def _judge(
    connection: Connection, ids: Sequence[int | None], asked: int, state: m.State, who: str
) -> tuple[int, ...]:
    await connection.execute(JUDGE, ids, state, who)
    return tuple(one for one in ids if one is not None and one != asked)


async def _note(
    connection: Connection, observation_id: int, state: m.State, who: str, also: tuple[int, ...], note: str
) -> int:
    target, after = f"observation {observation_id}", {"state": state, "also": also, "note": note}
    return await audit.write(connection, who, f"tracking.observation.{state}", target, {"state": "held"}, after)
