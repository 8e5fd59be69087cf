"""The money in figures, and when to tell somebody about it.

    sums = await read(connection)       one statement, as service; sums.detail belongs into the turns of the loop `tracking-watch`
    RULES                               alert rules over these turns

Cheap at any size: sums over campaigns, and partial indexes of what waits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from server.batching.alerts import Rule, Severity
from server.batching.ledger import Records
from server.edge.postgres import Connection

WATCH: Final = "tracking-watch"
HELD_HOURS: Final = 24
PAYOUT_HOURS: Final = 72

READ: Final = """
select c.active as campaigns_active, c.paused as campaigns_paused, c.completed as campaigns_completed, c.pressing as campaigns_pressing,
    c.spent as spent_cents, c.left_cents as left_cents, h.count as held, h.hours as held_hours,
    p.pending as payouts_pending, p.approved as payouts_approved, p.cents as payouts_cents, p.hours as payouts_hours,
    (select coalesce(sum(net_cents), 0)::bigint from tracking.payouts where reverted_at is null) as paid_cents,
    (select count(*) from tracking.clip_submissions where status = 'PENDING') as submissions_pending
from (
    select count(*) filter (where status = 'ACTIVE') as active, count(*) filter (where status = 'PAUSED') as paused,
        count(*) filter (where status = 'COMPLETED') as completed,
        count(*) filter (where status = 'ACTIVE' and spent_cents * 5 >= (budget_cents - reserved_cents) * 4) as pressing,
        coalesce(sum(spent_cents), 0)::bigint as spent,
        coalesce(sum(budget_cents - reserved_cents - spent_cents) filter (where status = 'ACTIVE'), 0)::bigint as left_cents
    from tracking.campaigns
) c, (
    select count(*), coalesce(max(extract(epoch from clock_timestamp() - observed_at)) / 3600, 0)::float8 as hours
    from tracking.view_tracking where state = 'held'
) h, (
    select count(*) filter (where status = 'PENDING') as pending, count(*) filter (where status = 'APPROVED') as approved,
        coalesce(sum(amount_cents), 0)::bigint as cents,
        coalesce(max(extract(epoch from clock_timestamp() - changed_at)) / 3600, 0)::float8 as hours
    from tracking.payout_requests where status in ('PENDING', 'APPROVED')
) p"""


@dataclass(frozen=True, slots=True)
class Sums:
    """Campaigns by status (pressing: 80 % spent), all that was granted and can be, what waits and for how long, what was paid."""

    campaigns_active: int = 0
    campaigns_paused: int = 0
    campaigns_completed: int = 0
    campaigns_pressing: int = 0
    spent_cents: int = 0
    left_cents: int = 0
    held: int = 0
    held_hours: float = 0.0
    payouts_pending: int = 0
    payouts_approved: int = 0
    payouts_cents: int = 0
    payouts_hours: float = 0.0
    paid_cents: int = 0
    submissions_pending: int = 0

    @property
    def detail(self) -> dict[str, int | float]:
        """As a turn's record tells it."""
        return {name: round(value, 1) for name, value in asdict(self).items()}


async def read(connection: Connection) -> Sums:
    """What the database says now."""
    row = await connection.fetchrow(READ)
    assert row is not None
    return Sums(**dict(row))


def _last(records: Records) -> dict[str, float]:
    """What the last turn of the watch said; nothing when there was none, or it failed."""
    last = records.get(WATCH, ())[-1:]
    if not last or last[0].error is not None:
        return {}
    return {name: float(value) for name, value in last[0].detail.items() if not isinstance(value, str)}


def _held(records: Records, now_ms: int) -> str | None:
    said = _last(records)
    if said.get("held_hours", 0) <= HELD_HOURS:
        return None
    return f"counts of views wait for a review: {said['held']:.0f}, the oldest for {said['held_hours']:.0f} h; accept or reject them"


def _payouts(records: Records, now_ms: int) -> str | None:
    said = _last(records)
    if said.get("payouts_hours", 0) <= PAYOUT_HOURS:
        return None
    waiting = said["payouts_pending"] + said["payouts_approved"]
    return f"payout requests wait: {waiting:.0f}, the oldest for {said['payouts_hours']:.0f} h; approve, complete or reject them"


RULES: Final = (
    Rule("tracking-held", Severity.WARNING, _held),
    Rule("tracking-payouts", Severity.INFO, _payouts),
)
