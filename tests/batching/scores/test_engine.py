"""The engine's thread: patches before questions, the pressing before slices, every answer to its asker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from server.batching.scores.columns import Columns
from server.batching.scores.engine import Engine
from server.batching.scores.lookout import Lookout
from server.batching.scores.question import Question
from server.batching.scores.views import Kind, Sight, deliver
from server.core.event import Event
from server.edge.clock import SystemClock
from tests.batching.scores.test_frames import RULES, WORLD, Paper, Viewer

pytestmark = pytest.mark.pure


def make(*, threaded: bool = True) -> Engine:
    return Engine(Lookout(Columns(), RULES), SystemClock(), threaded=threaded)


@pytest_asyncio.fixture(params=[True, False], ids=["threaded", "inline"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    made = make(threaded=request.param)
    made.start()
    yield made
    await made.close()


def put(event_id: str, version: int = 1, latitude: float = 0.0) -> object:
    now_ms = SystemClock().now_ms()
    event = Event(event_id, latitude, 0.0, now_ms, created_ms=now_ms, version=version)
    return lambda lookout: lookout.columns.put(event, now_ms)


async def test_what_was_posted_is_in_whatever_is_asked_afterwards(engine: Engine) -> None:
    for number in range(50):
        engine.post(put(f"e{number}"))  # type: ignore[arg-type]
        assert await engine.ask(lambda lookout: len(lookout.columns)) == number + 1
    assert engine.events == 50


async def test_a_snapshot_shows_what_was_posted_before_it(engine: Engine) -> None:
    paper = Paper()
    viewer = Viewer("s1", WORLD, paper)
    engine.post(put("a"))  # type: ignore[arg-type]
    (draft,) = await engine.see([Sight(viewer, Kind.SNAPSHOT, None)])
    assert deliver(draft) is True
    assert [e["id"] for e in paper.messages[0]["events"]] == ["a"]


async def test_a_notice_of_a_patch_comes_on_the_event_loop(engine: Engine) -> None:
    noticed, where = asyncio.Event(), []

    def patch(lookout: Lookout) -> None:
        engine.tell(lambda: (where.append(threading.current_thread()), noticed.set()))  # type: ignore[func-returns-value]

    engine.post(patch)
    async with asyncio.timeout(30):
        await noticed.wait()
    assert where == [threading.current_thread()]


async def test_a_question_that_fails_is_its_askers_failure_and_nobody_elses() -> None:
    engine = make()
    engine.start()
    with pytest.raises(ZeroDivisionError):
        await engine.ask(lambda lookout: 1 // 0)
    assert await engine.ask(lambda lookout: 7) == 7
    await engine.close()


async def test_a_patch_that_fails_is_logged_and_the_next_one_counts(engine: Engine) -> None:
    engine.post(lambda lookout: lookout.columns.put(None, 0))  # type: ignore[arg-type,func-returns-value]
    engine.post(put("a"))  # type: ignore[arg-type]
    assert await engine.ask(lambda lookout: len(lookout.columns)) == 1


class Held:
    """Keeps the engine busy until it is let go, so that others queue behind it."""

    def __init__(self, engine: Engine) -> None:
        self._gate = threading.Event()
        self._engine = engine

    async def __aenter__(self) -> Held:
        begun = threading.Event()

        def block(lookout: Lookout) -> None:
            begun.set()
            self._gate.wait(30)

        self._blocked = self._engine.ask(block)
        await asyncio.to_thread(begun.wait, 30)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._gate.set()
        await self._blocked


async def test_patches_go_before_the_pressing_and_these_before_slices() -> None:
    engine, order = make(), []
    engine.start()
    async with Held(engine):
        slices = engine._do(lambda lookout: order.append("slice"), urgent=False)  # type: ignore[func-returns-value]
        asked = engine.ask(lambda lookout: order.append("ask"))  # type: ignore[func-returns-value]
        engine.post(lambda lookout: order.append("patch"))
    await asyncio.gather(slices, asked)
    assert order == ["patch", "ask", "slice"]
    await engine.close()


async def test_sights_that_wait_together_share_one_moment_and_go_to_their_own_askers() -> None:
    engine, calls = make(), []
    engine.start()
    lookout = engine._lookout
    ranked = lookout.rank

    def counted(questions: list[Question], now_ms: int) -> object:
        calls.append(len(questions))
        return ranked(questions, now_ms)

    lookout.rank = counted  # type: ignore[method-assign,assignment]
    viewers = [Viewer(f"s{n}", Question(WORLD.viewport, limit=n + 1), Paper()) for n in range(5)]
    async with Held(engine):
        waiting = [engine.see([Sight(viewer, Kind.SNAPSHOT, None)]) for viewer in viewers]
    drafts = [(await one)[0] for one in waiting]
    assert [d.viewer for d in drafts] == viewers
    assert calls == [5]
    await engine.close()


async def test_close_finishes_what_was_asked() -> None:
    engine = make()
    engine.start()
    answers = [engine.ask(lambda lookout, n=n: n) for n in range(20)]  # type: ignore[misc]
    await engine.close()
    assert await asyncio.gather(*answers) == list(range(20))


async def test_rows_are_not_renumbered_while_drafts_are_out(engine: Engine) -> None:
    with engine.drawn():
        for number in range(600):
            engine.post(put(f"e{number}", latitude=number / 10))  # type: ignore[arg-type]
        assert await engine.ask(lambda lookout: (lookout.columns.merges, lookout.columns.merge_due)) == (0, True)
    engine.post(put("last"))  # type: ignore[arg-type]
    while not await engine.ask(lambda lookout: lookout.columns.merges):
        await asyncio.sleep(0)
