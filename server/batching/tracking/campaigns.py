"""Campaigns: a budget, what a thousand views are paid, and whether that goes on.

    ACTIVE ----pause----> PAUSED
      |  ^                  |
      |  +---- reactivate --+------ reactivate (pays the gap once) ------+
      +---- the last cent is granted, or complete --------------> COMPLETED

Only an ACTIVE campaign takes submissions and grants anything. What its posts were seen meanwhile is not lost: reactivating pays
what the best counts amount to by then, in the order of the submissions, as far as the money goes. Whoever changes a campaign holds its
row. Creators see the campaigns that are open, and those that they are in, without their money.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import asyncpg

from server.batching import audit
from server.batching.tracking import money as m
from server.batching.tracking import settlement
from server.batching.tracking.store import PAGE_MOST, admin, freshen, reading, serving, told
from server.core.identity import Identity
from server.core.money import dollars
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

Status: TypeAlias = Literal["ACTIVE", "PAUSED", "COMPLETED"]
STATUSES: Final[tuple[Status, ...]] = ("ACTIVE", "PAUSED", "COMPLETED")

_OPEN: Final = "id, name, status, baseline, rate_cents, created_at, completed_at"
_FULL: Final = f"{_OPEN}, activated_at, budget_cents, reserved_cents, spent_cents, submissions"
LIST: Final = """
select {columns} from tracking.campaigns
where ($1::text is null or status = $1) and ($2::bigint is null or id < $2) order by id desc limit $3"""
SHOW: Final = "select {columns} from tracking.campaigns where id = $1"
HOLD: Final = f"select {_FULL}, activation from tracking.campaigns where id = $1 for no key update"  # noqa: S608  names are ours
CREATE: Final = f"""
insert into tracking.campaigns (name, baseline, rate_cents, budget_cents, reserved_cents, created_by)
values ($1, $2, $3, $4, $5, $6) returning {_FULL}"""  # noqa: S608  names are ours
SET_STATUS: Final = """
update tracking.campaigns set status = $2, changes = changes + 1,
    completed_at = case when $2 = 'COMPLETED' then clock_timestamp() end,
    activated_at = case when $2 = 'ACTIVE' then clock_timestamp() else activated_at end,
    activation = activation + case when $2 = 'ACTIVE' then 1 else 0 end
where id = $1"""
SET_BUDGET: Final = """
update tracking.campaigns set budget_cents = $2, reserved_cents = $3, changes = changes + 1 where id = $1"""
REOPEN: Final = (
    "update tracking.clip_submissions set final_cents = null where campaign_id = $1 and final_cents is not null"
)
GAP: Final = """
select s.id, s.campaign_id, s.clip_id, s.creator, true as approved, s.baseline_from, s.baseline_views, s.baseline_at, s.earned_cents
from tracking.clip_submissions s where s.campaign_id = $1 and s.status = 'APPROVED' and s.baseline_views is not null order by s.id"""
BEST: Final = """
select c.id, c.best_views, c.last_checked_at from tracking.clips c
where c.best_views is not null and c.id in (
    select s.clip_id from tracking.clip_submissions s where s.campaign_id = $1 and s.status = 'APPROVED')"""


@dataclass(frozen=True, slots=True)
class NewCampaign:
    """What is asked for; cents, and cents for a thousand views."""

    name: str
    budget_cents: int
    rate_cents: int
    baseline: str = "submission"
    reserved_cents: int = 0


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign; its money is None for whoever may not see it."""

    id: int
    name: str
    status: Status
    baseline: m.Baseline
    rate_cents: int
    created_at: dt.datetime
    completed_at: dt.datetime | None
    activated_at: dt.datetime | None = None
    budget_cents: int | None = None
    reserved_cents: int | None = None
    spent_cents: int | None = None
    submissions: int | None = None

    @property
    def left_cents(self) -> int | None:
        """What it can still grant."""
        if self.budget_cents is None or self.reserved_cents is None or self.spent_cents is None:
            return None
        return self.budget_cents - self.reserved_cents - self.spent_cents

    @property
    def spent_percent(self) -> float | None:
        """How much it has granted of what it can grant in all."""
        left = self.left_cents
        if left is None or self.spent_cents is None:
            return None
        return round(100 * self.spent_cents / max(1, left + self.spent_cents), 1)


@dataclass(frozen=True, slots=True)
class Changed:
    """The campaign afterwards, what was paid by the change, and the entry in the trail."""

    campaign: Campaign
    audit_id: int
    granted_cents: int = 0


class Campaigns:
    """The verbs on campaigns."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list(
        self, who: Identity, *, status: Status | None = None, before: int | None = None, limit: int = 50
    ) -> Sequence[Campaign]:
        """Newest first; `before` is the id that ended the page before."""
        async with reading(self._db, who) as connection:
            sql = LIST.format(columns=_FULL if who.admin else _OPEN)
            return [Campaign(*row) for row in await connection.fetch(sql, status, before, min(limit, PAGE_MOST))]

    async def show(self, campaign_id: int, who: Identity) -> Campaign:
        """One of them."""
        async with reading(self._db, who) as connection:
            row = await connection.fetchrow(SHOW.format(columns=_FULL if who.admin else _OPEN), campaign_id)
        return _found(row, campaign_id)

    async def create(self, wish: NewCampaign, who: Identity) -> Changed:
        """A new one, ACTIVE at once."""
        name = admin(who, "creating a campaign")
        _check(wish)
        async with serving(self._db) as connection:
            values = (wish.name.strip(), wish.baseline, wish.rate_cents, wish.budget_cents, wish.reserved_cents)
            row = await connection.fetchrow(CREATE, *values, name)
            assert row is not None
            campaign = Campaign(*row)
            audit_id = await _note(connection, name, "created", campaign.id, None, _said(campaign))
        return Changed(campaign, audit_id)

    async def pause(self, campaign_id: int, who: Identity) -> Changed:
        """Neither submissions nor grants, until it is reactivated."""
        return await self._turn(campaign_id, who, "PAUSED", ("ACTIVE",))

    async def complete(self, campaign_id: int, who: Identity) -> Changed:
        """End it although money is left: its earnings can be paid out from now on."""
        return await self._turn(campaign_id, who, "COMPLETED", ("ACTIVE", "PAUSED"))

    async def reactivate(self, campaign_id: int, who: Identity) -> Changed:
        """Go on, and pay what its posts have gained meanwhile; one that is full needs a higher budget first."""
        name = admin(who, "reactivating a campaign")
        async with serving(self._db) as connection:
            campaign = await _hold(connection, campaign_id)
            if campaign.status == "ACTIVE":
                raise Refused(Code.CONFLICT, f"the campaign {campaign_id} is ACTIVE already", field="status")
            if not campaign.left_cents:
                raise _full(campaign)
            await connection.execute(SET_STATUS, campaign_id, "ACTIVE")
            await connection.execute(REOPEN, campaign_id)
            granted = await _pay_gap(connection, campaign_id)
            changed = await _hold(connection, campaign_id)
            after = _said(changed) | {"grantedCents": granted}
            audit_id = await _note(connection, name, "reactivated", campaign_id, _said(campaign), after)
        await freshen(self._db, [campaign_id])
        return Changed(changed, audit_id, granted)

    async def set_budget(
        self, campaign_id: int, who: Identity, *, budget_cents: int | None = None, reserved_cents: int | None = None
    ) -> Changed:
        """Another budget or reserve. A campaign that is full stays COMPLETED until it is reactivated."""
        name = admin(who, "changing a budget")
        async with serving(self._db) as connection:
            campaign = await _hold(connection, campaign_id)
            budget = campaign.budget_cents if budget_cents is None else budget_cents
            reserved = campaign.reserved_cents if reserved_cents is None else reserved_cents
            assert budget is not None and reserved is not None
            _check_money(budget, reserved)
            _check_spent(campaign, budget - reserved)
            await connection.execute(SET_BUDGET, campaign_id, budget, reserved)
            changed = await _hold(connection, campaign_id)
            audit_id = await _note(connection, name, "budget", campaign_id, _said(campaign), _said(changed))
        await freshen(self._db, [campaign_id])
        return Changed(changed, audit_id)

    async def _turn(self, campaign_id: int, who: Identity, status: Status, from_: tuple[Status, ...]) -> Changed:
        name = admin(who, "changing a campaign")
        async with serving(self._db) as connection:
            campaign = await _hold(connection, campaign_id)
            if campaign.status not in from_:
                message = f"the campaign {campaign_id} is {campaign.status}; only one that is {' or '.join(from_)} can become {status}"
                raise Refused(Code.CONFLICT, message, field="status")
            await connection.execute(SET_STATUS, campaign_id, status)
            if status == "COMPLETED":
                await settlement.complete(connection, [campaign_id])
            changed = await _hold(connection, campaign_id)
            audit_id = await _note(connection, name, status.lower(), campaign_id, _said(campaign), _said(changed))
        await freshen(self._db, [campaign_id])
        return Changed(changed, audit_id)


async def _pay_gap(connection: Connection, campaign_id: int) -> int:
    """Pay what is owed by now; the grants name no observation, so each activation pays each submission once."""
    accounts = await settlement.hold_accounts(connection, [campaign_id])
    entries = [m.Entry(*row) for row in await connection.fetch(GAP, campaign_id)]
    best = {
        row["id"]: m.Sighted(None, row["id"], row["best_views"], row["best_views"], row["last_checked_at"])
        for row in await connection.fetch(BEST, campaign_id)
    }
    settled = m.settle_gap(accounts, entries, best)
    await settlement.book(connection, settled)
    return settled.granted_cents


async def _hold(connection: Connection, campaign_id: int) -> Campaign:
    row = await connection.fetchrow(HOLD, campaign_id)
    return _found(None if row is None else tuple(row)[:-1], campaign_id)


def _found(row: asyncpg.Record | tuple[object, ...] | None, campaign_id: int) -> Campaign:
    if row is None:
        raise Refused(Code.NOT_FOUND, f"there is no campaign {campaign_id}, or none that you may see", field="id")
    return Campaign(*row)


def _check(wish: NewCampaign) -> None:
    if not wish.name.strip():
        raise Refused(Code.BAD_MESSAGE, "a campaign needs a name", field="name")
    told(wish.name, "name", 200)
    if wish.baseline not in m.BASELINES:
        raise Refused(
            Code.BAD_MESSAGE, f"baseline is one of {', '.join(m.BASELINES)}, not {wish.baseline!r}", field="baseline"
        )
    if not 1 <= wish.rate_cents <= m.RATE_MOST:
        message = f"rateCents (for a thousand views) goes from 1 to {m.RATE_MOST}, not {wish.rate_cents}"
        raise Refused(Code.BAD_MESSAGE, message, field="rateCents", limit=m.RATE_MOST)
    _check_money(wish.budget_cents, wish.reserved_cents)


def _check_money(budget: int, reserved: int) -> None:
    if not 1 <= budget <= m.BUDGET_MOST:
        message = f"budgetCents goes from 1 to {m.BUDGET_MOST}, not {budget}"
        raise Refused(Code.BAD_MESSAGE, message, field="budgetCents", limit=m.BUDGET_MOST)
    if not 0 <= reserved < budget:
        message = f"reservedCents goes from 0 to {budget - 1}, a cent less than the budget, not {reserved}"
        raise Refused(Code.BAD_MESSAGE, message, field="reservedCents", limit=budget - 1)


def _check_spent(campaign: Campaign, available: int) -> None:
    """What was granted stays covered; one that goes on must have something left, or it would be full without having completed."""
    spent = campaign.spent_cents or 0
    least = spent if campaign.status == "COMPLETED" else spent + 1
    if available < least:
        message = (
            f"the campaign {campaign.id} has spent {dollars(spent)}: budget less reserve must be {dollars(least)} at least, "
            f"not {dollars(available)}; to end it, complete it"
        )
        raise Refused(Code.CONFLICT, message, field="budgetCents", limit=least)


def _full(campaign: Campaign) -> Refused:
    spent = dollars(campaign.spent_cents or 0)
    message = f"the campaign {campaign.id} has spent all it had ({spent}); raise its budget, then reactivate it"
    return Refused(Code.CONFLICT, message, field="budgetCents")


def _said(campaign: Campaign) -> dict[str, object]:
    return {
        "name": campaign.name,
        "status": campaign.status,
        "baseline": campaign.baseline,
        "rateCents": campaign.rate_cents,
        "budgetCents": campaign.budget_cents,
        "reservedCents": campaign.reserved_cents,
        "spentCents": campaign.spent_cents,
    }


async def _note(connection: Connection, who: str, what: str, campaign: int, before: object, after: object) -> int:
    return await audit.write(connection, who, f"tracking.campaign.{what}", f"campaign {campaign}", before, after)
