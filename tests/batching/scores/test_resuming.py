"""Random histories with cuts: whoever comes back, after whatever happened, has one difference and then the fresh view.

The machinery is test_histories'; here every client is a line of connections that share one view: what the client holds. A
connection may be cut (what is handed over afterwards never arrives), stand half-open, be noticed, be closed for being slow,
be left; and its client comes back by what is remembered of it, by what it says it holds, as somebody else, or too late.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.scores.audience import NOTHING, Held, Viewer
from server.batching.scores.frame import Frame
from server.batching.scores.views import Kind
from server.core.event import Delete
from server.edge.clock import Clock
from server.edge.postgres import Database
from tests.batching.scores.test_histories import (
    CLIENTS,
    HISTORIES,
    IDS,
    LAX,
    PHASES,
    QUESTIONS,
    USERS,
    VIEWPORTS,
    Stage,
    act,
    rows,
    updates,
)
from tests.batching.scores.world import Client, Trial, as_question, make_feed, trial

MOST, KEEP_S = 1, 600
"""So few are remembered, and so shortly, that histories get there."""
EVERYWHERE = {"north": 90, "south": -90, "east": 180, "west": -180}
HOW = st.sampled_from(["remembered", "remembered", "remembered", "held", "nothing", "wrong seq"])

CHANGES = st.one_of(
    st.tuples(st.just("upsert"), rows()),
    st.tuples(st.just("upsert"), rows()),
    st.tuples(st.just("count"), updates()),
    st.tuples(st.just("delete"), IDS),
    st.tuples(st.just("delete"), IDS),
    st.tuples(st.just("forget")),
    st.tuples(st.just("flush")),
    st.tuples(st.just("wait"), st.sampled_from([1, 60, 590, 40_000])),
)
STEPS = st.one_of(
    CHANGES,
    st.tuples(st.just("pan"), CLIENTS, VIEWPORTS),
    st.tuples(st.just("become"), CLIENTS, USERS),
    st.tuples(st.just("stall"), CLIENTS),
    st.tuples(st.just("leave"), CLIENTS),
    st.tuples(st.just("cut"), CLIENTS),
    st.tuples(st.just("end"), CLIENTS),
    st.tuples(st.just("back"), CLIENTS, HOW, st.none() | QUESTIONS),
)


@st.composite
def absences(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """One goes, something happens, it comes back."""
    number = draw(CLIENTS)
    meanwhile = draw(st.lists(CHANGES, min_size=1, max_size=5))
    return [("end", number), *meanwhile, ("back", number, draw(HOW), draw(st.none() | st.none() | QUESTIONS))]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Some events, three viewers, then absences and anything at all, and all come back at the end."""
    events = [("upsert", draw(rows())) for _ in range(draw(st.integers(2, 8)))]
    wide = st.just({"viewport": EVERYWHERE, "filters": [], "user": None, "maxEvents": 50})
    viewers = [("back", number, "nothing", draw(wide | QUESTIONS)) for number in range(3)]
    parts = draw(st.lists(absences() | st.lists(STEPS, min_size=1, max_size=5), min_size=2, max_size=6))
    ends = [("back", number, draw(HOW), None) for number in range(3)]
    return [*events, *viewers, *itertools.chain(*parts), *ends]


class Line(Client):
    """One connection of a client; `cut`: nothing that is handed over arrives any more, and the server does not know."""

    def __init__(self, before: Line | None, question: dict[str, Any], clock: Clock) -> None:
        super().__init__(clock)
        self.question = dict(question)
        self.cut = self.superseded = False
        if before is not None:
            self.view = before.view

    def hand(self, frame: Frame) -> None:
        if not self.cut:
            super().hand(frame)

    def supersede(self) -> None:
        self.superseded = True


class Comings(Trial):
    """A trial whose clients come and go; beside it what the server must remember, kept in the plainest way."""

    def __init__(self, one: Trial) -> None:
        super().__init__(one.feed, one.clock, one.db)
        self.names = 0
        self.ended: list[tuple[str, int]] = []

    async def play(self, steps: list[tuple[Any, ...]]) -> None:
        for step in steps:
            await self.take(step)
            self.check()
        for client in self.clients.values():
            await self.drain(client)
        await self.flush()
        self.check()
        self.check_scores()

    async def take(self, step: tuple[Any, ...]) -> None:
        kind, *rest = step
        if kind in ("upsert", "count", "delete", "flush", "wait"):
            await act(self, step)
        elif kind == "forget":
            await self.turns.forget(self.occasion())
        elif kind == "back":
            await self.back(*rest)
        else:
            await self.move(kind, self.clients[rest[0]], rest[1:])

    async def move(self, kind: str, client: Client, rest: list[Any]) -> None:
        assert isinstance(client, Line) and client.viewer is not None
        if client.viewer not in self.feed.desk.audience:
            return
        if kind == "cut":
            client.cut = client.stalled = True
        elif kind == "end":
            self.lose(client)
        elif client.cut:
            return
        elif kind == "stall":
            client.stalled = True
        elif kind == "leave":
            self.feed.leave(client.viewer)
        else:
            await self.drain(client)
            await (self.ask(client, viewport=rest[0]) if kind == "pan" else self.become(client, rest[0]))

    def lose(self, client: Line) -> None:
        """The server notices that the connection has ended; a frame that waits never leaves."""
        assert client.viewer is not None
        self.feed.lose(client.viewer)
        self.ended.append((client.viewer.session, self.clock.now_ms()))
        self.ended = self.ended[-MOST:]

    def known(self, client: Line, user: str | None) -> bool:
        """Must the server know what the client holds?"""
        viewer, now = client.viewer, self.clock.now_ms()
        assert viewer is not None
        here = viewer in self.feed.desk.audience
        kept = any(name == viewer.session and now - at < KEEP_S * 1000 for name, at in self.ended)
        arrived = client.view.seq == viewer.seq > 0
        return (here or kept) and arrived and user == client.question["user"]

    async def back(self, number: int, how: str, question: dict[str, Any] | None) -> None:
        before = self.clients.get(number)
        assert before is None or isinstance(before, Line)
        after = Line(before, question or (before.question if before else {}), self.clock)
        self.names += 1
        after.viewer = Viewer(f"session {self.names}", as_question(after.question), after)
        held, known = self.say(before, after, how)
        after.view.seq = 0
        after.synced_at = self.clock.now_ms()
        self.clients[number] = after
        await self.feed.join(after.viewer, held, known)
        recovered = held is not None or known is not None
        assert [frame["type"] for frame in after.frames] == ["changes" if recovered else "replace-all"]
        assert after.frames[0]["seq"] == 1

    def say(self, before: Line | None, after: Line, how: str) -> tuple[list[tuple[str, int]] | None, Held | None]:
        """Name the former session; what is then said to be held, and what the server knew of it, which must be right."""
        if before is None or how == "nothing":
            if before is not None and before.viewer in self.feed.desk.audience:
                self.lose(before)
            return None, None
        assert before.viewer is not None
        held = [(i, e["version"]) for i, e in before.view.events.items()] if how == "held" else None
        session, user = before.viewer.session, after.question["user"]
        # One more than was handed over: one more than arrived may be the right one, while a frame is under way.
        seq = before.viewer.seq + 1 if how == "wrong seq" else before.view.seq
        stood, expected = before.viewer in self.feed.desk.audience, how != "wrong seq" and self.known(before, user)
        known = self.feed.come_back(after.viewer, user, session, seq)
        assert (known is not None) == expected
        assert self.feed.come_back(after.viewer, user, session, seq) is None, "it is used once"
        if user == before.question["user"]:
            assert before.viewer not in self.feed.desk.audience
            assert before.superseded == stood
            self.ended = [(name, at) for name, at in self.ended if name != session]
        else:
            assert (before.viewer in self.feed.desk.audience, before.superseded) == (stood, False)
            if stood:
                self.lose(before)
        return held, known


class Crossing(Stage):
    """Histories of comings and goings, where little is remembered."""

    async def played(self, steps: list[tuple[Any, ...]], options: dict[str, Any]) -> None:
        async with trial(self.db, resume_sessions=MOST, resume_keep_ms=KEEP_S * 1000, **options) as one:
            await Comings(one).play(steps)


@pytest.fixture
def stage(dsn: str) -> Iterator[Crossing]:
    with closing(Crossing(dsn)) as made:
        yield made


@settings(max_examples=max(30, HISTORIES // 4), deadline=None, suppress_health_check=LAX, phases=PHASES)
@given(histories())
def test_whoever_comes_back_has_one_difference_and_then_the_fresh_view(stage: Stage, steps: list[Any]) -> None:
    stage.play(steps)


@settings(max_examples=max(15, HISTORIES // 16), deadline=None, suppress_health_check=LAX, phases=PHASES)
@given(histories())
def test_the_same_holds_while_batching_is_off(stage: Stage, steps: list[Any]) -> None:
    stage.play(steps, enable_batching=False)


# --- one at a time ---


@pytest.fixture
def here() -> dict[str, Any]:
    return {"viewport": EVERYWHERE, "user": None, "maxEvents": 50}


def place(event_id: str, start: int, latitude: float = 0.0) -> dict[str, Any]:
    return {"id": event_id, "location": {"latitude": latitude, "longitude": 0.0}, "start": start, "title": event_id}


async def test_the_slot_of_an_event_that_is_gone_waits_for_who_may_come_back_and_not_for_ever(
    db: Database, here: dict[str, Any]
) -> None:
    async with trial(db, resume_keep_ms=KEEP_S * 1000) as plain:
        one = Comings(plain)
        await one.upsert(place("a", one.clock.now_ms()))
        await one.back(0, "nothing", here)
        await one.move("end", one.clients[0], [])
        await one.write(Delete("a"))
        one.model.delete("a")
        assert (await one.turns.forget(one.occasion())).done == 0
        await one.clock.advance(KEEP_S)
        assert (await one.turns.forget(one.occasion())).done == 1
        assert len(one.feed.desk.sessions) == 0
        await one.back(0, "remembered", None)
        assert one.clients[0].frames[0]["events"] == []


async def test_an_event_in_the_place_of_one_that_is_gone_is_told_as_what_it_is(
    db: Database, here: dict[str, Any]
) -> None:
    async with trial(db) as plain:
        one = Comings(plain)
        await one.upsert(place("a", one.clock.now_ms()))
        await one.back(0, "nothing", here)
        await one.move("end", one.clients[0], [])
        await one.write(Delete("a"))
        one.model.delete("a")
        await one.turns.forget(one.occasion())
        await one.upsert(place("b", one.clock.now_ms()))
        await one.back(0, "remembered", None)
        told = one.clients[0].frames[0]["updates"]
        assert ([e["id"] for e in told["creates"]], told["updates"], told["deletes"]) == (["b"], [], ["a"])


async def test_what_has_not_moved_is_not_sent_again_but_to_who_only_says_so(db: Database, here: dict[str, Any]) -> None:
    async with trial(db) as plain:
        one = Comings(plain)
        for number in range(5):
            await one.upsert(place(f"e{number}", one.clock.now_ms(), number / 10))
        for how, survivors in (("remembered", 0), ("held", 5)):
            await one.back(0, "nothing", here)
            await one.move("end", one.clients[0], [])
            await one.back(0, how, None)
            told = one.clients[0].frames[0]["updates"]
            assert (len(told["creates"]), len(told["updates"]), told["deletes"]) == (0, survivors, [])


async def test_what_was_being_made_for_the_old_connection_is_thrown_away(db: Database, here: dict[str, Any]) -> None:
    """The engine is held up: a batch for the old connection waits there while the session goes on elsewhere."""
    async with trial(db) as plain:
        await plain.upsert(place("a", plain.clock.now_ms()))
        feed, gate = make_feed(db, plain.clock, plain.feed._settings, threaded=True), threading.Event()
        await feed.load()
        one = Comings(Trial(feed, plain.clock, db))
        await one.back(0, "nothing", here)
        old = one.clients[0]
        assert old.viewer is not None
        old.viewer.held = NOTHING  # So that there is something to tell it.
        busy = feed._engine.ask(lambda lookout: gate.wait(30))
        walk = asyncio.create_task(one.turns._walk([old.viewer], Kind.BATCH, 0.01, one.clock.now_ms(), urgent=True))
        await asyncio.sleep(0)
        coming = asyncio.create_task(one.back(0, "remembered", None))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(busy, walk, coming)
        assert [frame["type"] for frame in old.frames] == ["replace-all"]
        assert set(one.clients[0].view.events) == {"a"}
        await feed.close()
