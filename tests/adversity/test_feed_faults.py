"""Everything between a client and the truth fails, at random and under load; afterwards all clients hold the truth.

A way that is stalled, cut, half-open, slow or late; two seconds without a network; a server that is killed and comes back on its
ports; PostgreSQL killed under it, or out of its reach at the moment of a commit. QUEUE_SOAK=1 (`make soak`) makes the storm long.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest_asyncio

from tests.adversity.population import MILD, Population, at_rest, in_memory_process, nobody_is_there
from tests.adversity.proxy import in_front_of
from tests.serving import Message, Process, until
from tests.ways import End, Way

SOAK: Final = bool(os.environ.get("QUEUE_SOAK"))
FAULTS: Final = 200 if SOAK else 12
LOST_COMMITS: Final = 200 if SOAK else 12
SEED: Final = 1
SOME: Final = 20
"""Viewers, where the storm is on the other side of the server."""
BETWEEN_S: Final = 0.15
PULLED_OUT_S: Final = 2.0
EXPECTED: Final = {"postgres lost", "postgres exited", "postgres restart failed"}
"""What a server that goes through all this may call an error."""


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Process]:
    with in_memory_process(**MILD) as made:
        await made.start()
        yield made


# --- one way at a time ---


async def reset(way: Way, rng: random.Random) -> None:
    way.reset()


async def finish(way: Way, rng: random.Random) -> None:
    way.finish()


async def stall(way: Way, rng: random.Random) -> None:
    way.stall()
    await asyncio.sleep(rng.uniform(0.2, 2))
    way.flow()


async def half_open(way: Way, rng: random.Random) -> None:
    way.silence(*rng.choice([(End.CLIENT,), (End.SERVER,), tuple(End)]))


async def dribble(way: Way, rng: random.Random) -> None:
    way.dribble(rng.randint(100, 1500))


async def come_late(way: Way, rng: random.Random) -> None:
    way.latency_s = rng.uniform(0.05, 0.3)
    await asyncio.sleep(1)
    way.latency_s = 0


HARMS: Final[tuple[Callable[[Way, random.Random], Awaitable[None]], ...]] = (
    reset,
    finish,
    stall,
    half_open,
    dribble,
    come_late,
)


async def harm_some(people: Population, rng: random.Random) -> None:
    """One kind of harm to a few."""
    ways = people.proxy.each()
    harm = rng.choice(HARMS)
    chosen = rng.sample(ways, min(len(ways), rng.randint(1, 12)))
    await asyncio.gather(*(harm(way, rng) for way in chosen))


# --- all at once ---


async def pull_out(people: Population) -> None:
    """Nothing passes for two seconds."""
    people.proxy.stall()
    await asyncio.sleep(PULLED_OUT_S)
    people.proxy.flow()


async def kill_the_server(people: Population) -> None:
    await people.server.kill()
    await until(lambda: people.server.postgres() == [], "no PostgreSQL is left behind")
    await start_again(people)


async def restart_the_server(people: Population) -> None:
    people.server.signal(signal.SIGTERM)
    assert await people.server.ended() == 0
    await start_again(people)


async def start_again(people: Population) -> None:
    """On the same ports, over the same data."""
    ports = dict(people.server.ports)
    await people.server.start()
    assert people.server.ports == ports


async def kill_postgres(people: Population) -> None:
    before = people.server.postmaster()
    os.kill(before, signal.SIGKILL)
    await until(lambda: _postmaster(people.server) not in (None, before), "PostgreSQL is back")


def _postmaster(server: Process) -> int | None:
    try:
        return server.postmaster()
    except (FileNotFoundError, ValueError, IndexError):
        return None


BLOWS: Final = (kill_postgres, kill_the_server, pull_out, kill_postgres, restart_the_server)


async def test_whatever_fails_all_clients_converge_and_nothing_acknowledged_is_lost(server: Process) -> None:
    rng = random.Random(SEED)
    async with Population(server, SEED) as people:
        people.begin()
        harmed: list[asyncio.Future[None]] = []
        for number in range(FAULTS):
            await people.more_acknowledged(3)
            harmed.append(asyncio.ensure_future(harm_some(people, rng)))
            await asyncio.sleep(BETWEEN_S)
            if number % 4 == 3:
                await BLOWS[number // 4 % len(BLOWS)](people)
        await asyncio.gather(*harmed)
        await people.converge()
        await at_rest(server)
        assert people.proxy.admitted > 2 * len(people.watchers)
    await nobody_is_there(server)
    assert not surprises(server)


def surprises(server: Process) -> list[Message]:
    """What it called an error, and should not have met."""
    return [line for line in server.log() if line.get("level") == "error" and line["event"] not in EXPECTED]


async def test_commits_of_which_nobody_knows_under_load_leave_no_client_behind(dsn: str) -> None:
    """Each blow hits the commit of a group in which one producer's row is; whoever waited sends all of it again."""
    rng = random.Random(SEED)
    async with in_front_of(dsn) as cable:
        with in_memory_process(**MILD, DATABASE_URL=cable.dsn(dsn)) as server:
            await server.start()
            async with Population(server, SEED, count=SOME) as people:
                people.begin()
                for number in range(LOST_COMMITS):
                    cable.lose_commit_of = rng.choice(people.producers).name.encode()
                    await people.until(lambda lost=number + 1: cable.lost == lost, "a commit's answer is lost")
                    await people.more_acknowledged(1)
                await people.converge()
                await at_rest(server)
                assert sum(len(one.refusals) for one in people.producers) >= LOST_COMMITS
            await nobody_is_there(server)
            assert not surprises(server)
            # While the cable carries: the fixture waits for the end without letting this event loop run.
            server.signal(signal.SIGTERM)
            assert await server.ended() == 0
