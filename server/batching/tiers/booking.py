"""Booking a slot and giving it back: one winner, a price that stays, and words for whoever came too late.

    booking = await book(db, 17, "my key", who)       the same key again answers with the same booking
    slot = await cancel(db, 17, who)                  the slot is on offer again, as a row of its own

A booking is one update of one row that must still be available, under the role that may change nothing else. Of many who
try, the first to lock the row wins, and the others read that it is gone. The price is the slot's: nothing writes to it once
it is booked. Notice of LEAD_DAYS (rules.py) holds for bookings as it does for planning, by the database's clock.

A cancelled row stays, with its key, so that a late repeat of the booking does not book anew. Whoever booked may cancel until
it begins; so may an admin.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, TypeAlias

import asyncpg

from server.batching import audit
from server.batching.tiers.rules import LEAD_DAYS, Kind
from server.batching.tiers.store import act, reading, serving
from server.core.identity import Identity
from server.edge.postgres import Connection, Database
from server.errors import Code, Refused

SlotStatus: TypeAlias = Literal["available", "booked", "cancelled", "expired"]
SLOTS_MOST: Final = 1_000
"""Slots in one answer; a year of one person has fewer."""
KEY_MOST: Final = 200

_LEAD: Final = f"""make_interval(days => case a.meeting_type when 'physical' then {LEAD_DAYS["physical"]}
    else {LEAD_DAYS["virtual"]} end)"""
_VIEW: Final = """
    a.id, a.celebrity_id, a.meeting_type::text, a.duration, a.starts_at, a.ends_at, a.local_date, a.city_id, t.name, t.country,
    coalesce(t.timezone, s.timezone), a.price_cents, a.status, a.booked_by, a.booking_key, a.booked_at, a.cancelled_at"""
_FROM: Final = """
    tiers.availability a join tiers.celebrity_settings s on s.celebrity_id = a.celebrity_id
    left join tiers.cities t on t.id = a.city_id"""
SHOW: Final = f"select {_VIEW} from {_FROM} where a.id = $1"  # noqa: S608  names are ours
LIST: Final = f"""
select {_VIEW} from {_FROM} join tiers.celebrities c on c.id = a.celebrity_id
where a.celebrity_id = $1 and a.starts_at >= $2 and a.starts_at < $3
    and (a.status = 'available' and a.starts_at > clock_timestamp() + {_LEAD} or a.booked_by = $4 and a.status = 'booked')
order by a.starts_at, a.id limit $5"""  # noqa: S608
BY_KEY: Final = f"select {_VIEW} from {_FROM} where a.booked_by = $1 and a.booking_key = $2"  # noqa: S608
BOOK: Final = f"""
update tiers.availability a set status = 'booked', booked_by = $2, booking_key = $3, booked_at = clock_timestamp()
where a.id = $1 and a.status = 'available' and a.starts_at > clock_timestamp() + {_LEAD}
    and exists (select from tiers.celebrities c where c.id = a.celebrity_id)
returning a.id"""  # noqa: S608
WHY: Final = f"""
select a.status, a.meeting_type::text, a.starts_at <= clock_timestamp() as past,
    a.starts_at <= clock_timestamp() + {_LEAD} as near, c.excluded is not null as gone
from tiers.availability a join tiers.celebrities c on c.id = a.celebrity_id where a.id = $1"""  # noqa: S608
CANCEL: Final = """
update tiers.availability set status = 'cancelled', cancelled_at = clock_timestamp()
where id = $1 and status = 'booked' and starts_at > clock_timestamp() and ($2::text is null or booked_by = $2) returning id"""
REOPEN: Final = """
insert into tiers.availability
    (celebrity_id, meeting_type, duration, starts_at, ends_at, local_date, city_id, cooldown, price_cents)
select a.celebrity_id, a.meeting_type, a.duration, a.starts_at, a.ends_at, a.local_date, a.city_id, a.cooldown, p.price_cents
from tiers.availability a join tiers.celebrity_pricing p using (celebrity_id, meeting_type, duration) where a.id = $1 and p.active"""

# Where it cannot be on offer again (its package is sold no more), the person does not travel to the city.
LEAVE: Final = """
update tiers.rotations r set city_ids = array_remove(r.city_ids, a.city_id) from tiers.availability a
where a.id = $1 and r.celebrity_id = a.celebrity_id and a.local_date >= r.starts_on and a.local_date < r.ends_on and not exists (
    select from tiers.availability o where o.celebrity_id = a.celebrity_id and o.city_id = a.city_id and o.status <> 'cancelled'
        and o.local_date >= r.starts_on and o.local_date < r.ends_on)"""


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot as one caller sees it: what belongs to a booking is there when it is the caller's, or for an admin."""

    id: int
    celebrity_id: int
    meeting_type: Kind
    duration: int
    starts_at: dt.datetime
    ends_at: dt.datetime
    local_date: dt.date
    city_id: int | None
    city: str | None
    country: str | None
    timezone: str
    price_cents: int
    status: SlotStatus
    booked_by: str | None
    key: str | None
    booked_at: dt.datetime | None
    cancelled_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Booking:
    """The slot, and whether it was booked just now: a repeated key answers with what it booked, cancelled or not."""

    slot: SlotView
    new: bool


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The slot, and the audit entry when it was somebody else's."""

    slot: SlotView
    audit_id: int | None


async def book(db: Database, slot: int, key: str, who: Identity) -> Booking:
    """Book a slot; Refused in words when that cannot be."""
    user = _user(who)
    if not 1 <= len(key) <= KEY_MOST or "\0" in key:
        raise Refused(
            Code.BAD_MESSAGE, f"a booking has a key of 1 to {KEY_MOST} characters", field="key", limit=KEY_MOST
        )
    try:
        async with reading(db, user) as connection:
            booking = await _book(connection, slot, key, user)
    except asyncpg.UniqueViolationError:  # The same key came twice at once, for two slots.
        async with reading(db, user) as connection:
            booking = await _again(connection, slot, key, user)
    if booking is None:
        await _refuse(db, slot)
    return booking


async def _book(connection: Connection, slot: int, key: str, user: str) -> Booking | None:
    before = await _again(connection, slot, key, user)
    if before is not None:
        return before
    if await connection.fetchval(BOOK, slot, user, key) is None:
        return await _again(connection, slot, key, user)  # The same request, a moment ago.
    return Booking(_view(await connection.fetchrow(SHOW, slot)), new=True)


async def _again(connection: Connection, slot: int, key: str, user: str) -> Booking | None:
    row = await connection.fetchrow(BY_KEY, user, key)
    if row is None:
        return None
    if row["id"] != slot:
        message = f"the key {key!r} was used to book the slot {row['id']}; choose a new one"
        raise Refused(Code.CONFLICT, message, field="key")
    return Booking(_view(row), new=False)


async def _refuse(db: Database, slot: int) -> NoReturn:
    """Say why it could not be had."""
    async with serving(db) as connection:
        row = await connection.fetchrow(WHY, slot)
    if row is None or row["gone"] or row["status"] == "cancelled":
        raise _no_slot(slot)
    raise Refused(Code.CONFLICT, f"the slot {slot} {_reason(row)}", field="slot")


def _reason(row: asyncpg.Record) -> str:
    if row["status"] == "booked":
        return "was booked by somebody else; choose another one"
    if row["past"] or row["status"] == "expired":
        return "is over; choose a later one"
    if row["near"]:
        kind: Kind = row["meeting_type"]
        return f"begins too soon: {kind} meetings are booked {LEAD_DAYS[kind]} days ahead or more; choose a later one"
    return "is being changed just now; try again"


async def cancel(db: Database, slot: int, who: Identity) -> Cancelled:
    """Give a booking back."""
    user = _user(who)
    async with serving(db) if who.admin else reading(db, user) as connection:
        done = await connection.fetchval(CANCEL, slot, None if who.admin else user)
        row = await connection.fetchrow(SHOW, slot)
        if done is None:
            raise _kept(slot, row, who)
        view = _view(row)
        await act(connection)
        await connection.execute(REOPEN, slot)
        await connection.execute(LEAVE, slot)
        foreign = view.booked_by != user
        entry = await audit.write(connection, user, "tiers cancel", f"slot {slot}", view.booked_by) if foreign else None
    return Cancelled(view, entry)


def _kept(slot: int, row: asyncpg.Record | None, who: Identity) -> Refused:
    if row is None or (not who.admin and row["booked_by"] != who.user):
        return _no_slot(slot)
    if row["status"] != "booked":
        return Refused(
            Code.CONFLICT, f"the slot {slot} is {row['status']}; only a booking can be cancelled", field="slot"
        )
    return Refused(Code.CONFLICT, f"the slot {slot} has begun; it can be cancelled no more", field="slot")


async def listed(
    db: Database, person: int, begin: dt.datetime, end: dt.datetime, user: str | None, limit: int = SLOTS_MOST
) -> list[SlotView]:
    """What can be booked of a person in that time, and what the caller has booked."""
    async with reading(db, user) as connection:
        rows = await connection.fetch(LIST, person, begin, end, user, min(limit, SLOTS_MOST))
    return [_view(row) for row in rows]


def _view(row: asyncpg.Record | None) -> SlotView:
    assert row is not None
    return SlotView(*row)


def _user(who: Identity) -> str:
    if not who.user:
        raise Refused(Code.UNAUTHORIZED, "bookings need a token that says who you are")
    return who.user


def _no_slot(slot: int) -> Refused:
    return Refused(Code.NOT_FOUND, f"there is no slot {slot}, or none that you may see", field="slot")
