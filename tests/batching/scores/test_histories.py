"""Random histories against the naive model: every client's state equals a fresh view at every batch.

HISTORIES sets how many (`make fuzz` runs as many as asked). What Hypothesis shrank once stands below as a test of its own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from server.core.event import Delete
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from tests.batching.scores.world import HOUR, START, Trial, trial

HISTORIES = int(os.environ.get("HISTORIES", "120"))
IDS = st.sampled_from([f"e{i}" for i in range(9)])
CLIENTS = st.integers(0, 2)
VIEWPORTS = st.sampled_from(
    [
        {"west": -1, "south": -1, "east": 1, "north": 1},
        {"west": -180, "south": -90, "east": 180, "north": 90},
        {"west": -180, "south": -90, "east": 180, "north": 90},
        {"west": 179.5, "south": -1, "east": -179.5, "north": 1},
        {"west": -0.01, "south": -0.01, "east": 0.01, "north": 0.01},
    ]
)
FILTERS = st.sampled_from(
    [
        [],
        [],
        [{"text": "jazz"}],
        [{"status": ["PENDING"]}, {"categories": {"include": ["art"]}}],
        [{"dateRange": {"start": START}}],
    ]
)
USERS = st.sampled_from([None, "ann", "bob"])
PLACES = st.sampled_from(
    [
        (0.0, 0.0),
        (0.001, 0.001),
        (0.003, 0.0),
        (0.005, 0.005),
        (0.5, 0.5),
        (0.2, -0.7),
        (0.0, 179.9),
        (0.0, -179.9),
        (50.0, 8.0),
    ]
)
QUESTIONS = st.fixed_dictionaries(
    {"viewport": VIEWPORTS, "filters": FILTERS, "user": USERS, "maxEvents": st.sampled_from([1, 2, 3, 50])}
)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    lat, lon = draw(PLACES)
    row: dict[str, Any] = {
        "id": draw(IDS),
        "location": {"latitude": lat, "longitude": lon},
        "start": START + draw(st.sampled_from([-23, -1, 0, 1, 3, 30, 700])) * HOUR,
    }
    optional: dict[str, st.SearchStrategy[Any]] = {
        "title": st.sampled_from(["Jazz", "Food"]),
        "status": st.sampled_from(["PENDING", "VERIFIED", "REJECTED"]),
        "isPrivate": st.booleans(),
        "creatorId": st.sampled_from(["ann", "bob"]),
        "sharedWith": st.sampled_from([[], ["bob"]]),
        "categories": st.sampled_from([[], ["art"]]),
        "rsvpCount": st.integers(0, 4),
        "confidence": st.sampled_from([0, 1]),
    }
    for name, values in optional.items():
        if draw(st.integers(0, 2)) == 0:
            row[name] = draw(values)
    return row


@st.composite
def updates(draw: st.DrawFn) -> dict[str, Any]:
    row: dict[str, Any] = {"eventId": draw(IDS)}
    if draw(st.booleans()):
        row["rsvpCount"] = draw(st.integers(0, 4))
    else:
        row["delta"] = {"saveCount": draw(st.integers(-3, 3)), "rsvpCount": draw(st.integers(-1, 2))}
    if draw(st.integers(0, 4)) == 0:
        row["priority"] = "high"
    return row


STEPS = st.one_of(
    st.tuples(st.just("upsert"), rows()),
    st.tuples(st.just("upsert"), rows()),
    st.tuples(st.just("count"), updates()),
    st.tuples(st.just("count"), updates()),
    st.tuples(st.just("delete"), IDS),
    st.tuples(st.just("join"), CLIENTS, QUESTIONS),
    st.tuples(st.just("pan"), CLIENTS, VIEWPORTS),
    st.tuples(st.just("filter"), CLIENTS, FILTERS),
    st.tuples(st.just("become"), CLIENTS, USERS),
    st.tuples(st.just("leave"), CLIENTS),
    st.tuples(st.just("stall"), CLIENTS),
    st.tuples(st.just("drain"), CLIENTS),
    st.tuples(st.just("flush")),
    st.tuples(st.just("flush")),
    st.tuples(st.just("wait"), st.sampled_from([1, 60, 3600, 40_000])),
)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Some events, three viewers, then anything at all: what happens to an empty map is soon told."""
    events = [("upsert", draw(rows())) for _ in range(draw(st.integers(0, 8)))]
    viewers = [("join", number, draw(QUESTIONS)) for number in range(3)]
    return [*events, *viewers, *draw(st.lists(STEPS, min_size=5, max_size=40))]


async def play(one: Trial, steps: list[tuple[Any, ...]]) -> None:
    for step in steps:
        await act(one, step)
        one.check()
    for client in one.clients.values():
        await one.drain(client)
    await one.flush()
    one.check()
    one.check_scores()


async def act(one: Trial, step: tuple[Any, ...]) -> None:
    kind, *rest = step
    if kind == "upsert":
        await one.upsert(rest[0])
    elif kind == "count" and rest[0]["eventId"] in one.model.stored:
        await one.count(rest[0])
    elif kind == "delete" and rest[0] in one.model.stored:
        await one.write(Delete(rest[0]))
        one.model.delete(rest[0])
    elif kind == "flush":
        await one.flush()
        one.check_scores()
    elif kind == "wait":
        await one.clock.advance(rest[0])
    elif kind in ("join", "pan", "filter", "become", "leave", "stall", "drain"):
        await move(one, kind, rest)


async def move(one: Trial, kind: str, rest: list[Any]) -> None:
    if kind == "join":
        if rest[0] in one.clients:
            await one.drain(one.clients[rest[0]])
        await one.join(rest[0], rest[1])
        return
    client = one.clients.get(rest[0])
    if client is None or client.viewer is None or client.viewer not in one.feed.desk.audience:
        return
    if kind == "stall":
        client.stalled = True
        return
    await one.drain(client)
    if kind == "leave":
        one.feed.leave(client.viewer)
        client.view.events.clear()
        client.view._sum = 0
    elif kind == "pan":
        await one.ask(client, viewport=rest[1])
    elif kind == "filter":
        await one.ask(client, filters=rest[1])
    elif kind == "become":
        await one.become(client, rest[1])


class Stage:
    """One event loop and one open database for all histories of a test; how one is played is for its heirs to say."""

    def __init__(self, dsn: str) -> None:
        self.runner = asyncio.Runner()
        self.db = self.runner.run(Database.open(dsn, pool_size=2, clock=SystemClock()))

    def play(self, steps: list[tuple[Any, ...]], **options: Any) -> None:
        self.runner.run(self.played(steps, options))

    async def played(self, steps: list[tuple[Any, ...]], options: dict[str, Any]) -> None:
        async with trial(self.db, **options) as one:
            await play(one, steps)

    def close(self) -> None:
        self.runner.run(self.db.close())
        self.runner.close()


@pytest.fixture
def stage(dsn: str) -> Iterator[Stage]:
    with closing(Stage(dsn)) as made:
        yield made


PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
LAX = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=LAX, phases=PHASES)
@given(histories())
def test_every_client_equals_a_fresh_view_at_every_batch(stage: Stage, steps: list[tuple[Any, ...]]) -> None:
    stage.play(steps)


@settings(max_examples=max(30, HISTORIES // 8), deadline=None, suppress_health_check=LAX, phases=PHASES)
@given(histories())
def test_the_same_holds_while_batching_is_off(stage: Stage, steps: list[tuple[Any, ...]]) -> None:
    stage.play(steps, enable_batching=False)
