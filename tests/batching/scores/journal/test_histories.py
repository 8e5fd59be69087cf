"""Whatever happens to a feed: its journal gives the same frames again, to the byte."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tests.batching.scores.journal.recording import files, recorded, verified, write
from tests.batching.scores.test_budgets import histories as budgeted
from tests.batching.scores.test_histories import LAX, PHASES, Stage, act, histories

HISTORIES = max(20, int(os.environ.get("HISTORIES", "100")) // 5)


class Taped(Stage):
    """Histories that are recorded, then sent again."""

    async def played(self, steps: list[tuple[Any, ...]], options: dict[str, Any]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="journal-"))
        try:
            await self._recorded(folder, steps, options)
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


@pytest.fixture
def stage(dsn: str) -> Iterator[Taped]:
    with closing(Taped(dsn)) as made:
        yield made


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
