"""The published world seen at a moment: ranks questions over the columns, with the kernel where there is one.

Lives in the engine's thread. A moment is prepared once (the part of every score that no viewer changes) when many will ask or
one looks far; a few narrow questions at another moment are answered without a pass over everything. What changed since a
moment was prepared is patched into it, so a flush that takes several slices sees each change once it is published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np

from server.batching.scores import kernel, ranking
from server.batching.scores.audience import Held, Viewer, count, records
from server.batching.scores.cells import Grid
from server.batching.scores.columns import Columns
from server.batching.scores.kernel import Cells, Changes, Flags, Ranked
from server.batching.scores.predicates import Compiler
from server.batching.scores.question import Question
from server.batching.scores.ranking import Ranking, Rules
from server.batching.scores.score import chord2_of_km

MANY: Final = 64
"""So many questions at one moment are worth preparing it."""


class Lookout:
    """One per engine."""

    def __init__(self, columns: Columns, rules: Rules) -> None:
        self.columns = columns
        self._compiler = Compiler(columns)
        self._merges = -1
        self._sums = np.zeros((0, 3), np.int64)
        """Of `kernel.clusters`; as many as there are nodes once somebody wants clusters."""
        self._stamp = 0
        """Moves with everything that makes what the nodes say another."""
        self._adopt(rules)

    def _adopt(self, rules: Rules) -> None:
        self.rules = rules
        self._prepared_ms: int | None = None
        self._stamp += 1
        weights = rules.weights
        self._weights = np.array(
            [weights.time, weights.distance, weights.popularity, weights.recency, weights.confidence]
        )
        self._window = (rules.window.past_ms, rules.window.ahead_ms)
        self._spacing = chord2_of_km(rules.spacing_km) if rules.spacing_km > 0 else 0.0

    @contextmanager
    def under(self, rules: Rules) -> Iterator[None]:
        """Rank by other rules for a while. What was prepared is prepared anew, before and afterwards."""
        own = self.rules
        self._adopt(rules)
        try:
            yield
        finally:
            self._adopt(own)

    def prepare(self, now_ms: int) -> None:
        """Make this the moment; for a walk over many viewers."""
        self.columns.refresh(now_ms)
        kernel.prepare(self.columns.world, now_ms, self._weights, *self._window)
        self._note_prepared(now_ms)

    def _note_prepared(self, now_ms: int) -> None:
        self.columns.take_dirty()
        self._prepared_ms, self._merges = now_ms, self.columns.merges
        self._stamp += 1

    def _is_prepared(self, now_ms: int) -> bool:
        """Is this the moment that was prepared? Then what has changed since is brought in."""
        self.columns.refresh(now_ms)
        if self._prepared_ms != now_ms or self._merges != self.columns.merges:
            return False
        dirty = self.columns.take_dirty()
        if len(dirty):
            kernel.patch(self.columns.world, dirty, now_ms, self._weights, *self._window)
            self._stamp += 1
        return True

    def rank(self, questions: Sequence[Question], now_ms: int) -> Ranked:
        """The fresh views of distinct questions."""
        if not kernel.NUMBA:
            return self._plainly(questions, now_ms)
        prepared = self._is_prepared(now_ms)
        if not prepared and len(questions) >= MANY:
            self.prepare(now_ms)
            prepared = True
        asked, clauses, private = self._compiler.questions(questions)
        world = self.columns.world
        ranked = kernel.rank(
            world, asked, clauses, private, now_ms, self._weights, *self._window, self._spacing, prepared
        )
        if ranked.prepared and not prepared:  # One of them looks far.
            self._note_prepared(now_ms)
        return ranked

    def _plainly(self, questions: Sequence[Question], now_ms: int) -> Ranked:
        """The same without the kernel, one by one."""
        found = [ranking.rank(self.columns, question, self.rules, now_ms) for question in questions]
        return Ranked(
            np.cumsum([0, *(len(one.slots) for one in found)]),
            np.concatenate([np.empty(0, np.int32), *(self.columns.world.row_of[one.slots] for one in found)]),
            np.concatenate([np.empty(0), *(one.raws for one in found)]),
            np.concatenate([np.empty(0), *(one.scores for one in found)]),
            np.array([one.candidates for one in found], np.int64),
        )

    def count_cells(
        self, questions: Sequence[Question], grids: Sequence[Grid], now_ms: int, *, prepared: bool
    ) -> Cells:
        """The candidates of these questions by cell; right behind `rank`, which has said whether the moment is prepared."""
        if not kernel.NUMBA:
            counted = [
                ranking.count_cells(self.columns, *one, self.rules, now_ms)
                for one in zip(questions, grids, strict=True)
            ]
            return Cells(*(np.stack(part) for part in zip(*counted, strict=True)))
        asked, clauses, private = self._compiler.questions(questions)
        cells = np.array([(grid.scale, grid.side, grid.x) for grid in grids], kernel.GRID)
        edges = np.full((len(grids), kernel.SPAN - 1), -np.inf)
        for row, grid in zip(edges, grids, strict=True):
            row[: len(grid.edges)] = grid.edges
        world = self.columns.world
        if len(self._sums) < len(world.live):
            self._sums = np.zeros((len(world.live), 3), np.int64)
        moment = (now_ms, self._weights, *self._window, prepared)
        return kernel.clusters(world, asked, cells, edges, clauses, private, *moment, self._sums, self._stamp)

    def view(self, question: Question, now_ms: int) -> Ranking:
        """One view in detail, by the plain path; for explanations."""
        return ranking.rank(self.columns, question, self.rules, now_ms)

    def compare(
        self, ranked: Ranked, questions: Sequence[int], held: Sequence[Held], thresholds: Sequence[float | None]
    ) -> Changes:
        """The differences between what is held and the fresh view of each question's number."""
        return kernel.diff(
            self.columns.world,
            ranked,
            np.array(questions, np.int32),
            records(held),
            np.cumsum([0, *map(count, held)]),
            np.array([np.nan if t is None else t for t in thresholds], np.float64),
        )

    def touched(self, viewers: Sequence[Viewer], changed: Sequence[str], now_ms: int) -> list[Viewer]:
        """Whom these changes concern: who holds one, or would get one in."""
        slots = [slot for event_id in changed if (slot := self.columns.slot_of(event_id)) is not None]
        if not slots or not viewers:
            return []
        self.columns.refresh(now_ms)
        asked, clauses, private = self._compiler.questions([v.question for v in viewers])
        held = [v.held for v in viewers]
        flags: Flags = kernel.touched(
            self.columns.world,
            asked,
            clauses,
            private,
            records(held),
            np.cumsum([0, *map(count, held)]),
            np.array([v.last for v in viewers], np.int32),
            np.array(slots, np.int32),
            now_ms,
            self._weights,
            *self._window,
        )
        return [viewer for viewer, due in zip(viewers, flags.tolist(), strict=True) if due]
