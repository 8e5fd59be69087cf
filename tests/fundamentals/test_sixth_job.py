"""A system of one folder, wired by one line, has at once all that the five have."""

from collections.abc import AsyncIterator

import pytest

from server.batching.alerts import Alerts
from server.batching.ledger import Ledger
from server.batching.loop import Loop
from server.batching.panel import Panel
from server.edge.clock import VirtualClock
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from tests.fundamentals import toy
from tests.fundamentals.toy.store import SCHEMA


class Server:
    """What the program wires once, for all systems."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.clock = VirtualClock()
        self.tasks = Tasks()
        self.ledger = Ledger(db, self.clock)
        self.alerts = Alerts(self.ledger, db, self.clock)
        self.panel = Panel(self.ledger, clock=self.clock, tasks=self.tasks)
        clock, record = self.clock, self.ledger.record
        flush = Loop("ledger", self.ledger.flush, clock=clock, record=record, interval_ms=1000)
        self.panel.add(flush, fold=True, last_turn=True)
        watch = Loop("alerts", self.alerts.evaluate, clock=clock, record=record, interval_ms=15_000)
        self.panel.add(watch, fold=True)

    async def text(self, *bodies: str) -> None:
        async with self.db.connection() as connection:
            await connection.executemany("insert into toy_text (body) values ($1)", [(body,) for body in bodies])


@pytest.fixture
async def server(db: Database) -> AsyncIterator[Server]:
    async with db.connection() as connection:
        await connection.execute(SCHEMA)
    server = Server(db)
    server.panel.start()
    server.panel.add(toy.loop(db, server.clock, server.ledger.record))  # The one line.
    yield server
    await server.tasks.close()


async def test_it_runs_at_its_interval_and_goes_on_while_there_is_more(server: Server) -> None:
    await server.text(*["two words"] * 25)
    await server.clock.advance(60)
    toy_loop = server.panel.loop("toy")
    await server.clock.until(lambda: toy_loop.turns == 3 and not toy_loop.running)
    async with server.db.connection() as connection:
        assert await connection.fetchval("select sum(words) from toy_text") == 50


async def test_it_can_be_run_now_and_says_what_became_of_its_work(server: Server) -> None:
    await server.text("one", "two words", "  ")
    record = await server.panel.run("toy")
    assert (record.taken, record.done, record.failed, record.deferred) == (3, 2, 1, 0)
    assert record.detail == {"words": 3}


async def test_it_can_be_paused_resumed_and_retimed(server: Server) -> None:
    await server.text("waits")
    assert server.panel.pause("toy").health == "paused"
    await server.clock.advance(600)
    assert server.panel.state("toy").turns == 0
    server.panel.resume("toy")
    server.panel.set_interval("toy", 100)
    toy_loop = server.panel.loop("toy")
    await server.clock.advance(0.1)
    await server.clock.until(lambda: toy_loop.turns >= 1 and not toy_loop.running)


async def test_it_has_history_that_outlives_the_process(server: Server) -> None:
    await server.text("one")
    await server.panel.run("toy")
    await server.panel.stop()
    again = Server(server.db)
    again.panel.add(toy.loop(server.db, again.clock, again.ledger.record))
    page = await again.panel.history("toy")
    assert [(row.turn.trigger, row.turn.done) for row in page.rows] == [("forced", 1)]


async def test_it_has_health_totals_and_metrics(server: Server) -> None:
    await server.text("one", "two")
    await server.panel.run("toy")
    state = next(state for state in server.panel.list() if state.name == "toy")
    assert (state.health, state.totals.turns, state.totals.done) == ("ok", 1, 2)
    assert ("batchcast_loop_done_total", "toy", 2.0) in {
        (metric.name, metric.loop, metric.value) for metric in server.panel.metrics()
    }


async def test_it_raises_an_alert_when_it_fails_again_and_again_and_recovers_it(server: Server) -> None:
    async with server.db.connection() as connection:
        await connection.execute("alter table toy_text rename to mislaid")
    for _ in range(3):
        assert (await server.panel.run("toy")).error is not None
    await server.panel.run("alerts")
    (alert,) = await server.alerts.list(open_only=True)
    assert alert.rule == "loop toy failing"
    assert server.panel.state("toy").health == "failing"
    async with server.db.connection() as connection:
        await connection.execute("alter table mislaid rename to toy_text")
    await server.panel.run("toy")
    await server.panel.run("alerts")
    assert list(await server.alerts.list(open_only=True)) == []
