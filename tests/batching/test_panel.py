"""The panel: every verb of a control surface, by the name of a loop."""

from collections.abc import AsyncIterator

import pytest

from server.batching.ledger import Ledger
from server.batching.loop import Loop, Occasion, Turn
from server.batching.panel import Panel
from server.edge.clock import VirtualClock
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from server.errors import Refused


class Bench:
    """A panel with a ledger and a virtual clock."""

    def __init__(self, db: Database) -> None:
        self.clock = VirtualClock()
        self.tasks = Tasks()
        self.ledger = Ledger(db, self.clock)
        self.panel = Panel(self.ledger, clock=self.clock, tasks=self.tasks)
        self.took: list[tuple[str, str]] = []

    def loop(self, name: str, *, interval_ms: int | None = None, cron: str | None = None, seconds: float = 0) -> Loop:
        async def turn(occasion: Occasion) -> Turn:
            await self.clock.sleep(seconds)
            self.took.append((name, occasion.trigger))
            return Turn(1, 1)

        return Loop(name, turn, clock=self.clock, record=self.ledger.record, interval_ms=interval_ms, cron=cron)


@pytest.fixture
async def bench(db: Database) -> AsyncIterator[Bench]:
    bench = Bench(db)
    yield bench
    await bench.tasks.close()


async def test_the_list_shows_every_loop_as_it_is_now(bench: Bench) -> None:
    bench.panel.add(bench.loop("scores", interval_ms=1000))
    bench.panel.add(bench.loop("nightly", cron="0 3 * * *"))
    bench.panel.start()
    await bench.clock.advance(2.5)
    nightly, scores = bench.panel.list()
    assert (nightly.name, nightly.health, nightly.cron, nightly.last) == ("nightly", "idle", "0 3 * * *", None)
    assert (scores.health, scores.turns, scores.totals.done) == ("ok", 2, 2)
    assert scores.next_at_ms == bench.clock.now_ms() + 500
    assert scores.last is not None
    assert scores.last.number == 2


async def test_a_loop_added_after_the_start_runs_at_once(bench: Bench) -> None:
    bench.panel.start()
    bench.panel.add(bench.loop("late", interval_ms=1000))
    await bench.clock.advance(1)
    assert bench.took == [("late", "interval")]


async def test_run_pause_resume_and_interval_act_on_the_loop_of_that_name(bench: Bench) -> None:
    bench.panel.add(bench.loop("scores", interval_ms=1000))
    bench.panel.start()
    assert (await bench.panel.run("scores")).trigger == "forced"
    assert bench.panel.pause("scores").health == "paused"
    await bench.clock.advance(5)
    assert not bench.panel.resume("scores").paused
    assert bench.panel.set_interval("scores", 100).interval_ms == 100
    await bench.clock.advance(0.25)
    assert [trigger for _, trigger in bench.took] == ["forced", "interval", "interval"]


async def test_history_is_paged_by_its_own_cursor(bench: Bench) -> None:
    bench.panel.add(bench.loop("scores", interval_ms=1000))
    bench.panel.start()
    await bench.clock.advance(5)
    first = await bench.panel.history("scores", 3)
    rest = await bench.panel.history("scores", 3, before=str(first.next))
    assert [row.turn.number for row in [*first.rows, *rest.rows]] == [5, 4, 3, 2, 1]
    assert rest.next is None


async def test_an_unknown_name_is_refused_with_the_nearest_ones(bench: Bench) -> None:
    bench.panel.add(bench.loop("scores", interval_ms=1000))
    bench.panel.add(bench.loop("ledger", interval_ms=1000))
    with pytest.raises(Refused, match=r"'score'; there is scores$") as refusal:
        await bench.panel.run("score")
    assert refusal.value.code == "not_found"
    with pytest.raises(Refused, match="ledger, scores"):
        await bench.panel.history("zzz")


@pytest.mark.parametrize(("interval_ms", "limit"), [(99, 100), (86_400_001, 86_400_000), (-1, 100)])
async def test_an_interval_out_of_bounds_is_refused_with_the_limit(bench: Bench, interval_ms: int, limit: int) -> None:
    bench.panel.add(bench.loop("scores", interval_ms=1000))
    with pytest.raises(Refused) as refusal:
        bench.panel.set_interval("scores", interval_ms)
    assert refusal.value.limit == limit
    assert bench.panel.state("scores").interval_ms == 1000


async def test_a_loop_with_a_cron_line_or_only_woken_has_no_interval_to_set(bench: Bench) -> None:
    bench.panel.add(bench.loop("nightly", cron="0 3 * * *"))
    bench.panel.add(bench.loop("woken"))
    for name in ("nightly", "woken"):
        with pytest.raises(Refused):
            bench.panel.set_interval(name, 1000)


async def test_stop_ends_turns_side_by_side_then_takes_the_last_ones_with_the_ledgers_at_the_end(bench: Bench) -> None:
    ledger_loop = Loop("ledger", bench.ledger.flush, clock=bench.clock, record=bench.ledger.record, interval_ms=60_000)
    bench.panel.add(ledger_loop, fold=True, last_turn=True)
    bench.panel.add(bench.loop("slow", interval_ms=1000, seconds=0.5))
    bench.panel.add(bench.loop("flush", interval_ms=1000, seconds=0.5), last_turn=True)
    bench.panel.start()
    await bench.clock.advance(1.1)
    stopping = bench.tasks.start("stops", bench.panel.stop())
    await bench.clock.advance(0.4)
    assert bench.took == [("slow", "interval"), ("flush", "interval")]
    await bench.clock.advance(0.5)
    await bench.clock.until(stopping.done)
    assert bench.took[2:] == [("flush", "shutdown")]
    assert bench.ledger.waiting == 0
    page = await bench.panel.history("flush")
    assert [row.turn.trigger for row in page.rows] == ["shutdown", "interval"]


async def test_a_panel_that_never_started_stops_at_once(bench: Bench) -> None:
    bench.panel.add(bench.loop("scores", interval_ms=1000))
    await bench.panel.stop()
    assert bench.took == []
