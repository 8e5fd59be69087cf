"""What the tests of runs share: batches with businesses put straight into the tables, a provider on loopback, turns by hand.

`Stage` is one node: its `Runs` over the test's database, whose turns a test takes itself. `settle` takes them until there is
nothing left to do, as the loops would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
from aiohttp import web
from pydantic import SecretStr

from server.batching.loop import Occasion, Turn
from server.batching.parts import Lead
from server.batching.schedules import hooks
from server.batching.schedules.inputs import Asked
from server.batching.schedules.plan import Platform, Type
from server.batching.schedules.provider import Provider
from server.batching.schedules.provider import Terms as Asking
from server.batching.schedules.runs import Runs, Terms
from server.edge import apify
from server.edge.clock import Clock, SystemClock
from server.edge.postgres import Connection, Database
from server.errors import Refused
from tests.doubles.apify import Apify
from tests.doubles.apify.http import TOKEN
from tests.doubles.apify.reviews import World

SECRET = SecretStr("a secret of the webhooks")
LIMIT_S = 20.0
QUIET = Terms(secret=SECRET, page_items=50)


async def fence(connection: Connection) -> int:
    return 1


LEADING = Lead(lambda: True, lambda: "here", fence)


def place(number: int, platform: Platform = "google") -> str:
    """An identifier in the form in which it is kept."""
    if platform == "google":
        return f"ChIJplace{number:04d}"
    tail = {"tripadvisor": f"Hotel-g1-d{1000 + number}-Reviews", "booking": f"hotel/de/n{number}.html"}
    return f"https://{platform}.com/{tail.get(platform, f'page{number}')}"


async def ask(db: Database, sql: str, *values: Any) -> Any:
    async with db.connection() as connection:
        return await connection.fetchval(sql, *values)


async def rows(db: Database, sql: str, *values: Any) -> list[asyncpg.Record]:
    async with db.connection() as connection:
        return list(await connection.fetch(sql, *values))


async def tell(db: Database, sql: str, *values: Any) -> None:
    async with db.connection() as connection:
        await connection.execute(sql, *values)


async def batch(
    db: Database, platform: Platform = "google", type: Type = "reviews", *, index: int = 0, hours: int = 6
) -> int:
    """A batch that is not due; its id."""
    return int(
        await ask(
            db,
            """insert into schedules.schedule (platform, type, interval_hours, batch_index, offset_minutes, capacity, next_run_at)
            values ($1, $2, $3, $4, 0, 1000, now() + interval '1 day') returning id""",
            platform,
            type,
            hours,
            index,
        )
    )


async def follow(db: Database, schedule: int, identifier: str, *teams: str) -> list[int]:
    """A business of each team, in that batch; their ids."""
    made = []
    for team in teams or ("ada",):
        await tell(db, "insert into schedules.team (team) values ($1) on conflict do nothing", team)
        business = await ask(
            db,
            """insert into schedules.business (team, identifiers)
            select $1, jsonb_build_object(platform::text, $3::text) from schedules.schedule where id = $2 returning id""",
            team,
            schedule,
            identifier,
        )
        await tell(
            db,
            """insert into schedules.mapping (business_id, team, platform, type, schedule_id, identifier)
            select $1, $2, platform, type, id, $4 from schedules.schedule where id = $3""",
            business,
            team,
            schedule,
            identifier,
        )
        made.append(business)
    return made


async def crowd(db: Database, schedule: int, identifiers: Iterable[str], team: str = "ada") -> list[int]:
    return [(await follow(db, schedule, identifier, team))[0] for identifier in identifiers]


async def states(db: Database, table: str = "provider_run") -> dict[str, int]:
    found = await rows(db, f"select state, count(*) from schedules.{table} group by 1")
    return {row["state"]: row["count"] for row in found}


async def reviews(db: Database, team: str | None = None) -> set[tuple[str, int, str, str]]:
    """(team, business, review, text) of all that is stored."""
    found = await rows(db, "select team, business_id, review_id, text from schedules.review order by 1, 2, 3")
    return {tuple(row) for row in found if team is None or row["team"] == team}


async def until(true: Callable[[], Any], what: str = "") -> None:
    """Look again and again until it holds; the bound is only there to end a broken run."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while True:
                answer = true()
                if await answer if asyncio.iscoroutine(answer) else answer:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"still not so after {LIMIT_S:.0f} s: {what}") from None


@dataclass
class Stage:
    """One node, the provider and its world."""

    db: Database
    double: Apify
    world: World
    runs: Runs
    client: apify.Apify

    async def turn(self, name: str) -> Turn:
        """One turn of a loop."""
        clock = SystemClock()
        turning = {
            "dispatch": self.runs.starting.dispatch,
            "poll": self.runs.starting.poll,
            "process": self.runs.processing.turn,
            "retry": self.runs.retry,
            "cleanup": self.runs.cleanup,
            "mirror": self.runs.mirror.turn,
        }[name]
        return await turning(Occasion("forced", 1, clock.now_ms()))

    async def every(self, name: str) -> list[Turn]:
        """Turns of a loop until it asks for no more."""
        turns = [await self.turn(name)]
        while turns[-1].more:
            turns.append(await self.turn(name))
        return turns

    async def settle(self) -> None:
        """All loops, round after round, until every run is settled."""
        for _ in range(50):
            await self.every("dispatch")
            await self.double.settle()
            await self.let_poll()
            await self.every("poll")
            await self.every("process")
            if not await ask(self.db, "select count(*) from schedules.provider_run where processed_at is null"):
                return
        raise AssertionError(f"the runs do not settle: {await states(self.db)}")

    async def let_poll(self) -> None:
        """As if nobody had looked at any run for a while."""
        await tell(
            self.db,
            """update schedules.provider_run set checked_at = checked_at - interval '1 minute'
            where processed_at is null and state in ('running', 'intended')""",
        )

    async def much_later(self) -> None:
        """As if all that is under way had begun an hour ago."""
        await tell(
            self.db,
            """update schedules.provider_run set checked_at = checked_at - interval '1 hour'
            where processed_at is null""",
        )

    async def retries_due(self) -> None:
        """As if every retry had waited long enough."""
        await tell(self.db, "update schedules.retry set next_retry_at = now() where state = 'waiting'")

    async def run_once(self, schedule: int, key: str = "k") -> None:
        """A run of a batch, from the trigger to its end."""
        await self.runs.trigger(schedule, key)
        await self.settle()


@asynccontextmanager
async def stage(
    db: Database,
    *,
    world: World | None = None,
    terms: Terms = QUIET,
    public_url: str | None = None,
    timeout_ms: int = 5_000,
    clock: Clock | None = None,
    double: Apify | None = None,
    asked: Asked | None = None,
    **how: Any,
) -> AsyncIterator[Stage]:
    """A node with a provider of its own, or at the one that is given."""
    seen = world or World(reviews=5)
    one = double or await Apify(seen.actors(), **how).start()
    client = await apify.Apify.open(apify.Terms(one.url, timeout_ms, retries=0), SecretStr(TOKEN))
    asking = Asking(asked=asked or Asked(100), public_url=public_url, secret=SECRET)
    runs = Runs(db, clock or SystemClock(), Provider(client, asking), LEADING, terms)
    try:
        yield Stage(db, one, seen, runs, client)
    finally:
        await client.close()
        if double is None:
            await one.close()


@dataclass
class Door:
    """Where webhooks come in: the receiving end that the handlers will be."""

    url: str = ""
    runs: Runs | None = None
    answers: list[int] = None  # type: ignore[assignment]

    async def take(self, request: web.Request) -> web.Response:
        assert self.runs is not None
        try:
            received = await self.runs.receive(request.headers.get(hooks.HEADER), await request.read())
        except Refused as refusal:
            self.answers.append(refusal.status)
            return web.Response(status=refusal.status)
        self.answers.append(200 if received.kept else 208)
        return web.Response(status=200)


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    one = Door(answers=[])
    app = web.Application()
    app.router.add_post(hooks.PATH, one.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield one
    finally:
        await runner.cleanup()


@asynccontextmanager
async def told(db: Database, **more: Any) -> AsyncIterator[tuple[Stage, Door]]:
    """A stage whose provider sends webhooks to it."""
    async with door() as one, stage(db, public_url=one.url, **more) as node:
        one.runs = node.runs
        yield node, one


def quick(terms: Terms = QUIET, **more: Any) -> Terms:
    return replace(terms, **more)


def expected(world: World, platform: str, identifier: str, businesses: Sequence[tuple[str, int]]) -> set[Any]:
    """What is to be stored of a place for each (team, business)."""
    asked = identifier if platform == "google" else identifier.replace("https://", "https://www.")
    found = world.of(platform, asked)
    return {(team, business, one.id, one.text) for team, business in businesses for one in found}
