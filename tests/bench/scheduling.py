"""The schedules as the benches drive them: a crowd of businesses, a provider without HTTP, and a node over a database of its own.

    with Cluster() as cluster:
        spent = cluster.live(10_000, seed)        placed, moved, balanced, a day lived through: what each of it cost

Everything goes through the verbs and turns that the server itself calls, over a PostgreSQL with the server's own settings. The
provider (`Account`) answers in this process: its own time is taken and left out, so a day holds all that we do for it, but no HTTP.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import asyncpg
import orjson
import uvloop
from pydantic import SecretStr

from server.batching.loop import Occasion
from server.batching.parts import Lead
from server.batching.schedules import provider
from server.batching.schedules.plan import PLATFORMS, TIERS, Platform, Type
from server.batching.schedules.runs import Runs
from server.batching.schedules.runs import Terms as RunTerms
from server.batching.schedules.verbs import Schedules
from server.core.identity import Identity
from server.edge import apify, logs
from server.edge.clock import VirtualClock
from server.edge.embedded import EmbeddedPostgres
from server.edge.postgres import Connection, Database, migrate
from server.protocol.intake import Format
from tests.bench import processes
from tests.bench.crowds import NOW_MS

TEAM: Final = 10
"""Businesses of a team."""
MOVED: Final = 10
"""One team of so many gets another tier."""
DAY_MINUTES: Final = 1_440
PIECE: Final = 1 << 18
ADMIN: Final = Identity("bench", frozenset(["admin"]))
SECRET: Final = SecretStr("a secret of the benches' webhooks")
TIER_MOVES_AT_ONCE: Final = 4
WORDS: Final = (
    "Quiet rooms, kind staff and a view over the river; breakfast could be earlier, but we would come again. "
)


# --- who is placed ---


def identifier(number: int) -> tuple[Platform, str]:
    """The platform that a business is on, and its name there."""
    platform = PLATFORMS[number % len(PLATFORMS)]
    names = {
        "google": f"ChIJbench{number:010d}",
        "facebook": f"https://www.facebook.com/bench{number}",
        "tripadvisor": f"https://www.tripadvisor.com/Hotel_Review-g1-d{number + 1}-Reviews-Bench.html",
        "booking": f"https://www.booking.com/hotel/de/bench{number}.html",
    }
    return platform, names[platform]


def team_of(number: int) -> str:
    """The team of a business: those of one stand together in a file."""
    return f"team {number // TEAM:06d}"


def tier_of(team: int) -> str:
    """The tiers in turn."""
    return TIERS[team % len(TIERS)]


def lines(count: int) -> Iterator[bytes]:
    """A file of so many businesses, line by line."""
    yield b"team,name,tier,platform,identifier\n"
    for number in range(count):
        platform, name = identifier(number)
        yield f"{team_of(number)},Business {number},{tier_of(number // TEAM)},{platform},{name}\n".encode()


async def pieces(text: bytes) -> AsyncIterator[bytes]:
    """A file as a request's body brings it."""
    for at in range(0, len(text), PIECE):
        yield text[at : at + PIECE]


# --- the provider ---


@dataclass
class Account:
    """The provider in this process, with as much of `Apify` as runs need: all of them succeed, when `end` is called."""

    clock: VirtualClock
    each: int = 1
    """Reviews of a place in one run: new ones each time."""
    terms: apify.Terms = field(default_factory=lambda: apify.Terms("http://127.0.0.1", 5_000, retries=0))
    spent_s: float = 0.0
    items: int = 0
    runs: dict[str, apify.Run] = field(default_factory=dict)
    asked: dict[str, tuple[Platform, Type, Sequence[str]]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    async def start(self, actor: str, run_input: Mapping[str, Any], options: apify.Options) -> apify.Run:
        """A new run."""
        began = time.perf_counter()
        platform, type = KINDS[actor]
        places = run_input.get("placeIds") or [one["url"] for one in run_input["startUrls"]]
        run_id = f"run{len(self.runs):07d}"
        run = apify.Run(run_id, actor, "RUNNING", self.clock.now_ms(), None, f"ds{run_id}", f"kv{run_id}")
        self.runs[run_id], self.asked[run_id] = run, (platform, type, places)
        self.notes[run_id] = "" if options.webhook is None else options.webhook.note
        self.open.append(run_id)
        self.spent_s += time.perf_counter() - began
        return run

    def end(self) -> list[bytes]:
        """All runs end; the webhooks that tell of it."""
        began = time.perf_counter()
        ended, self.open = self.open, []
        for run_id in ended:
            self.runs[run_id] = replace(self.runs[run_id], status="SUCCEEDED", finished_ms=self.clock.now_ms())
        bodies = [
            orjson.dumps(
                {"eventType": apify.EVENTS[0], "eventData": {"actorRunId": run_id}, "note": self.notes[run_id]}
            )
            for run_id in ended
        ]
        self.spent_s += time.perf_counter() - began
        return bodies

    async def run(self, run_id: str) -> apify.Run:
        """As it is now."""
        return self.runs[run_id]

    async def page(self, dataset_id: str, offset: int, limit: int) -> apify.Page:
        """Items of a run's dataset."""
        began = time.perf_counter()
        run_id = dataset_id.removeprefix("ds")
        platform, type, places = self.asked[run_id]
        each = 1 if type == "overview" else self.each
        total = each * len(places)
        found = [
            item(platform, type, places[n // each], f"{run_id}-{n}") for n in range(offset, min(total, offset + limit))
        ]
        body = orjson.dumps(found)
        self.items += len(found)
        self.spent_s += time.perf_counter() - began
        return apify.Page(body, offset, len(found), total)


KINDS: Final = {actor: kind for kind, actor in provider.ACTORS.items()}


@cache
def returned(place: str) -> str:
    """What a platform itself calls a place."""
    return "1" + "".join(filter(str.isdecimal, place))


def item(platform: Platform, type: Type, place: str, key: str) -> dict[str, object]:
    """An item of a dataset as that platform's actor sends it."""
    said: dict[str, object] = {
        "rating": 4,
        "publishedAtDate": "2026-03-01T12:00:00.000Z",
        "url": f"https://{platform}.com/{key}",
    }
    if platform == "google":
        said |= {
            "placeId": place,
            "reviewId": key,
            "name": "Ada",
            "text": WORDS,
            "totalScore": 4.2,
            "reviewsCount": 250,
        }
    elif platform == "facebook":
        said |= {"facebookUrl": place, "facebookId": returned(place), "id": key, "user": {"name": "Ada"}, "text": WORDS}
    elif platform == "tripadvisor":
        said |= {"input": place, "locationId": returned(place), "id": key, "text": WORDS, "numberOfReviews": 250}
    else:
        said |= {"startUrl": place, "hotelId": returned(place), "id": key, "userName": "Ada", "likedText": WORDS}
    return said


# --- one node ---


async def fence(connection: Connection) -> int:
    """It leads."""
    return 1


@dataclass(frozen=True, slots=True)
class Spent:
    """What a piece of work cost: CPU of this process and PostgreSQL, and the clock on the wall; `done` is what it was about."""

    own: float
    below: float
    wall: float
    done: int = 0

    @property
    def cpu(self) -> float:
        """Both."""
        return self.own + self.below

    @property
    def rate(self) -> float:
        """Done a second."""
        return self.done / self.wall

    def __str__(self) -> str:
        return f"{self.wall:.1f} s (CPU {self.own:.1f} s here, {self.below:.1f} s PostgreSQL)"


class Watch:
    """Measures from its making on."""

    def __init__(self) -> None:
        self._cpu, self._began = processes.cpu(os.getpid()), time.perf_counter()

    def spent(self, done: int, left_out_s: float = 0.0) -> Spent:
        """Until now, but for what is left out."""
        wall, cpu = time.perf_counter() - self._began, processes.cpu(os.getpid()) - self._cpu
        return Spent(cpu.own - left_out_s, cpu.below, wall - left_out_s, done)


@dataclass(frozen=True, slots=True)
class Life:
    """What became of a crowd: businesses placed, mappings moved by tiers, moved by balancing, runs of a day."""

    count: int
    placed: Spent
    moved: Spent
    balanced: Spent
    intents: int
    day: Spent
    items: int


class Node:
    """The verbs and the turns over one database."""

    def __init__(self, db: Database) -> None:
        self.clock = VirtualClock(NOW_MS)
        self.core = Schedules(db, self.clock)
        self.account = Account(self.clock)
        asking = provider.Terms(public_url="http://127.0.0.1:1", secret=SECRET)
        lead = Lead(lambda: True, lambda: "bench", fence)
        asked = provider.Provider(cast(apify.Apify, self.account), asking)
        self.runs = Runs(db, self.clock, asked, lead, RunTerms(secret=SECRET))

    async def place(self, text: bytes, count: int) -> Spent:
        """Take a file in."""
        watch = Watch()
        taken = await self.core.taking.take_in("bench", Format.CSV, pieces(text))
        assert taken.placed == count, taken
        return watch.spent(count)

    async def move(self, count: int) -> Spent:
        """A tenth of the teams get the next tier, a few of them at a time: every other starter from the first on, so that many
        batches are left half empty and there is something to balance."""
        teams = iter(range(0, 2 * len(TIERS) * (count // TEAM // MOVED), 2 * len(TIERS)))
        watch = Watch()
        moved = sum(await asyncio.gather(*(self._move(teams) for _ in range(TIER_MOVES_AT_ONCE))))
        assert moved == 2 * (count // TEAM // MOVED) * TEAM, moved
        return watch.spent(moved)

    async def _move(self, teams: Iterable[int]) -> int:
        moved = 0
        for team in teams:
            tier = TIERS[(team + 1) % len(TIERS)]
            moved += (await self.core.intervals.set_tier(team_of(team * TEAM), tier, ADMIN)).moved
        return moved

    async def balance(self) -> Spent:
        """Consolidate and rebalance until nothing is left to do."""
        watch, moves, more = Watch(), 0, True
        while more:
            done = await self.core.upkeep.balance(ADMIN)
            moves, more = moves + done.moves, done.more
        return watch.spent(moves)

    async def day(self) -> tuple[int, Spent]:
        """Every minute of a day: what is due is started, ends, and is attributed; how many runs that were."""
        watch, before = Watch(), len(self.account.runs)
        for _ in range(DAY_MINUTES):
            await self.clock.advance(60)
            while await self._start():
                for body in self.account.end():
                    await self.runs.receive(SECRET.get_secret_value(), body)
                while (await self.runs.processing.turn(self._now())).more:
                    pass
        runs = len(self.account.runs) - before
        return runs, watch.spent(runs, self.account.spent_s)

    async def _start(self) -> bool:
        """A turn after the other until nothing more can be started; whether anything was."""
        while (await self.runs.starting.dispatch(self._now())).more:
            pass
        return bool(self.account.open)

    def _now(self) -> Occasion:
        return Occasion("interval", 1, self.clock.now_ms())

    async def check(self, count: int, runs: int) -> None:
        """Nothing was lost on the way."""
        report = await self.core.checking.validate()
        assert report.ok, [(check.name, check.examples) for check in report.checks if not check.ok]
        async with self.runs.acting() as connection:
            settled = await connection.fetchval(
                "select count(*) from schedules.provider_run where state = 'succeeded' and processed_at is not null and missing = 0"
            )
            written = await connection.fetchval(
                "select (select count(*) from schedules.review) + (select count(*) from schedules.overview)"
            )
            waiting = await connection.fetchval(
                "select count(*) from schedules.webhook_delivery where processed_at is null"
            )
        assert settled == runs and not waiting, (settled, runs, waiting)
        assert written == self.account.items, (written, self.account.items)
        assert runs >= count / 50, runs


class Cluster:
    """One PostgreSQL in a folder that is gone afterwards."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="batchcast-bench-", dir="/tmp"))
        self._folder.chmod(0o711)  # PostgreSQL's account must be able to enter
        self._server = EmbeddedPostgres(self._folder)
        self._dsn = ""

    def __enter__(self) -> Cluster:
        logs.configure(level="warning")
        self._dsn = self._server.start_now()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.stop_now()
        shutil.rmtree(self._folder, ignore_errors=True)

    def live(self, count: int) -> Life:
        """All that becomes of so many businesses, in a database of their own."""
        return uvloop.run(self._live(count))  # as the server does

    async def _live(self, count: int) -> Life:
        name = f"crowd_{count}"
        connection = await asyncpg.connect(self._dsn)
        await connection.execute(f"create database {name}")
        await connection.close()
        db = await Database.open(self._dsn.replace("@/postgres?", f"@/{name}?"), clock=VirtualClock(NOW_MS))
        try:
            await migrate(db)
            return await _live(Node(db), count)
        finally:
            await db.close()


async def _live(node: Node, count: int) -> Life:
    placed = await node.place(b"".join(lines(count)), count)
    moved = await node.move(count)
    balanced = await node.balance()
    runs, day = await node.day()
    await node.check(count, runs)
    return Life(count, placed, moved, balanced, runs, day, node.account.items)
