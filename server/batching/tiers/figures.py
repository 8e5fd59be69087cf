"""How the tiers are doing: figures read in one go, what follows from them, when to tell somebody.

figures = await read(connection)      people without a tier, runs under way and stuck, failures of the last day, verdicts
RULES                                 alert rules over the turns of the loops `tiers-watch` and `tiers-monthly`
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from server.batching.alerts import Rule, Severity
from server.batching.ledger import Records
from server.batching.tiers.runs import ALIVE_S
from server.edge.postgres import Connection

WATCH: Final = "tiers-watch"
MONTHLY: Final = "tiers-monthly"
WATCH_MS: Final = 60_000
STUCK_S: Final = 10 * ALIVE_S

# Without reading anything as large as availability; bookings are counted by their own index.
READ: Final = f"""
select p.people, p.missing, p.review, r.running, r.stuck, r.failed_lately, v.failing, b.booked
from (
    select count(*) as people, count(*) filter (where s.tier is null) as missing, count(*) filter (where s.needs_review) as review
    from tiers.celebrities c left join tiers.celebrity_settings s on s.celebrity_id = c.id where c.excluded is null
) p, (
    select count(*) filter (where status = 'running') as running,
        count(*) filter (where status = 'running' and progress_at < clock_timestamp() - interval '{STUCK_S} seconds') as stuck,
        coalesce(sum(failed) filter (where progress_at > clock_timestamp() - interval '1 day'), 0)::bigint as failed_lately
    from tiers.runs where status = 'running' or progress_at > clock_timestamp() - interval '1 day'
) r, (
    select count(*) as failing from (
        select distinct on (tier, month) passed, stale from tiers.verifications
        where at > clock_timestamp() - interval '1 day' order by tier, month, id desc) newest where not passed and not stale
) v, (
    select count(*) as booked from tiers.availability where booked_by is not null and status = 'booked'
) b"""  # noqa: S608  a number of ours


@dataclass(frozen=True, slots=True)
class Figures:
    """How things are. `stuck`: runs that nobody moves; `failing`: verifications of the last day that failed and stand."""

    people: int = 0
    missing: int = 0
    review: int = 0
    running: int = 0
    stuck: int = 0
    failed_lately: int = 0
    failing: int = 0
    booked: int = 0

    @property
    def detail(self) -> dict[str, int]:
        """As a turn's record tells it."""
        return asdict(self)


GAUGES: Final = {
    "people": "active people",
    "missing": "active people without a tier",
    "review": "people whose tier somebody should look at",
    "running": "runs under way",
    "failing": "verifications of the last day that failed and stand",
    "booked": "slots that are booked",
}


async def read(connection: Connection) -> Figures:
    """What the database says now."""
    row = await connection.fetchrow(READ)
    assert row is not None
    return Figures(**dict(row))


# --- when to tell somebody ---


def _last(records: Records, loop: str) -> dict[str, int | float | str]:
    """What the last turn said; nothing when there was none, or it failed."""
    last = records.get(loop, ())[-1:]
    return {} if not last or last[0].error is not None else dict(last[0].detail)


def _number(records: Records, name: str) -> int:
    value = _last(records, WATCH).get(name, 0)
    return int(value) if not isinstance(value, str) else 0


def _stopped(records: Records, now_ms: int) -> str | None:
    said = _last(records, MONTHLY)
    if said.get("action") != "stop":
        return None
    return f"the generation of {said.get('month')} has stopped: {said.get('why')}; see batchcast tiers report"


def _failing(records: Records, now_ms: int) -> str | None:
    failing = _number(records, "failing")
    return f"tier verifications failed and stand: {failing}; see batchcast tiers verify" if failing else None


def _failed(records: Records, now_ms: int) -> str | None:
    failed = _number(records, "failed_lately")
    return (
        f"people who failed in tier runs within a day: {failed}; their errors are in the runs' reports"
        if failed
        else None
    )


def _stuck(records: Records, now_ms: int) -> str | None:
    stuck = _number(records, "stuck")
    return (
        f"tier runs that nobody has moved for {STUCK_S / 60:.0f} min: {stuck}; resume or stop them" if stuck else None
    )


RULES: Final = (
    Rule("tiers-month-stopped", Severity.ERROR, _stopped),
    Rule("tiers-verification-failed", Severity.WARNING, _failing),
    Rule("tiers-people-failed", Severity.WARNING, _failed),
    Rule("tiers-run-stuck", Severity.WARNING, _stuck),
)
