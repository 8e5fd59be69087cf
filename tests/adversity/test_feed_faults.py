"""Everything between a client and the truth fails, at random and under load; afterwards all clients hold the truth.

A way that is stalled, cut, half-open, slow or late; two seconds without a network; a server that is killed and comes back on its
ports; PostgreSQL killed under it. FAULTS sets how many faults there are (`make soak` makes it many).
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
from tests.serving import Process, until
from tests.ways import End, Way

FAULTS: Final = int(os.environ.get("FAULTS", "20"))
SEED: Final = int(os.environ.get("FAULTS_SEED", "1"))
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
        assert people.acknowledged > 50 * len(people.producers)
        assert people.proxy.admitted > 2 * len(people.watchers)
    await nobody_is_there(server)
    errors = [line for line in server.log() if line.get("level") == "error" and line["event"] not in EXPECTED]
    assert not errors
