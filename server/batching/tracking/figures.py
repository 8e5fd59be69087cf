"""How the runs are doing, all nodes together: figures read in a few cheap statements, numbers for monitoring, when to tell somebody.

figures = await read(connection, terms)      calls of the month, the last runs, what is due, what failed
measure(figures, gauge)                      numbers for monitoring, each with its meaning
RULES                                        alert rules over the turns of `tracking-watch`; those on money are in sums.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, TypeAlias

from server.batching.alerts import Rule, Severity
from server.batching.ledger import Records
from server.batching.tracking import health, selection, usage
from server.batching.tracking import quota as month
from server.batching.tracking.actors import Standing
from server.batching.tracking.health import STALE_INTERVALS
from server.batching.tracking.sums import WATCH
from server.edge.postgres import Connection

WATCH_MS: Final = 60_000
SUCCESS_LEAST: Final = 80
QUOTA_MOST: Final = 80
FAILED_MOST: Final = 50
LATE_HOURS: Final = 6
TOLD_LEAST: Final = 5
"""Fewer clips of one run say little; those of the day are told all together."""

LAST: Final = """
select stop_reason, error, processed, successful from tracking.tracking_runs where finished_at is not null order by id desc limit 1"""

Measure: TypeAlias = Callable[[str, str, Callable[[], float]], None]

GAUGES: Final = {
    "calls_month": "calls of the provider in this UTC month",
    "quota_percent": "of the month's quota, what is used",
    "quota_projected_percent": "of the month's quota, what will be used by its end at this pace",
    "success_percent": "clips that could be read, of those looked at in 24 hours",
    "processed_day": "clips looked at in 24 hours",
    "due": "clips that are due",
    "late_hours": "for how long the clip that waits longest has been due (hours)",
    "failed_open": "clips that could not be read and still cannot",
    "last_run_age_s": "seconds since the last run began",
    "running": "1 while a run is under way",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it now. `last_processed`, `last_successful`, `stop_reason`, `error` are those of the run that ended last;
    `failing_actors`: platforms none of whose actors holds."""

    configured: int = 0
    calls_month: int = 0
    quota: int = 0
    quota_percent: float = 0.0
    quota_projected_percent: float = 0.0
    processed_day: int = 0
    success_percent: float = 100.0
    due: int = 0
    late_hours: float = 0.0
    failed_open: int = 0
    running: int = 0
    last_run_age_s: float = 0.0
    interval_s: float = 0.0
    last_processed: int = 0
    last_successful: int = 0
    stop_reason: str = ""
    error: str = ""
    failing_actors: str = ""

    @property
    def detail(self) -> dict[str, int | float | str]:
        """As a turn's record tells it."""
        return {name: round(value, 1) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Watched:
    """What the figures are read for: the quota, the pace, which actors each platform has and when they hold."""

    configured: bool
    quota: month.Terms
    interval_s: float
    actors: dict[str, tuple[str, ...]]
    least_percent: float


async def read(connection: Connection, watched: Watched) -> Figures:
    """What the database says now."""
    used = await month.usage(connection, watched.quota)
    day = await health.day(connection)
    due = await selection.due(connection)
    failed_open, _ = await health.queues(connection)
    last = await connection.fetchrow(LAST)
    opened = await connection.fetchval("select count(*) from tracking.tracking_runs where finished_at is null")
    return Figures(
        configured=int(watched.configured),
        calls_month=used.calls,
        quota=used.quota,
        quota_percent=used.percent,
        quota_projected_percent=used.projected_percent,
        processed_day=day.processed,
        success_percent=100.0 if day.success_percent is None else day.success_percent,
        due=due.all,
        late_hours=due.late_s / 3600,
        failed_open=failed_open,
        running=opened,
        last_run_age_s=day.age_s or 0.0,
        interval_s=watched.interval_s,
        last_processed=last["processed"] if last else 0,
        last_successful=last["successful"] if last else 0,
        stop_reason=last["stop_reason"] if last else "",
        error=(last["error"] or "")[:200] if last else "",
        failing_actors=", ".join(await _failing(connection, watched)),
    )


async def _failing(connection: Connection, watched: Watched) -> list[str]:
    """Platforms none of whose actors succeeds often enough."""
    standings = await usage.standings_of(connection)
    unknown = Standing()
    return [
        platform
        for platform, names in watched.actors.items()
        if names and not any(standings.get((platform, name), unknown).holds(watched.least_percent) for name in names)
    ]


# --- when to tell somebody ---


def _last(records: Records) -> dict[str, int | float | str]:
    """What the last turn of the watch said; nothing when there was none, or it failed."""
    last = records.get(WATCH, ())[-1:]
    return dict(last[0].detail) if last and last[0].error is None else {}


def _number(records: Records, name: str) -> float:
    value = _last(records).get(name, 0)
    return 0.0 if isinstance(value, str) else float(value)


def _text(records: Records, name: str) -> str:
    value = _last(records).get(name, "")
    return value if isinstance(value, str) else ""


def _success(records: Records, now_ms: int) -> str | None:
    """The last run, if it says something, or the whole day."""
    processed, successful = _number(records, "last_processed"), _number(records, "last_successful")
    if processed >= TOLD_LEAST and successful * 100 < SUCCESS_LEAST * processed:
        percent, what = 100 * successful / processed, f"the last run could read %s of its {processed:.0f} clips"
    elif _last(records) and _number(records, "success_percent") < SUCCESS_LEAST:
        percent, what = _number(records, "success_percent"), "of the clips of the last 24 hours %s could be read"
    else:
        return None
    return f"{what % f'{percent:.1f} %'} (less than {SUCCESS_LEAST} %); see GET /tracking/failed"


def _quota(records: Records, now_ms: int) -> str | None:
    percent = _number(records, "quota_percent")
    if percent <= QUOTA_MOST or percent >= 100:
        return None
    calls, most = _number(records, "calls_month"), _number(records, "quota")
    return (
        f"{calls:.0f} of this month's {most:.0f} calls are used ({percent:.0f} %); slow and dormant clips wait longer"
    )


def _spent(records: Records, now_ms: int) -> str | None:
    if _number(records, "quota_percent") < 100 or not _number(records, "quota"):
        return None
    most = _number(records, "quota")
    return f"all {most:.0f} calls of this month are used: nothing is counted until the month ends, or another TRACKING_PLAN is set"


def _auth(records: Records, now_ms: int) -> str | None:
    if _text(records, "stop_reason") != "provider_auth":
        return None
    return (
        f"the provider refused our token, and the run stopped: {_text(records, 'error') or 'set another APIFY_TOKEN'}"
    )


def _stale(records: Records, now_ms: int) -> str | None:
    age_s, interval_s = _number(records, "last_run_age_s"), _number(records, "interval_s")
    if not _number(records, "configured") or age_s <= STALE_INTERVALS * interval_s:
        return None
    return f"the last run began {age_s / 60:.0f} min ago (more than {STALE_INTERVALS} intervals of {interval_s / 60:.0f} min)"


def _late(records: Records, now_ms: int) -> str | None:
    hours = _number(records, "late_hours")
    if not _number(records, "configured") or hours <= LATE_HOURS:
        return None
    due = _number(records, "due")
    return f"{due:.0f} clips are due, the oldest for {hours:.0f} h: raise TRACKING_LIMIT or the plan; see batchcast tracking plan"


def _failed(records: Records, now_ms: int) -> str | None:
    failed = _number(records, "failed_open")
    return (
        None
        if failed <= FAILED_MOST
        else f"{failed:.0f} clips cannot be read (more than {FAILED_MOST}); see GET /tracking/failed"
    )


def _actor(records: Records, now_ms: int) -> str | None:
    failing = _text(records, "failing_actors")
    return f"no actor succeeds often enough for {failing}: list another in TRACKING_*_ACTORS" if failing else None


RULES: Final = (
    Rule("tracking-success", Severity.WARNING, _success),
    Rule("tracking-quota", Severity.INFO, _quota),
    Rule("tracking-quota-spent", Severity.ERROR, _spent),
    Rule("tracking-auth", Severity.ERROR, _auth),
    Rule("tracking-stale", Severity.WARNING, _stale),
    Rule("tracking-late", Severity.WARNING, _late),
    Rule("tracking-failed", Severity.WARNING, _failed),
    Rule("tracking-actors", Severity.WARNING, _actor),
)
