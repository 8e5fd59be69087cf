"""Whatever happens to a feed: its journal gives the same frames again, to the byte."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from server.edge.clock import SystemClock
from server.edge.postgres import Database
from tests.batching.scores.journal.recording import files, recorded, verified, write
from tests.batching.scores.test_budgets import histories as budgeted
from tests.batching.scores.test_histories import LAX, PHASES, act, histories

HISTORIES = max(20, int(os.environ.get("HISTORIES", "100")) // 5)


class Stage:
    """One event loop and one open database for all histories of a test."""

    def __init__(self, dsn: str) -> None:
        self.runner = asyncio.Runner()
        self.db = self.runner.run(Database.open(dsn, pool_size=2, clock=SystemClock()))

    def play(self, steps: list[tuple[Any, ...]], **options: Any) -> None:
        folder = Path(tempfile.mkdtemp(prefix="journal-"))
        try:
            self.runner.run(self._recorded(folder, steps, options))
        finally:
            shutil.rmtree(folder)

    async def _recorded(self, folder: Path, steps: list[tuple[Any, ...]], options: dict[str, Any]) -> None:
        async with recorded(self.db, folder, **options) as one:
            for number, step in enumerate(steps):
                await act(one, step)
                await one.catch_up()
                if number % 7 == 6:
                    await one.turns.forget(one.occasion())
                    await write(one)
            for client in one.clients.values():
                await one.drain(client)
            await one.flush()
        frames = sum(len(client.frames) for client in one.clients.values())
        assert sum(verified(path).frames for path in files(folder)) == frames

    def close(self) -> None:
        self.runner.run(self.db.close())
        self.runner.close()


@pytest.fixture
def stage(dsn: str) -> Iterator[Stage]:
    made = Stage(dsn)
    yield made
    made.close()


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=LAX, phases=PHASES)
@given(histories())
def test_a_journal_replays_to_the_byte(stage: Stage, steps: list[tuple[Any, ...]]) -> None:
    stage.play(steps)


@settings(max_examples=HISTORIES // 4, deadline=None, suppress_health_check=LAX, phases=PHASES)
@given(histories())
def test_so_it_does_while_batching_is_off(stage: Stage, steps: list[tuple[Any, ...]]) -> None:
    stage.play(steps, enable_batching=False)


@settings(max_examples=HISTORIES // 2, deadline=None, suppress_health_check=LAX, phases=PHASES)
@given(budgeted())
def test_so_it_does_with_budgets_and_clusters(stage: Stage, steps: list[tuple[Any, ...]]) -> None:
    stage.play(steps)
