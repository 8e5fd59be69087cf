"""How the imports of all processes are doing: figures read in one statement, what follows from them, when to tell somebody.

    figures = await read(connection)                 cheap at any size of the queue: partial indexes, today's statistics
    pace.add(now, figures); pace.members_per_s       of the last minute, all workers together
    RULES                                            alert rules over the turns of the loop `imports-watch`

What failed lately is looked for among the newest NEWEST jobs, and only when something failed today.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Final

from server.batching.alerts import Rule, Severity
from server.batching.imports.plan import workers_suggested
from server.batching.imports.store import Day, Overview
from server.batching.ledger import Records
from server.edge.postgres import Connection

WATCH: Final = "imports-watch"
WATCH_MS: Final = 2_000
NEWEST: Final = 5_000
PACE_S: Final = 60.0
CLEAR_WITHIN_S: Final = 600.0
"""So many workers are suggested as would clear the backlog in this time."""
LANES_USUAL: Final = 4
STUCK_TURNS: Final = 10
NAMED_MOST: Final = 100
FAILED_LEAST: Final = 5
"""Fewer failures in an hour are not worth waking anybody, whatever their share."""

REFUSED: Final = r"\((401|403)\)|^credential \d+ (was|is) "
"""How the texts of jobs read that ended because of their credential (server/batching/imports/provider.py, vault.py)."""
FIGURES: Final = """
select
    (select count(*) from imports.batch_processing_queue where status = 'scheduled') as scheduled,
    (select count(*) from imports.batch_processing_queue where status = 'pending') as pending,
    (select count(*) from imports.batch_processing_queue q where status = 'pending' and folder is not null
        and not exists (select from imports.batch_processing_workers w where w.status = 'active' and w.folder = q.folder)
    ) as stranded,
    w.workers, w.dead, held.count as processing, d.completed as completed_today, d.failed as failed_today,
    d.members + held.seen as members
from (
    select count(*) filter (where status = 'active') as workers,
        count(*) filter (where status = 'dead' and last_heartbeat > now() - interval '1 hour') as dead
    from imports.batch_processing_workers
) w, (
    select count(*), coalesce(sum(seen), 0)::bigint as seen from imports.batch_processing_queue where status = 'processing'
) held, (
    select coalesce(sum(completed), 0)::bigint as completed, coalesce(sum(failed), 0)::bigint as failed,
        coalesce(sum(members), 0)::bigint as members
    from imports.stats_shard where date = (now() at time zone 'utc')::date
) d"""
LATELY: Final = """
select count(*) as ended, count(*) filter (where status = 'failed') as failed,
    count(*) filter (where status = 'failed' and error ~ $1) as refused,
    string_agg(distinct credential_id::text, ', ') filter (where status = 'failed' and error ~ $1) as credentials
from (select status, error, credential_id, finished_at from imports.batch_processing_queue order by id desc limit $2) newest
where status in ('completed', 'failed') and finished_at > now() - interval '1 hour'"""


@dataclass(frozen=True, slots=True)
class Figures:
    """The queue now. `members`: handled today, those of jobs under way included; `lately`: within an hour; `stranded`: pending, of
    a file in a folder that no living worker reads."""

    scheduled: int = 0
    pending: int = 0
    stranded: int = 0
    workers: int = 0
    dead: int = 0
    processing: int = 0
    completed_today: int = 0
    failed_today: int = 0
    members: int = 0
    ended_lately: int = 0
    failed_lately: int = 0
    refused_lately: int = 0
    refused: str = ""
    """The credentials of these jobs, by number; the first NAMED_MOST characters of it."""

    @property
    def detail(self) -> dict[str, int | str]:
        """As a turn's record tells it."""
        return {name: value for name, value in asdict(self).items() if name != "members"}


async def read(connection: Connection) -> Figures:
    """What the database says now."""
    row = await connection.fetchrow(FIGURES)
    assert row is not None
    figures = dict(row)
    if figures["failed_today"]:
        lately = await connection.fetchrow(LATELY, REFUSED, NEWEST)
        assert lately is not None
        figures |= {f"{name}_lately": lately[name] for name in ("ended", "failed", "refused")}
        figures["refused"] = (lately["credentials"] or "")[:NAMED_MOST]
    return Figures(**figures)


class Pace:
    """Throughput of the last minute, from figures read now and then."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int, int]] = deque()

    def add(self, now: float, figures: Figures) -> None:
        """One more reading. What goes back (a day that begins, a job that is requeued) counts as nothing."""
        jobs = figures.completed_today + figures.failed_today
        self._points.append((now, figures.members, jobs))
        while len(self._points) > 1 and now - self._points[0][0] > PACE_S:
            self._points.popleft()

    @property
    def members_per_s(self) -> float:
        """Members handled a second."""
        return _grown([point[1] for point in self._points]) / self._seconds() if len(self._points) > 1 else 0.0

    @property
    def jobs_per_min(self) -> float:
        """Jobs ended a minute."""
        return _grown([point[2] for point in self._points]) * 60 / self._seconds() if len(self._points) > 1 else 0.0

    def _seconds(self) -> float:
        return max(self._points[-1][0] - self._points[0][0], 0.001)


def _grown(values: list[int]) -> int:
    return sum(max(0, after - before) for before, after in pairwise(values))


def week(days: tuple[Day, ...]) -> dict[str, int | float]:
    """The last days together."""
    jobs = sum(day.total_jobs for day in days)
    seconds = sum(day.avg_processing_seconds * day.total_jobs for day in days)
    return {
        "totalJobs": jobs,
        "completedJobs": sum(day.completed_jobs for day in days),
        "failedJobs": sum(day.failed_jobs for day in days),
        "totalMembersProcessed": sum(day.total_members_processed for day in days),
        "avgProcessingSeconds": round(seconds / jobs, 3) if jobs else 0.0,
    }


def suggested(overview: Overview) -> int:
    """How many workers the backlog asks for, at the week's pace."""
    waiting = overview.by_status.get("pending", 0) + overview.by_status.get("processing", 0)
    lanes = [worker.lanes for worker in overview.workers if worker.status == "active"]
    usual = round(sum(lanes) / len(lanes)) if lanes else LANES_USUAL
    seconds = float(week(overview.days)["avgProcessingSeconds"]) or 1.0
    return workers_suggested(waiting, seconds, max(1, usual), CLEAR_WITHIN_S)


# --- when to tell somebody ---


def _last(records: Records) -> dict[str, float]:
    """What the last turn of the watch said; nothing when there was none, or it failed."""
    last = records.get(WATCH, ())[-1:]
    if not last or last[0].error is not None:
        return {}
    return {name: float(value) for name, value in last[0].detail.items() if not isinstance(value, str)}


def _stuck(records: Records, now_ms: int) -> str | None:
    last = records.get(WATCH, ())[-STUCK_TURNS:]
    if len(last) < STUCK_TURNS or any(r.error or not r.detail.get("pending") or r.detail.get("workers") for r in last):
        return None
    return f"no worker lives, and {last[-1].detail['pending']} imports wait: start one (batchcast worker, or IMPORTS_LANES > 0)"


def _stranded(records: Records, now_ms: int) -> str | None:
    last = records.get(WATCH, ())[-STUCK_TURNS:]
    if len(last) < STUCK_TURNS or any(r.error or not r.detail.get("stranded") for r in last):
        return None
    return (
        f"{last[-1].detail['stranded']} imports of files wait for a worker that reads the folder they are in: start one on the "
        "host that took them in, or share IMPORTS_FOLDER"
    )


def _failing(records: Records, now_ms: int) -> str | None:
    said = _last(records)
    failed, ended = said.get("failed_lately", 0), said.get("ended_lately", 0)
    if failed < FAILED_LEAST or 2 * failed < ended:
        return None
    return f"{failed:.0f} of {ended:.0f} imports failed within an hour; see batchcast imports list --status failed"


def _refused(records: Records, now_ms: int) -> str | None:
    refused = _last(records).get("refused_lately", 0)
    if not refused:
        return None
    named = records[WATCH][-1].detail.get("refused") or "removed ones"
    return (
        f"credentials were refused ({named}), {refused:.0f} imports failed of it within an hour; see batchcast credentials "
        "check ID, rotate, then requeue"
    )


def _lost(records: Records, now_ms: int) -> str | None:
    dead = _last(records).get("dead", 0)
    return f"import workers died within an hour: {dead:.0f}; their jobs went back to the queue" if dead else None


RULES: Final = (
    Rule("imports-stuck", Severity.ERROR, _stuck),
    Rule("imports-stranded", Severity.ERROR, _stranded),
    Rule("imports-failing", Severity.WARNING, _failing),
    Rule("imports-credential-refused", Severity.WARNING, _refused),
    Rule("imports-worker-lost", Severity.WARNING, _lost),
)
