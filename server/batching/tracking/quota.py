"""Calls of a provider in a UTC month: reserved before they are sent, counted when they are, and never more than the quota.

    places = await reserve(connection, ["tiktok", "x", "x"], terms, run_id)    in this order, as far as quota and platforms allow
    sent = await send(connection, places.granted, terms)                       counted: what may really go out, and since when
    await over(connection, [id])                                               a call has ended, or was not sent: its place is free

Whoever reserves or sends holds the month's row, so all nodes together are one queue here. A reservation is a row with an end: a
process that was killed with reservations gives them back when that is past, and what it had sent stays counted. Who froze in
between finds its row gone and sends nothing. A call reserved in one month and sent in the next counts for the next, if that has
room.

The month is that of the database's clock in UTC, whatever the time zones of processes and sessions are. A retry is a call like
any other.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.batching.tracking.cadence import projected
from server.batching.tracking.posts import Platform
from server.edge.postgres import Connection

SENDING_S: Final = 30.0
"""From a reservation to the end of its call at most, beside what the call itself may take."""

NOW: Final = "select clock_timestamp()"
MONTH: Final = "date_trunc('month', $2::timestamptz at time zone 'UTC')::date"
NOTE: Final = f"""
insert into tracking.provider_usage (provider, month) values ($1, {MONTH}) on conflict do nothing"""  # noqa: S608  SQL of ours
HOLD: Final = f"""
select month, calls from tracking.provider_usage where provider = $1 and month = {MONTH} for update"""  # noqa: S608
RETURNED: Final = "delete from tracking.call_reservations where expires_at <= clock_timestamp()"
UNDER_WAY: Final = "select platform::text, count(*) as count from tracking.call_reservations group by 1"
RESERVED: Final = """
select count(*) from tracking.call_reservations where provider = $1 and month = $2 and sent_at is null"""
RESERVE: Final = """
insert into tracking.call_reservations (provider, month, platform, run_id, expires_at)
select $1, $2, p, $4, clock_timestamp() + make_interval(secs => $5) from unnest($3::text[]) with ordinality as a (p, number)
order by number returning id"""
MINE: Final = """
select id, month from tracking.call_reservations where id = any($1) and sent_at is null and expires_at > clock_timestamp()
order by id for update"""
SEND: Final = """
update tracking.call_reservations set sent_at = clock_timestamp(), month = $2 where id = any($1)
returning (select clock_timestamp())"""
COUNT: Final = "update tracking.provider_usage set calls = calls + $3 where provider = $1 and month = $2"
TOLD: Final = """
update tracking.provider_usage u set reserved = (
    select count(*) from tracking.call_reservations r where r.provider = u.provider and r.month = u.month and r.sent_at is null)
where u.provider = $1 and u.month >= $2"""
OVER: Final = "delete from tracking.call_reservations where id = any($1)"
READ: Final = f"""
with now as (select {MONTH} as month, $2::timestamptz as at)
select n.month, coalesce(u.calls, 0) as calls, n.at, (
    select count(*) from tracking.call_reservations r
    where r.provider = $1 and r.month = n.month and r.sent_at is null and r.expires_at > clock_timestamp()) as reserved
from now n left join tracking.provider_usage u on u.provider = $1 and u.month = n.month"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Terms:
    """Of which provider, how many calls a month, how many of one platform under way at a time, and how long one may take."""

    provider: str = "apify"
    quota: int = 100_000
    at_once: int = 10
    call_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Places:
    """A reservation for each call, or None. `spent`: the quota allows no more; `busy`: a platform has as many under way as may be."""

    ids: tuple[int | None, ...] = ()
    spent: bool = False
    busy: bool = False

    @property
    def granted(self) -> list[int]:
        """Those that there are."""
        return [one for one in self.ids if one is not None]


@dataclass(frozen=True, slots=True)
class Sent:
    """Calls that are counted and may go out; `at`, by the database's clock, is before any of them."""

    ids: frozenset[int]
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of the month's quota is used. `at`: when that was read."""

    provider: str
    month: dt.date
    calls: int
    reserved: int
    quota: int
    at: dt.datetime

    @property
    def left(self) -> int:
        """Calls that can still be reserved."""
        return max(0, self.quota - self.calls - self.reserved)

    @property
    def percent(self) -> float:
        """Of the quota, what was sent."""
        return 100 * self.calls / self.quota if self.quota else 100.0

    @property
    def projected(self) -> int:
        """Calls by the end of the month when it goes on as it did."""
        return round(projected(self.calls, self.at))

    @property
    def projected_percent(self) -> float:
        """The same of the quota."""
        return 100 * self.projected / self.quota if self.quota else 100.0


async def reserve(
    connection: Connection, wanted: Sequence[Platform], terms: Terms, run_id: int, at: dt.datetime | None = None
) -> Places:
    """Places for calls of these platforms, the first ones first. `at`: instead of now, for tests of a month's end."""
    month, calls = await _hold(connection, terms, at)
    await connection.execute(RETURNED)
    under_way = Counter({row["platform"]: row["count"] for row in await connection.fetch(UNDER_WAY)})
    left = terms.quota - calls - await connection.fetchval(RESERVED, terms.provider, month)
    places: list[bool] = []
    for platform in wanted:
        places.append(free := left > 0 and under_way[platform] < terms.at_once)
        left, under_way[platform] = left - free, under_way[platform] + free
    listed = [platform for platform, free in zip(wanted, places, strict=True) if free]
    rows = (
        await connection.fetch(RESERVE, terms.provider, month, listed, run_id, terms.call_s + SENDING_S)
        if listed
        else []
    )
    await connection.execute(TOLD, terms.provider, month)
    ids = iter([row["id"] for row in rows])
    given = tuple(next(ids) if free else None for free in places)
    return Places(given, spent=left <= 0 and None in given, busy=left > 0 and None in given)


async def send(connection: Connection, ids: Sequence[int], terms: Terms, at: dt.datetime | None = None) -> Sent:
    """Count calls as sent, just before they are; those whose reservation has run out, or has no room in a new month, are not."""
    month, calls = await _hold(connection, terms, at)
    rows = await connection.fetch(MINE, list(ids))
    here = [row["id"] for row in rows if row["month"] == month]
    moved = [row["id"] for row in rows if row["month"] != month]
    reserved = await connection.fetchval(RESERVED, terms.provider, month)
    room = max(0, terms.quota - calls - reserved)
    going = [*here, *moved[:room]]
    sent = await connection.fetch(SEND, going, month)
    await connection.execute(COUNT, terms.provider, month, len(going))
    await connection.execute(TOLD, terms.provider, min(month, *(row["month"] for row in rows)) if rows else month)
    return Sent(frozenset(going), sent[0][0] if sent else await _now(connection))


async def over(connection: Connection, ids: Sequence[int]) -> None:
    """These have ended, or will not be sent."""
    if ids:
        await connection.execute(OVER, list(ids))


async def usage(connection: Connection, terms: Terms, at: dt.datetime | None = None) -> Usage:
    """How much of this month is used."""
    row = await connection.fetchrow(READ, terms.provider, at or await _now(connection))
    assert row is not None
    return Usage(terms.provider, row["month"], row["calls"], row["reserved"], terms.quota, row["at"])


async def _hold(connection: Connection, terms: Terms, at: dt.datetime | None) -> tuple[dt.date, int]:
    """The month's row, for as long as the transaction lasts."""
    moment = at or await _now(connection)
    await connection.execute(NOTE, terms.provider, moment)
    row = await connection.fetchrow(HOLD, terms.provider, moment)
    assert row is not None
    return row["month"], row["calls"]


async def _now(connection: Connection) -> dt.datetime:
    moment: dt.datetime = await connection.fetchval(NOW)
    return moment
