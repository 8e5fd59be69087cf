"""How the schedules are doing, all nodes together: figures read in one statement, numbers for monitoring, when to tell somebody.

    figures = await read(connection, most)    cheap: partial indexes, and the newest rows of runs and webhooks
    Watch(...).turn, .measure(gauge)          the loop `schedules-watch`, on every node; numbers for monitoring
    RULES                                     alert rules over the turns of `schedules-watch` and `schedules-retry`

A line (platform x type x interval) is full when its batches are and no further one may be made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, TypeAlias

from server.batching.alerts import Rule, Severity
from server.batching.ledger import Records
from server.batching.loop import Occasion, Turn
from server.batching.schedules.plan import CRITICAL
from server.batching.schedules.store import SERVICE, act_as
from server.edge.clock import Clock
from server.edge.postgres import Connection, Database

WATCH: Final = "schedules-watch"
WATCH_MS: Final = 10_000
RETRY: Final = "schedules-retry"
RETRIES_MOST: Final = 10
FAILED_MOST: Final = 10
SILENT_MS: Final = 600_000
SLOW_S: Final = 30.0
STUCK_S: Final = 900.0
"""A start that has waited for so long has something in its way: the token, an actor, the account's room."""
LATELY: Final = 200
"""Webhooks among which the slowest is looked for."""

FIGURES: Final = """
select
    (select count(*) from schedules.provider_run where processed_at is null and state = 'intended') as intended,
    (select count(*) from schedules.provider_run where processed_at is null and state in ('starting', 'running')) as running,
    (select count(*) from schedules.provider_run where processed_at is null and state = 'unknown') as unknown,
    (select count(*) from schedules.provider_run where processed_at is null
        and state in ('succeeded', 'failed', 'aborted', 'timed_out', 'refused')) as unprocessed,
    (select coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float8 from schedules.provider_run
        where processed_at is null and state = 'intended') as oldest_intent_s,
    (select error from schedules.provider_run where processed_at is null and state = 'intended' and error is not null
        order by id limit 1) as trouble,
    (select count(*) from schedules.retry where state = 'waiting') as retries_waiting,
    (select count(*) from schedules.retry where state = 'running') as retries_running,
    (select count(*) from schedules.retry where state = 'failed') as retries_failed,
    (select count(*) from schedules.webhook_delivery where processed_at is null) as webhooks_waiting,
    (select coalesce(max(extract(epoch from coalesce(r.processed_at, clock_timestamp()) - d.received_at)), 0)::float8
        from (select * from schedules.webhook_delivery order by id desc limit $1) d
        join schedules.provider_run r on r.provider_run_id = d.run_id
        where d.received_at > clock_timestamp() - interval '1 hour') as slowest_webhook_s,
    (select count(*) from (
        select from schedules.schedule where active and not paused group by platform, type, interval_hours
        having sum(businesses) > $2 * sum(capacity) and max(batch_index) + 1 >= $3
    ) full_lines) as full_lines"""

Measure: TypeAlias = Callable[[str, str, Callable[[], float]], None]

MEANING: Final = {
    "intended": "runs that wait to be started",
    "running": "runs under way at the provider",
    "unknown": "starts of which nobody knows whether they were taken",
    "unprocessed": "runs that have ended and are not attributed yet",
    "oldest_intent_s": "seconds that the oldest start has waited",
    "retries_waiting": "businesses that wait for a retry",
    "retries_running": "businesses that are tried again now",
    "retries_failed": "businesses that have failed for good",
    "webhooks_waiting": "webhooks that have not been worked on",
    "slowest_webhook_s": "seconds from a webhook to the end of its run's attribution, the slowest of the last hour",
    "full_lines": "schedules that are more than 95 % full and can get no further batch",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it now. `trouble`: why the first of the starts that wait has not been made."""

    intended: int = 0
    running: int = 0
    unknown: int = 0
    unprocessed: int = 0
    oldest_intent_s: float = 0.0
    trouble: str | None = None
    retries_waiting: int = 0
    retries_running: int = 0
    retries_failed: int = 0
    webhooks_waiting: int = 0
    slowest_webhook_s: float = 0.0
    full_lines: int = 0

    @property
    def detail(self) -> dict[str, int | float | str]:
        """As a turn's record tells it."""
        rounded = {n: round(v, 1) if isinstance(v, float) else v for n, v in asdict(self).items()}
        return {name: value for name, value in rounded.items() if value is not None}


async def read(connection: Connection, batches_most: int) -> Figures:
    """What the database says now."""
    row = await connection.fetchrow(FIGURES, LATELY, CRITICAL, batches_most)
    assert row is not None
    return Figures(**dict(row))


class Watch:
    """The figures of this node's last look. `leads`: does this node lead, and so run the loops that work?"""

    def __init__(
        self, db: Database, clock: Clock, leads: Callable[[], bool], *, batches_most: int, retry_ms: int
    ) -> None:
        self.figures = Figures()
        self._db = db
        self._clock = clock
        self._leads = leads
        self._batches_most = batches_most
        self._silent_ms = max(SILENT_MS, 2 * retry_ms)
        self._led_since: float | None = None

    async def turn(self, occasion: Occasion) -> Turn:
        """Look again."""
        async with self._db.transaction() as connection:
            await act_as(connection, SERVICE)
            self.figures = await read(connection, self._batches_most)
        return Turn(detail=self.figures.detail | self._leading())

    def _leading(self) -> dict[str, int | float | str]:
        """For how long this node has led, and how long its loops may be silent; nothing while it doesn't."""
        if not self._leads():
            self._led_since = None
            return {}
        now = self._clock.monotonic()
        self._led_since = now if self._led_since is None else self._led_since
        return {"leading_ms": round((now - self._led_since) * 1000), "silent_ms": self._silent_ms}

    def measure(self, gauge: Measure) -> None:
        """Put the figures among the server's numbers."""

        def figure(name: str) -> Callable[[], float]:
            return lambda: float(getattr(self.figures, name))

        for name, meaning in MEANING.items():
            gauge(f"schedules_{name}", f"schedules: {meaning}", figure(name))


# --- when to tell somebody ---


def _last(records: Records) -> dict[str, int | float | str]:
    """What the last turn of the watch said; nothing when there was none, or it failed."""
    last = records.get(WATCH, ())[-1:]
    return dict(last[0].detail) if last and last[0].error is None else {}


def _number(records: Records, name: str) -> float:
    value = _last(records).get(name, 0)
    return 0.0 if isinstance(value, str) else float(value)


def _full(records: Records, now_ms: int) -> str | None:
    full = _number(records, "full_lines")
    if not full:
        return None
    return (
        f"{full:.0f} schedules are more than {CRITICAL:.0%} full and can get no further batch: raise SCHEDULES_*_CAPACITY "
        "(new batches get it), or move teams to other intervals"
    )


def _queue(records: Records, now_ms: int) -> str | None:
    waiting = _number(records, "retries_waiting") + _number(records, "retries_running")
    if waiting <= RETRIES_MOST:
        return None
    return f"{waiting:.0f} businesses wait for a retry (more than {RETRIES_MOST}); GET /admin/health says more"


def _failed(records: Records, now_ms: int) -> str | None:
    failed = _number(records, "retries_failed")
    if failed <= FAILED_MOST:
        return None
    return (
        f"{failed:.0f} businesses have failed for good (more than {FAILED_MOST}); look at their errors, then try them "
        "again: POST /admin/businesses/ID/retry"
    )


def _silent(records: Records, now_ms: int) -> str | None:
    """Only where the loop has to run: elsewhere another node leads."""
    said, may_be = _last(records), _number(records, "silent_ms")
    last = records.get(RETRY, ())[-1:]
    silent_ms = now_ms - last[0].started_at_ms if last else _number(records, "leading_ms")
    if "leading_ms" not in said or min(silent_ms, _number(records, "leading_ms")) <= may_be:
        return None
    return f"the loop {RETRY} has not run for {silent_ms / 60_000:.0f} minutes; is it paused?"


def _slow(records: Records, now_ms: int) -> str | None:
    slowest = _number(records, "slowest_webhook_s")
    if slowest <= SLOW_S:
        return None
    return f"a webhook took {slowest:.0f} s until its run was attributed (more than {SLOW_S:.0f} s)"


def _stuck(records: Records, now_ms: int) -> str | None:
    waited, trouble = _number(records, "oldest_intent_s"), _last(records).get("trouble")
    if waited <= STUCK_S or trouble is None:
        return None
    return f"runs have not been started for {waited / 60:.0f} minutes: {trouble}"


RULES: Final = (
    Rule("schedules-full", Severity.CRITICAL, _full),
    Rule("schedules-retry-queue", Severity.WARNING, _queue),
    Rule("schedules-failed", Severity.CRITICAL, _failed),
    Rule("schedules-retry-silent", Severity.WARNING, _silent),
    Rule("schedules-webhooks-slow", Severity.WARNING, _slow),
    Rule("schedules-stuck", Severity.ERROR, _stuck),
)
