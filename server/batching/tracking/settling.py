"""What a batch of looks at clips becomes: counts with their money, the next look at each, failures, the run's numbers.

    recorded = await settle(books, seen, lost)

Two transactions, each all or nothing: first what was counted (settlement.py), with the next look at these clips, and what they
have gained; then what could not be read. Both are harmless when they come again: a count is known by its clip and its moment, and
a clip that is somebody else's by now is left as it is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.batching.tracking import cadence, failures, growth, runs
from server.batching.tracking.cadence import Count, Known, Level, after_failure, next_check
from server.batching.tracking.failures import Failed
from server.batching.tracking.money import Observed
from server.batching.tracking.plan import State
from server.batching.tracking.runs import Did
from server.batching.tracking.selection import Claimed, Release, counts_of, release
from server.batching.tracking.settlement import NOTHING, OBSERVATIONS_MOST, Recorded, hold_clips, record_in
from server.batching.tracking.store import freshen, serving
from server.batching.tracking.trying import Failure, Reason
from server.edge.bus import Bus
from server.edge.postgres import Database

KINDS: Final[dict[Reason, cadence.Reason]] = {"not_found": "gone", "rejected": "refused", "unsupported": "refused"}
"""How a failure puts off the next look (cadence.after_failure); those that are not in here are retried sooner."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A count of a clip that was taken at this moment, by the database's clock."""

    clip: Claimed
    views: int
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Lost:
    """A clip that could not be read in this run."""

    clip: Claimed
    failure: Failure


@dataclass(frozen=True, slots=True)
class Books:
    """Where it is written. `bus`: what clips have gained is told there; None: to nobody. `not_found_most`: then a clip is given up."""

    db: Database
    bus: Bus | None
    run_id: int
    since: dt.datetime
    level: Level
    not_found_most: int


async def settle(books: Books, seen: Sequence[Seen], lost: Sequence[Lost]) -> Recorded:
    """Write it all down. A clip counts as processed when it was still ours: who has it now will count it."""
    recorded = NOTHING
    for start in range(0, len(seen), OBSERVATIONS_MOST):
        recorded += await _settle_seen(books, seen[start : start + OBSERVATIONS_MOST])
    if lost:
        await _settle_lost(books, lost)
    return recorded


async def _settle_seen(books: Books, seen: Sequence[Seen]) -> Recorded:
    observed = [Observed(one.clip.clip_id, one.views, one.at) for one in seen]
    clips = [one.clip.clip_id for one in seen]
    async with serving(books.db) as connection:
        recorded, changed = await record_in(connection, observed, books.run_id)
        counts = await counts_of(connection, clips)
        ours = await release(
            connection, [_after_count(books, one.clip, counts.get(one.clip.clip_id, ())) for one in seen]
        )
        await failures.resolve(connection, clips)
        did = Did(successful=len(ours), earned_cents=recorded.granted_cents)
        await runs.count(connection, books.run_id, did)
        if books.bus is not None:
            await growth.publish(connection, books.bus, clips)
    if changed:
        await freshen(books.db, changed)
    return recorded


def _after_count(books: Books, clip: Claimed, counts: Sequence[Count]) -> Release:
    known = Known(clip.tracked, clip.pressing, clip.created_at)
    following = next_check(known, counts, books.since, books.level)
    return Release(clip.clip_id, clip.lease, following.due_at, following.pace)


async def _settle_lost(books: Books, lost: Sequence[Lost]) -> None:
    failed = [Failed(one.clip.clip_id, one.failure) for one in lost]
    async with serving(books.db) as connection:
        await hold_clips(
            connection, [one.clip_id for one in failed]
        )  # Clips come before what hangs on them, for everybody.
        attempts = await failures.note(connection, books.run_id, failed)
        releases = [_after_failure(books, one, attempts[one.clip.clip_id]) for one in lost]
        ours = await release(connection, releases)
        await failures.put_off(connection, {one.clip_id: _tried_at(one) for one in releases})
        await runs.count(connection, books.run_id, Did(failed=len(ours)))


def _tried_at(release: Release) -> dt.datetime | None:
    """One that is given up is not tried again by itself."""
    return release.next_due_at if release.state == "ok" else None


def _after_failure(books: Books, one: Lost, attempts: int) -> Release:
    clip, reason = one.clip, one.failure.reason
    not_found = clip.not_found + 1 if reason == "not_found" else clip.not_found
    if reason == "auth":  # Not its fault: it is due as before, as soon as there is a token that is good.
        return Release(clip.clip_id, clip.lease, books.since, clip.pace, "ok", not_found)
    due_at = after_failure(KINDS.get(reason, "retry"), attempts, books.since)
    if reason == "unsupported":
        return Release(clip.clip_id, clip.lease, due_at, clip.pace, "unsupported", not_found)
    state: State = "unavailable" if not_found >= books.not_found_most else "ok"
    return Release(clip.clip_id, clip.lease, due_at, clip.pace, state, not_found)
