"""What the tests of the tiers share: people as a file has them, the facade over a test's database, rows as they are compared."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from server.batching.ledger import Ledger
from server.batching.panel import Panel
from server.batching.tiers.months import month_named
from server.batching.tiers.rules import RATINGS
from server.batching.tiers.runs import RunView
from server.batching.tiers.tiers import Lead, Parts, Tiers
from server.core.identity import Identity
from server.edge.bus import Bus
from server.edge.clock import Clock, SystemClock
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from server.protocol.intake import Format
from server.settings import Settings, load

ADMIN = Identity("root", frozenset(["admin"]))
PAUL = Identity("paul")
EVE = Identity("eve")
TOGETHER = "SABCD"


def far_month() -> int:
    """A month in which no lead time reaches, whatever today is."""
    today = dt.datetime.now(dt.UTC).date()
    return 12 * today.year + today.month - 1 + 3


FAR = far_month()


@dataclass
class Place:
    """The tiers of one process, their loops on a panel that is not started."""

    tiers: Tiers
    db: Database
    panel: Panel
    tasks: Tasks
    bus: Bus


@asynccontextmanager
async def opened(db: Database, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Place]:
    """The facade over this database."""
    clock, tasks = clock or SystemClock(), Tasks()
    ledger = Ledger(db, clock)
    panel = Panel(ledger, clock=clock, tasks=tasks)
    bus = Bus(db, node="test")
    made: Settings = load({}, **settings)
    lead = Lead(lambda: True, lambda: "test")
    tiers = await Tiers.open(Parts(made, db, bus, clock, panel, ledger.record, lead))
    try:
        yield Place(tiers, db, panel, tasks, bus)
    finally:
        await panel.stop()
        await tasks.close()


def row(number: int, tier: str | None = "D", **more: Any) -> dict[str, Any]:
    """A person of that tier by all its ratings."""
    ratings = dict.fromkeys(RATINGS, tier) if tier else {}
    return {
        "key": f"p{number:06d}",
        "name": f"Person {number:06d}",
        **ratings,
        "country": random.Random(number).choice(("US", "DE", "JP", "FR", "BR", "GB")),
        "timezone": random.Random(number + 1).choice(
            ("Europe/Berlin", "America/New_York", "Asia/Tokyo", "Pacific/Kiritimati", "Asia/Kathmandu")
        ),
        **more,
    }


def crowd(count: int, tiers: str = TOGETHER) -> list[dict[str, Any]]:
    """So many people, spread over these tiers."""
    return [row(number, tiers[number % len(tiers)]) for number in range(count)]


def ndjson(rows: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(one) + b"\n" for one in rows)


async def chunks(body: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def bring(tiers: Tiers, rows: Iterable[dict[str, Any]]) -> None:
    """Import these people; all of them must be good."""
    report = await tiers.import_people(chunks(ndjson(rows)), Format.NDJSON, ADMIN)
    assert report.rejected == 0, report.errors


async def classified(tiers: Tiers, rows: Iterable[dict[str, Any]]) -> RunView:
    """Import and classify."""
    await bring(tiers, rows)
    return await classify(tiers)


async def classify(tiers: Tiers, scope: Any = "all", **more: Any) -> RunView:
    return await tiers.complete((await tiers.classify(scope, ADMIN, **more)).run.id)


async def generate(tiers: Tiers, tier: Any = "D", month: int = FAR, **more: Any) -> RunView:
    """Plan to the end; the gate between tiers is overridden unless it is told otherwise."""
    opened = await tiers.generate(tier, month, ADMIN, **{"override": True, **more})
    return await tiers.complete(opened.run.id)


async def ask(db: Database, sql: str, *values: Any) -> Any:
    async with db.connection() as connection:
        return await connection.fetchval(sql, *values)


async def rows_of(db: Database, sql: str, *values: Any) -> list[asyncpg.Record]:
    async with db.connection() as connection:
        return await connection.fetch(sql, *values)


async def tell(db: Database, sql: str, *values: Any) -> None:
    async with db.connection() as connection:
        await connection.execute(sql, *values)


PLANNED = """
select c.key, a.meeting_type::text, a.duration, a.starts_at, a.ends_at, a.local_date, a.city_id, a.cooldown, a.price_cents, a.status
from tiers.availability a join tiers.celebrities c on c.id = a.celebrity_id order by c.key, a.starts_at, a.id"""
TURNS = """
select c.key, r.starts_on, r.ends_on, r.tier::text, r.anchor, r.city_ids
from tiers.rotations r join tiers.celebrities c on c.id = r.celebrity_id order by 1, 2"""
COOLDOWNS = """
select c.key, o.city_id, o.last_visit, o.months, o.until
from tiers.city_cooldown o join tiers.celebrities c on c.id = o.celebrity_id order by 1, 2"""
POOLS = """
select c.key, o.tier::text, o.home, o.city_ids
from tiers.celebrity_location_pool o join tiers.celebrities c on c.id = o.celebrity_id order by 1"""


async def everything_planned(db: Database) -> Sequence[list[asyncpg.Record]]:
    """All that planning writes about people, by key: ids depend on who came first."""
    return [await rows_of(db, sql) for sql in (PLANNED, TURNS, COOLDOWNS, POOLS)]


def month(text: str) -> int:
    return month_named(text)
