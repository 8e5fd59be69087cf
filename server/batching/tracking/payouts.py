"""Payouts: a creator asks for what completed campaigns owe, an admin approves, pays, and says by which transaction.

    PENDING ---- approve ----> APPROVED ---- complete (transaction id) ----> COMPLETED
      |  ^---------- revert -------|  |                                          |
      +---- reject ------------> REJECTED <-- reject                        revert --> REVERTED

A request takes money from submissions of COMPLETED campaigns: what each of them has earned and no other request has taken
(`claimed_cents`). So nothing is paid twice, whatever is reactivated meanwhile. REJECTED and REVERTED give it back. One request of a
creator is open (PENDING, APPROVED) at a time. The fee is fixed by the approval; request and payout both carry amount, fee and net.

Locks: campaigns (shared: none may become ACTIVE, and nobody settles, meanwhile), submissions by id, then the request.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from server.batching import audit
from server.batching.tracking.money import BUDGET_MOST, FEE_BASIS_MOST, fee_of
from server.batching.tracking.store import PAGE_MOST, Notice, admin, creator_of, notify, reading, serving, told
from server.core.identity import Identity
from server.core.money import dollars
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

Status: TypeAlias = Literal["PENDING", "APPROVED", "COMPLETED", "REJECTED", "REVERTED"]
STATUSES: Final[tuple[Status, ...]] = ("PENDING", "APPROVED", "COMPLETED", "REJECTED", "REVERTED")
ITEMS_MOST: Final = 10_000
"""Submissions that one request takes money of, oldest first; more wait for the next."""

_REQUEST: Final = """
select r.id, r.creator, r.status, r.amount_cents, r.fee_basis, r.fee_cents, r.net_cents, r.note, r.created_at, r.changed_at,
    p.id as payout, p.transaction_id, p.paid_at, p.reverted_at
from tracking.payout_requests r left join tracking.payouts p on p.request_id = r.id
"""
SHOW: Final = _REQUEST + "where r.id = $1"
LIST: Final = (
    _REQUEST
    + """
where ($1::text is null or r.creator = $1) and ($2::text is null or r.status = $2) and ($3::bigint is null or r.id < $3)
order by r.id desc limit $4"""
)
BALANCE: Final = """
select coalesce(sum(s.earned_cents), 0)::bigint as earned,
    coalesce(sum(s.earned_cents - s.claimed_cents) filter (where c.status = 'COMPLETED'), 0)::bigint as payable,
    coalesce(sum(s.earned_cents - s.claimed_cents) filter (where c.status <> 'COMPLETED'), 0)::bigint as active
from tracking.clip_submissions s join tracking.campaigns c on c.id = s.campaign_id where s.creator = $1"""
ASKED: Final = """
select coalesce(sum(amount_cents) filter (where status in ('PENDING', 'APPROVED')), 0)::bigint as requested,
    coalesce(sum(net_cents) filter (where status = 'COMPLETED'), 0)::bigint as paid
from tracking.payout_requests where creator = $1"""

HOLD_CAMPAIGNS: Final = """
select c.id from tracking.campaigns c where c.status = 'COMPLETED' and c.id in (
    select s.campaign_id from tracking.clip_submissions s where s.creator = $1 and s.earned_cents > s.claimed_cents)
order by c.id for share"""
HOLD_CLAIMABLE: Final = """
select s.id, s.earned_cents - s.claimed_cents as cents from tracking.clip_submissions s
where s.creator = $1 and s.campaign_id = any($2) and s.earned_cents > s.claimed_cents order by s.id limit $3 for no key update"""
OPEN: Final = "select id, status from tracking.payout_requests where creator = $1 and status in ('PENDING', 'APPROVED')"
REQUEST: Final = """
insert into tracking.payout_requests (creator, amount_cents, changed_by) values ($1, $2, $3)
on conflict (creator) where status in ('PENDING', 'APPROVED') do nothing returning id"""
CLAIM: Final = """
with items as (
    insert into tracking.payout_items (request_id, submission_id, creator, amount_cents)
    select $1, i.id, $2, i.cents from unnest($3::bigint[], $4::bigint[]) as i (id, cents) returning submission_id, amount_cents
)
update tracking.clip_submissions s set claimed_cents = s.claimed_cents + i.amount_cents from items i where s.id = i.submission_id"""
HOLD_CAMPAIGNS_OF: Final = """
select c.id from tracking.campaigns c where c.id in (
    select s.campaign_id from tracking.payout_items i join tracking.clip_submissions s on s.id = i.submission_id where i.request_id = $1)
order by c.id for share"""
HOLD_ITEMS: Final = """
select s.id from tracking.clip_submissions s
where s.id in (select i.submission_id from tracking.payout_items i where i.request_id = $1) order by s.id for no key update"""
RELEASE: Final = """
update tracking.clip_submissions s set claimed_cents = s.claimed_cents - i.amount_cents
from tracking.payout_items i where i.request_id = $1 and s.id = i.submission_id"""
HOLD: Final = "select status, amount_cents, creator from tracking.payout_requests where id = $1 for no key update"
TURN: Final = """
update tracking.payout_requests set status = $2, fee_basis = $3, fee_cents = $4, net_cents = $5,
    note = case when $6 = '' then note else $6 end, changed_at = clock_timestamp(), changed_by = $7
where id = $1"""
FEE: Final = "select fee_basis, fee_cents, net_cents from tracking.payout_requests where id = $1"
PAY: Final = """
insert into tracking.payouts (request_id, creator, amount_cents, fee_cents, net_cents, transaction_id, paid_by)
select id, creator, amount_cents, fee_cents, net_cents, $2, $3 from tracking.payout_requests where id = $1
on conflict (transaction_id) do nothing returning id"""
UNPAY: Final = (
    "update tracking.payouts set reverted_at = clock_timestamp() where request_id = $1 and reverted_at is null"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """The least that can be asked for, and the fee (in hundredths of a per cent) unless the approval names another."""

    minimum_cents: int = 2_000
    fee_basis: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A request; fee and net from its approval on, payout and transaction once it was paid."""

    id: int
    creator: str
    status: Status
    amount_cents: int
    fee_basis: int | None
    fee_cents: int | None
    net_cents: int | None
    note: str
    created_at: dt.datetime
    changed_at: dt.datetime
    payout_id: int | None
    transaction_id: str | None
    paid_at: dt.datetime | None
    reverted_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Balance:
    """What a creator has earned in all; of it: payable now, still in campaigns that go on, asked for; and paid (after fees)."""

    creator: str
    earned_cents: int
    payable_cents: int
    active_cents: int
    requested_cents: int
    paid_cents: int


@dataclass(frozen=True, slots=True)
class Turned:
    """The request afterwards, and the entry in the trail."""

    request: Request
    audit_id: int


@dataclass(frozen=True, slots=True)
class _Fee:
    basis: int | None = None
    cents: int | None = None
    net: int | None = None


class Payouts:
    """The verbs on payouts."""

    def __init__(self, db: Database, terms: Terms = Terms()) -> None:
        self._db = db
        self._terms = terms

    async def balance(self, who: Identity, creator: str | None = None) -> Balance:
        """A creator's money."""
        name = creator_of(who, creator)
        async with reading(self._db, who) as connection:
            money, asked = await connection.fetchrow(BALANCE, name), await connection.fetchrow(ASKED, name)
        assert money is not None and asked is not None
        return Balance(name, *money, *asked)

    async def list(
        self,
        who: Identity,
        *,
        status: Status | None = None,
        creator: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Sequence[Request]:
        """Newest first; a creator's own, an admin's of everybody, or of one."""
        mine = creator_of(who, creator) if creator or not who.admin else None
        async with reading(self._db, who) as connection:
            rows = await connection.fetch(LIST, mine, status, before, min(limit, PAGE_MOST))
        return [Request(*row) for row in rows]

    async def show(self, request_id: int, who: Identity) -> Request:
        """One of them."""
        async with reading(self._db, who) as connection:
            return await _show(connection, request_id)

    async def request(self, who: Identity, amount_cents: int | None = None, *, creator: str | None = None) -> Turned:
        """Ask for so much, or for all that is payable."""
        name = creator_of(who, creator)
        async with serving(self._db) as connection:
            campaigns = [row["id"] for row in await connection.fetch(HOLD_CAMPAIGNS, name)]
            payable = [(r[0], r[1]) for r in await connection.fetch(HOLD_CLAIMABLE, name, campaigns, ITEMS_MOST)]
            await self._check_open(connection, name)
            amount = self._amount(amount_cents, sum(cents for _, cents in payable))
            made = await connection.fetchval(REQUEST, name, amount, who.user)
            if made is None:
                await self._check_open(connection, name)
                raise _one_open(name, "another one")
            ids, cents = zip(*_taken(payable, amount), strict=True)
            await connection.execute(CLAIM, made, name, ids, cents)
            request = await _show(connection, made)
            return Turned(request, await _note(connection, who.user, "requested", request, None))

    async def approve(self, request_id: int, who: Identity, fee_basis: int | None = None) -> Turned:
        """Fix the fee; the money may be sent."""
        basis = self._terms.fee_basis if fee_basis is None else fee_basis
        if not 0 <= basis <= FEE_BASIS_MOST:
            message = f"feeBasis goes from 0 to {FEE_BASIS_MOST} (10 %, in hundredths of a per cent), not {basis}"
            raise Refused(Code.BAD_MESSAGE, message, field="feeBasis", limit=FEE_BASIS_MOST)
        name = admin(who, "approving a payout")
        async with serving(self._db) as connection:
            before, amount = await _hold(connection, request_id, ("PENDING",), "approved")
            fee = fee_of(amount, basis)
            await _turn(connection, request_id, "APPROVED", name, _Fee(basis, fee, amount - fee))
            return await _turned(connection, name, request_id, before)

    async def complete(self, request_id: int, who: Identity, transaction_id: str) -> Turned:
        """The money was sent, by this transaction."""
        name, transaction = admin(who, "completing a payout"), told(transaction_id.strip(), "transactionId", 200)
        if not transaction:
            raise Refused(
                Code.BAD_MESSAGE, "transactionId says by which transaction the money was sent", field="transactionId"
            )
        async with serving(self._db) as connection:
            before, _ = await _hold(connection, request_id, ("APPROVED",), "completed")
            if await connection.fetchval(PAY, request_id, transaction, name) is None:
                message = f"the transaction {transaction!r} stands for another payout already; name this one's own"
                raise Refused(Code.CONFLICT, message, field="transactionId")
            await _turn(connection, request_id, "COMPLETED", name, await _fee(connection, request_id))
            return await _turned(connection, name, request_id, before)

    async def reject(self, request_id: int, who: Identity, note: str = "") -> Turned:
        """It will not be paid; its money can be asked for again."""
        name, text = admin(who, "rejecting a payout"), told(note, "note")
        async with serving(self._db) as connection:
            await _hold_items(connection, request_id)
            before, _ = await _hold(connection, request_id, ("PENDING", "APPROVED"), "rejected")
            await connection.execute(RELEASE, request_id)
            await _turn(connection, request_id, "REJECTED", name, await _fee(connection, request_id), text)
            return await _turned(connection, name, request_id, before)

    async def revert(self, request_id: int, who: Identity, note: str = "") -> Turned:
        """Take the last step back: an approval, or a payment that did not arrive (its money can be asked for again)."""
        name, text = admin(who, "reverting a payout"), told(note, "note")
        async with serving(self._db) as connection:
            await _hold_items(connection, request_id)
            before, _ = await _hold(connection, request_id, ("APPROVED", "COMPLETED"), "reverted")
            if before == "APPROVED":
                await _turn(connection, request_id, "PENDING", name, _Fee(), text)
            else:
                await connection.execute(RELEASE, request_id)
                await connection.execute(UNPAY, request_id)
                await _turn(connection, request_id, "REVERTED", name, await _fee(connection, request_id), text)
            return await _turned(connection, name, request_id, before)

    def _amount(self, asked: int | None, payable: int) -> int:
        """What is asked for, if there is so much of it."""
        least = self._terms.minimum_cents
        amount = payable if asked is None else asked
        if amount < least or amount > BUDGET_MOST:
            what = f"{dollars(amount)} is below the minimum" if amount < least else f"{dollars(amount)} is too much"
            message = f"{what}: a payout is {dollars(least)} at least, and {dollars(payable)} of completed campaigns is payable"
            raise Refused(Code.CONFLICT, message, field="amountCents", limit=least)
        if amount > payable:
            message = f"{dollars(amount)} is more than the {dollars(payable)} that completed campaigns owe; ask for that at most"
            raise Refused(Code.CONFLICT, message, field="amountCents", limit=payable)
        return amount

    async def _check_open(self, connection: Connection, creator: str) -> None:
        row = await connection.fetchrow(OPEN, creator)
        if row is not None:
            raise _one_open(creator, f"the request {row['id']} is {row['status']}")


def _one_open(creator: str, what: str) -> Refused:
    message = f"{creator} has one open payout request at a time: {what}; wait until it has ended"
    return Refused(Code.CONFLICT, message, field="creator")


def _taken(payable: Sequence[tuple[int, int]], amount: int) -> list[tuple[int, int]]:
    """Of which submissions how much, the oldest first; it adds up to the amount."""
    taken: list[tuple[int, int]] = []
    for submission, cents in payable:
        part = min(cents, amount)
        if part:
            taken.append((submission, part))
        amount -= part
    assert amount == 0
    return taken


async def _hold_items(connection: Connection, request_id: int) -> None:
    """The submissions that a request takes money of, below their campaigns, as everybody locks them."""
    await connection.execute(HOLD_CAMPAIGNS_OF, request_id)
    await connection.execute(HOLD_ITEMS, request_id)


async def _hold(connection: Connection, request_id: int, from_: tuple[Status, ...], what: str) -> tuple[Status, int]:
    """The request locked: its status and amount; refused unless it is in one of these states."""
    row = await connection.fetchrow(HOLD, request_id)
    if row is None:
        raise _unknown(request_id)
    if row["status"] not in from_:
        message = (
            f"the payout request {request_id} is {row['status']}; only one that is {' or '.join(from_)} can be {what}"
        )
        raise Refused(Code.CONFLICT, message, field="status")
    return row["status"], row["amount_cents"]


async def _fee(connection: Connection, request_id: int) -> _Fee:
    row = await connection.fetchrow(FEE, request_id)
    assert row is not None
    return _Fee(*row)


async def _turn(connection: Connection, request_id: int, status: Status, who: str, fee: _Fee, note: str = "") -> None:
    await connection.execute(TURN, request_id, status, fee.basis, fee.cents, fee.net, note, who)


async def _turned(connection: Connection, who: str, request_id: int, before: Status) -> Turned:
    """Tell the creator, and note it."""
    request = await _show(connection, request_id)
    net = f", {dollars(request.net_cents)} after fees" if request.net_cents is not None else ""
    message = f"your payout request {request_id} over {dollars(request.amount_cents)}{net} is {request.status} now"
    kind = f"payout-{request.status.lower()}"
    audit_id = await _note(connection, who, request.status.lower(), request, before)
    key = f"payout:{request_id}:{audit_id}"
    await notify(connection, Notice(request.creator, key, kind, message, amount_cents=request.amount_cents))
    return Turned(request, audit_id)


async def _show(connection: Connection, request_id: int) -> Request:
    row = await connection.fetchrow(SHOW, request_id)
    if row is None:
        raise _unknown(request_id)
    return Request(*row)


def _unknown(request_id: int) -> Refused:
    return Refused(Code.NOT_FOUND, f"there is no payout request {request_id}, or none that you may see", field="id")


async def _note(connection: Connection, who: str | None, what: str, request: Request, before: Status | None) -> int:
    after = {
        "status": request.status,
        "creator": request.creator,
        "amountCents": request.amount_cents,
        "feeCents": request.fee_cents,
        "netCents": request.net_cents,
        "transactionId": request.transaction_id,
        "note": request.note,
    }
    was = None if before is None else {"status": before}
    return await audit.write(connection, who, f"tracking.payout.{what}", f"payout request {request.id}", was, after)
