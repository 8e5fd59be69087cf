"""Processes that plan a tier and are killed, frozen or put side by side: the rows are those of an undisturbed run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from server.batching.tiers.months import name_of
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from tests.batching.imports.world import until
from tests.batching.tiers.world import (
    ADMIN,
    FAR,
    ask,
    classified,
    crowd,
    everything_planned,
    generate,
    opened,
    tell,
)

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = 40
PATIENCE_S = 90.0
END_THE_FROZEN = """
select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()
    and state = 'idle in transaction' and state_change < clock_timestamp() - interval '3 seconds'"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(dsn: str) -> Iterator[Start]:
    """Starts workers on the test's database; whatever is left is killed after the test."""
    processes: list[subprocess.Popen[str]] = []

    def begin(**environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.adversity.tiers_worker", dsn, "D", name_of(FAR)],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def lines(process: subprocess.Popen[str]) -> str:
    """What it said, once it has ended."""
    out, _ = await asyncio.to_thread(process.communicate, None, PATIENCE_S)
    return out


@pytest.fixture
async def undisturbed(new_database: Callable[[str], str], template: str) -> list[list[Any]]:
    """What a run writes that nothing happens to."""
    db = await Database.open(new_database(template), clock=SystemClock())
    async with opened(db) as place:
        await classified(place.tiers, crowd(PEOPLE, "D"))
        await generate(place.tiers)
        rows = await everything_planned(db)
    await db.close()
    return list(rows)


async def planned(db: Database, people: int) -> bool:
    """Are so many through?"""
    count: int = await ask(db, "select count(*) from tiers.run_items where month is not null")
    return count >= people


async def passes(db: Database) -> bool:
    async with opened(db) as place:
        (found,) = await place.tiers.verify("D", FAR, ADMIN)
        return found.passed


async def test_a_run_killed_after_any_write_and_resumed_has_the_rows_of_an_undisturbed_one(
    db: Database, start: Start, undisturbed: list[list[Any]]
) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(PEOPLE, "D"))
    counts = [0]
    for number, last_write in enumerate((1, 2, 1, 3, 1, 1)):  # In the middle of a transaction each time.
        process = start(TIERS_DIE_AFTER=str(last_write), **({"RESUME": "1"} if number else {}))
        await lines(process)
        assert process.returncode == -signal.SIGKILL
        half = """select count(*) from tiers.celebrity_settings s where (exists (select from tiers.availability a
            where a.celebrity_id = s.celebrity_id)) <> (exists (select from tiers.run_items i where
            i.celebrity_id = s.celebrity_id))"""
        assert await ask(db, half) == 0, "a person's rows and its item are there together or not at all"
        counts.append(await ask(db, "select count(*) from tiers.run_items"))
    assert counts == sorted(counts)
    assert 0 < counts[-1] < PEOPLE
    assert await ask(db, "select sum(done) from tiers.runs where kind = 'generate'") == counts[-1]
    said = await lines(start(RESUME="1"))
    assert said.splitlines()[-1] == f"ended done {PEOPLE} 0"
    assert await ask(db, "select count(*) from tiers.runs where kind = 'generate'") == 1
    assert list(await everything_planned(db)) == undisturbed
    assert await passes(db)


async def test_a_run_killed_from_outside_again_and_again_ends_with_the_same_rows(
    db: Database, start: Start, undisturbed: list[list[Any]]
) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(PEOPLE, "D"))
    for number in range(4):
        process = start(TIERS_BATCH="1", TIERS_PAUSE_MS="30", **({"RESUME": "1"} if number else {}))
        await until(partial(planned, db, 4 * number + 4), "people are planned", PATIENCE_S)
        process.kill()
        process.wait()
    assert not await planned(db, PEOPLE)
    assert (await lines(start(RESUME="1"))).endswith(f"ended done {PEOPLE} 0\n")
    assert list(await everything_planned(db)) == undisturbed


async def test_two_processes_on_one_tier_make_the_same_rows_as_one(
    db: Database, start: Start, undisturbed: list[list[Any]]
) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(PEOPLE, "D"))
    said = await asyncio.gather(*(lines(start(TIERS_BATCH=size, TIERS_PAUSE_MS="100")) for size in ("1", "2", "3")))
    assert all(one.splitlines()[-1].startswith("ended done") for one in said)  # Who comes late finds nobody who waits.
    assert await ask(db, "select array[sum(done), sum(failed)]::int[] from tiers.runs where month is not null") == [
        PEOPLE,
        0,
    ]
    assert list(await everything_planned(db)) == undisturbed
    assert await ask(db, "select count(*) from tiers.run_items where status = 'done'") == PEOPLE


async def test_a_frozen_process_does_not_hold_up_the_others_and_changes_nothing_when_it_wakes(
    db: Database, start: Start, undisturbed: list[list[Any]]
) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(PEOPLE, "D"))
    frozen = start(TIERS_BATCH="2", TIERS_PAUSE_MS="30")
    await until(partial(planned, db, 6), "people are planned", PATIENCE_S)
    frozen.send_signal(signal.SIGSTOP)
    rest = asyncio.ensure_future(lines(start(TIERS_BATCH="4", RESUME="1")))
    while not rest.done():  # PostgreSQL does the same after IDLE_LIMIT_S; that long is not waited here.
        await asyncio.sleep(0.2)
        await tell(db, END_THE_FROZEN)
    assert (await rest).endswith(f"ended done {PEOPLE} 0\n")
    frozen.send_signal(signal.SIGCONT)
    await lines(frozen)
    assert list(await everything_planned(db)) == undisturbed


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns", "UTC"])
async def test_the_time_zone_of_the_process_changes_no_row(
    db: Database, start: Start, undisturbed: list[list[Any]], zone: str
) -> None:
    async with opened(db) as place:
        await classified(place.tiers, crowd(PEOPLE, "D"))
    assert (await lines(start(TZ=zone, PGTZ=zone))).endswith(f"ended done {PEOPLE} 0\n")
    assert list(await everything_planned(db)) == undisturbed
