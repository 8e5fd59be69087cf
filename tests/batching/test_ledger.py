"""The ledger: what turns leave behind in memory and in the table, and what is read from it."""

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.ledger import (
    BUFFER_AT_MOST,
    FLUSH_ROWS,
    KEPT_PER_LOOP,
    Cursor,
    Ledger,
    LoopFacts,
    Totals,
    fold_minute,
    health,
    metrics,
    totals,
)
from server.batching.loop import Occasion, Trigger, TurnRecord
from server.edge.clock import VirtualClock
from server.edge.postgres import Database
from server.errors import Refused, Unavailable

START_MS = 1_700_000_000_000 // 60_000 * 60_000


def record(number: int, *, at_ms: int | None = None, loop: str = "toy", error: str | None = None) -> TurnRecord:
    started_at_ms = START_MS + number * 1000 if at_ms is None else START_MS + at_ms
    return TurnRecord(loop, number, "interval", started_at_ms, 0.25, 3, 1, 1, 1, False, 0, error, {"cells": 7})


def occasion(trigger: Trigger = "interval", at_ms: int = 0) -> Occasion:
    return Occasion(trigger, 1, START_MS + at_ms)


@pytest.fixture
def ledger(db: Database) -> Ledger:
    return Ledger(db, VirtualClock(START_MS), node="here")


async def count(db: Database) -> int:
    async with db.connection() as connection:
        found: int = await connection.fetchval("select count(*) from ops.batch_runs")
    return found


# Writing


async def test_a_turn_is_in_the_history_before_and_after_it_is_written(ledger: Ledger, db: Database) -> None:
    ledger.record(record(1))
    assert [row.turn for row in (await ledger.history("toy")).rows] == [record(1)]
    assert (await ledger.flush(occasion())).done == 1
    assert await count(db) == 1
    assert [row.turn for row in (await ledger.history("toy")).rows] == [record(1)]


async def test_history_reads_the_table_after_a_restart(ledger: Ledger, db: Database) -> None:
    for number in range(1, 4):
        ledger.record(record(number))
    await ledger.flush(occasion())
    again = Ledger(db, VirtualClock(START_MS), node="here")
    assert [row.turn for row in (await again.history("toy")).rows] == [record(3), record(2), record(1)]


async def test_history_shows_the_turns_of_other_nodes_between_those_of_this_one(ledger: Ledger, db: Database) -> None:
    other = Ledger(db, VirtualClock(START_MS), node="there")
    ledger.record(record(1))
    other.record(record(2))
    ledger.record(record(3))
    await other.flush(occasion())
    await ledger.flush(occasion())
    rows = (await ledger.history("toy")).rows
    assert [(row.node, row.turn.number) for row in rows] == [("here", 3), ("there", 2), ("here", 1)]


async def test_pages_of_history_join_without_a_gap_or_a_repetition(ledger: Ledger) -> None:
    for number in range(1, KEPT_PER_LOOP + 100):
        ledger.record(record(number, at_ms=number // 3))
        if number % 50 == 0:
            await ledger.flush(occasion())
    await ledger.flush(occasion())
    seen: list[int] = []
    before: Cursor | None = None
    while True:
        page = await ledger.history("toy", 37, before)
        seen += [row.turn.number for row in page.rows]
        if page.next is None:
            break
        before = Cursor.parse(str(page.next))
    assert seen == list(range(KEPT_PER_LOOP + 99, 0, -1))


async def test_without_postgres_turns_wait_and_history_is_what_memory_has(ledger: Ledger, db: Database) -> None:
    ledger.record(record(1))
    await db.close()
    with pytest.raises(Unavailable):
        await ledger.flush(occasion())
    assert ledger.waiting == 1
    assert [row.turn.number for row in (await ledger.history("toy")).rows] == [1]


async def test_at_the_bound_the_oldest_rows_are_dropped_and_counted(ledger: Ledger, db: Database) -> None:
    for number in range(1, BUFFER_AT_MOST + 6):
        ledger.record(record(number))
    assert (ledger.waiting, ledger.dropped) == (BUFFER_AT_MOST, 5)
    assert (await ledger.flush(occasion("shutdown"))).detail["dropped"] == 5
    async with db.connection() as connection:
        assert await connection.fetchval("select min(number) from ops.batch_runs") == 6


async def test_rows_of_a_flush_cut_short_come_back_before_those_laid_down_meanwhile(
    ledger: Ledger, db: Database
) -> None:
    for number in (1, 2):
        ledger.record(record(number))
    async with db.transaction() as connection:
        await connection.execute("lock table ops.batch_runs")
        flush = asyncio.create_task(ledger.flush(occasion()))
        await VirtualClock().until(lambda: ledger.waiting == 0)
        ledger.record(record(3))
        flush.cancel()
        await asyncio.wait({flush})
    assert ledger.waiting == 3
    await ledger.flush(occasion())
    async with db.connection() as connection:
        rows = await connection.fetch("select number from ops.batch_runs order by id")
    assert [row["number"] for row in rows] == [1, 2, 3]


async def test_a_flush_writes_a_slice_and_asks_for_more_and_the_last_one_writes_all(ledger: Ledger) -> None:
    for number in range(1, 2 * FLUSH_ROWS + 2):
        ledger.record(record(number))
    first = await ledger.flush(occasion())
    assert (first.taken, first.more, ledger.waiting) == (FLUSH_ROWS, True, FLUSH_ROWS + 1)
    last = await ledger.flush(occasion("shutdown"))
    assert (last.taken, last.more, ledger.waiting) == (FLUSH_ROWS + 1, False, 0)


async def test_texts_and_numbers_that_postgres_cannot_take_keep_no_other_row_out(ledger: Ledger, db: Database) -> None:
    nasty = TurnRecord(
        "toy", 1, "wake", START_MS, 0.1, error="nul \x00 half \ud800", detail={"a\x00": "\ud800", "big": 2**80}
    )
    ledger.record(nasty)
    ledger.record(record(2))
    await ledger.flush(occasion())
    assert await count(db) == 2


# Folding


async def test_a_folded_loop_leaves_one_row_a_minute(ledger: Ledger, db: Database) -> None:
    ledger.fold("toy")
    for number in range(1, 100):
        ledger.record(record(number, at_ms=number * 1000))
    await ledger.flush(occasion(at_ms=99_000))
    assert await count(db) == 1
    await ledger.flush(occasion(at_ms=120_000))
    async with db.connection() as connection:
        rows = await connection.fetch("select started_at, taken, number, detail from ops.batch_runs order by id")
    assert [(row["taken"], row["number"]) for row in rows] == [(59 * 3, 59), (40 * 3, 99)]
    assert '"turns": 59' in rows[0]["detail"]
    assert rows[1]["started_at"] == datetime.fromtimestamp((START_MS + 60_000) / 1000, UTC)


async def test_the_last_flush_writes_the_minute_that_is_not_over(ledger: Ledger, db: Database) -> None:
    ledger.fold("toy")
    ledger.record(record(1))
    await ledger.flush(occasion("shutdown", at_ms=2000))
    assert await count(db) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=1))
def test_a_folded_minute_adds_up_to_its_turns(turns: list[tuple[int, int, bool]]) -> None:
    records = [
        TurnRecord("toy", number, "wake", START_MS + number, done / 8, done + failed, done, failed, error="x" * bad)
        if bad
        else TurnRecord("toy", number, "wake", START_MS + number, done / 8, done + failed, done, failed)
        for number, (done, failed, bad) in enumerate(turns, 1)
    ]
    minute = None
    for turn in records:
        minute = fold_minute(minute, turn)
    assert minute is not None
    whole = totals(records)
    assert (minute.taken, minute.done, minute.failed, minute.deferred) == (whole.taken, whole.done, whole.failed, 0)
    assert (minute.detail["turns"], minute.detail["errors"]) == (whole.turns, whole.errors)
    assert minute.detail["longest_s"] == whole.longest_s
    assert (minute.started_at_ms, minute.number) == (START_MS + 1, len(records))


# Retention


async def test_retention_removes_what_is_older_than_the_days_to_keep(db: Database) -> None:
    ledger = Ledger(db, VirtualClock(START_MS), keep_days=2)
    for days in range(5):
        ledger.record(record(5 - days, at_ms=-days * 86_400_000 - 1000))
    ledger.record(record(6, at_ms=0))
    await ledger.flush(occasion())
    turn = await ledger.retire(occasion())
    assert (turn.done, turn.more, await count(db)) == (3, False, 3)


# What is read from records


async def test_totals_count_every_turn_since_the_start(ledger: Ledger) -> None:
    for number in range(1, KEPT_PER_LOOP + 11):
        ledger.record(record(number, error="gone" if number == 1 else None))
    sums = ledger.totals["toy"]
    assert (sums.turns, sums.taken, sums.errors) == (KEPT_PER_LOOP + 10, 3 * (KEPT_PER_LOOP + 10), 1)
    assert len(ledger.recent("toy")) == KEPT_PER_LOOP


@pytest.mark.parametrize(
    ("facts", "records", "expected"),
    [
        (LoopFacts(), [], "idle"),
        (LoopFacts(), [record(1)], "ok"),
        (LoopFacts(paused=True), [record(1, error="gone")], "paused"),
        (LoopFacts(), [record(1), record(2, error="gone")], "failing"),
        (LoopFacts(), [record(1, error="gone"), record(2)], "ok"),
        (LoopFacts(), [TurnRecord("toy", 1, "wake", START_MS, 1, 2, 0, 2)], "failing"),
        (LoopFacts(), [TurnRecord("toy", 1, "wake", START_MS, 1, missed=1)], "late"),
        (LoopFacts(running_since_ms=START_MS - 1001, interval_ms=1000), [record(1)], "late"),
        (LoopFacts(running_since_ms=START_MS - 999, interval_ms=1000), [record(1)], "ok"),
        (LoopFacts(running_since_ms=START_MS - 60_001), [], "late"),
        (LoopFacts(led_here=False), [record(1)], "idle"),
    ],
)
def test_health_is_read_from_the_last_turn_and_the_one_under_way(
    facts: LoopFacts, records: list[TurnRecord], expected: str
) -> None:
    assert health(facts, records, START_MS) == expected


def test_metrics_are_the_totals_by_loop() -> None:
    by_name = {(metric.name, metric.loop): metric.value for metric in metrics({"toy": totals([record(1), record(2)])})}
    assert by_name["batchcast_loop_turns_total", "toy"] == 2
    assert by_name["batchcast_loop_taken_total", "toy"] == 6
    assert by_name["batchcast_loop_last_turn_seconds", "toy"] == (START_MS + 2000) / 1000
    assert totals([]) == Totals()


@pytest.mark.parametrize("text", ["", "7", "7-", "-7", "a-1", "1-1-1", "9" * 39 + "-1"])
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        Cursor.parse(text)
