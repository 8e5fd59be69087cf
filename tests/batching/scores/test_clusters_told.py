"""What clients were told of clusters equals the oracle's after every batch, whoever asked, through the feed's own turns."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from server.core.event import Delete
from server.edge.postgres import Database
from tests.batching.scores.world import HOUR, START, Client, Trial, trial
from tests.oracle.clusters import clusters as oracle

WORLD = {"west": -180, "south": -90, "east": 180, "north": 90}
LINE = {"west": 170, "south": -30, "east": -170, "north": 30}
CITY = {"west": 9.9, "south": 9.9, "east": 10.1, "north": 10.1}


@pytest_asyncio.fixture
async def place(db: Database) -> AsyncIterator[Trial]:
    async with trial(db) as one:
        yield one


def row(number: int, **fields: Any) -> dict[str, Any]:
    where = {"latitude": 10.0 + number / 100, "longitude": 10.0 + number / 100}
    return {"id": f"e{number:02d}", "location": where, "start": START + HOUR, **fields}


async def joined(place: Trial, number: int, *, clusters: bool = True, **question: Any) -> Client:
    """A client that asks for clusters, holding its snapshot."""
    client = await place.join(number, {"viewport": WORLD, "filters": [], "user": None, "maxEvents": 2, **question})
    if clusters:
        assert client.viewer is not None
        client.viewer.clusters = True
        await place.feed.resync(client.viewer, None, None)
    return client


def agree(place: Trial) -> None:
    """Every client that asked has been told what is so."""
    for client in place.clients.values():
        assert client.viewer is not None
        if client.viewer.clusters:
            fresh = oracle(list(place.model.published.values()), client.question, place.clock.now_ms())
            assert {one["cell"]: one for one in client.view.clusters} == {one["cell"]: one for one in fresh}


@pytest.mark.parametrize("seed", range(4))
async def test_after_every_batch_of_any_history_all_have_been_told_what_is_so(place: Trial, seed: int) -> None:
    chance = random.Random(seed)
    for number, viewport in enumerate((WORLD, LINE, CITY, WORLD)):
        await joined(place, number, viewport=viewport, user=(None, "ann")[number % 2], maxEvents=1 + number)
    for _ in range(12):
        for _ in range(chance.randrange(6)):
            await a_change(place, chance)
        await place.clock.advance(chance.choice([0, 60, 7200]))
        await place.flush()
        agree(place)


async def a_change(place: Trial, chance: random.Random) -> None:
    number, known = chance.randrange(40), list(place.model.stored)
    if known and chance.random() < 0.3:
        await place.count({"eventId": chance.choice(known), "delta": {"rsvpCount": 1}})
    elif known and chance.random() < 0.2:
        gone = chance.choice(known)
        await place.write(Delete(gone))
        place.model.delete(gone)
    else:
        latitude, longitude = chance.choice([(10, 10), (0, 179.9), (-20, -179.5), (88, 4), (-33, 151)])
        there = {"latitude": latitude + chance.random() / 20, "longitude": longitude + chance.random() / 20}
        private = {"isPrivate": chance.random() < 0.3, "creatorId": "ann"}
        start = START + chance.choice([-20, 1, 30, 600]) * HOUR
        await place.upsert({**row(number), "location": there, "start": start, **private})


async def test_a_pan_and_another_filter_are_answered_with_the_clusters_of_the_new_view(place: Trial) -> None:
    for number in range(8):
        await place.upsert(row(number, categories=["music"] if number % 4 else []))
    client = await joined(place, 0)
    await place.ask(client, viewport=CITY)
    agree(place)
    assert sum(one["count"] for one in client.view.clusters) == 8
    await place.ask(client, filters=[{"categories": {"include": ["music"]}}])
    agree(place)
    assert sum(one["count"] for one in client.view.clusters) == 6
    await place.ask(client, viewport=LINE)
    assert client.view.clusters == [] and client.frames[-1]["clusters"] == []


async def test_an_immediate_change_leaves_the_clusters_to_the_next_batch(place: Trial) -> None:
    for number in range(6):
        await place.upsert(row(number))
    client = await joined(place, 0)
    await place.upsert(row(7, rsvpCount=3, saveCount=5, scanCount=10))
    assert "clusters" not in client.frames[-1] and client.frames[-1]["type"] == "changes"
    assert sum(one["count"] for one in client.view.clusters) == 6
    await place.flush()
    agree(place)
    assert client.frames[-1]["type"] == "batch-update"
    frames = len(client.frames)
    await place.flush()
    assert len(client.frames) == frames, "nothing has changed"


async def test_while_batching_is_off_clusters_come_with_what_time_has_moved(place: Trial) -> None:
    for number in range(6):
        await place.upsert(row(number))
    client = await joined(place, 0)
    place.feed.desk.tunables.enabled = False
    await place.upsert(row(30, start=START + 700 * HOUR))
    assert sum(one["count"] for one in client.view.clusters) == 6
    await place.turns.drift(place.occasion())
    agree(place)
    assert (client.frames[-1]["type"], sum(one["count"] for one in client.view.clusters)) == ("changes", 7)
    frames = len(client.frames)
    await place.turns.drift(place.occasion())
    assert len(client.frames) == frames


async def test_who_becomes_somebody_else_is_told_at_once_what_that_shows_or_hides(place: Trial) -> None:
    for number in range(5):
        await place.upsert(row(number))
    await place.upsert(row(9, isPrivate=True, creatorId="ann", start=START + 700 * HOUR))
    client = await joined(place, 0)
    await place.become(client, "ann")
    agree(place)
    assert sum(one["count"] for one in client.view.clusters) == 6
    await place.become(client, None)
    agree(place)
    assert sum(one["count"] for one in client.view.clusters) == 5


async def test_who_did_not_read_for_a_while_is_told_once_what_is_so(place: Trial) -> None:
    for number in range(6):
        await place.upsert(row(number))
    slow, silent = await joined(place, 0), await joined(place, 1, clusters=False)
    slow.stalled = True
    for number in range(10, 14):
        await place.upsert(row(number, rsvpCount=number))
        await place.flush()
    await place.drain(slow)
    agree(place)
    assert sum("clusters" in frame for frame in slow.frames) <= 3
    assert not any("clusters" in frame for frame in silent.frames)
