"""The engine as the benches drive it: a world loaded into columns, questions ranked, and a flush without database and sockets.

Everything goes through what the server itself calls (`Columns`, `Lookout`, `views.draw` and `deliver`), so a bench measures
what runs. `Flush` is all of a flush but the SQL: counters published, viewers drawn in the server's own slices, frames handed
to outlets that count them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from server.batching.scores import content, kernel
from server.batching.scores.audience import Viewer, records
from server.batching.scores.batch import SLICE
from server.batching.scores.columns import Columns
from server.batching.scores.frame import Frame
from server.batching.scores.kernel import Ranked
from server.batching.scores.loading import Page
from server.batching.scores.lookout import Lookout
from server.batching.scores.question import Question, Window
from server.batching.scores.ranking import Rules
from server.batching.scores.score import Weights
from server.batching.scores.views import Kind, Sight, deliver, draw
from server.core.event import STATUSES, Counts
from tests.bench.crowds import NOW_MS, Crowd, Views, event_id
from tests.bench.rivals import AHEAD_MS, PAST_MS, SPACING_KM, Brute, Seen

RULES: Final = Rules(Weights(), Window(PAST_MS, AHEAD_MS), SPACING_KM)
THRESHOLD: Final = 0.01
PAGE: Final = 20_000


def columns_of(crowd: Crowd, size: int | None = 600) -> Columns:
    """A world in columns; `size` is that of an event's JSON, None: all share one (ranking doesn't look at it)."""
    columns = Columns()
    for start in range(0, len(crowd), PAGE):
        columns.load(page_of(crowd, range(start, min(start + PAGE, len(crowd))), size), NOW_MS)
    columns.merge()
    return columns


def page_of(crowd: Crowd, numbers: range, size: int | None) -> Page:
    """Some events as the database would send them."""
    rows = slice(numbers.start, numbers.stop)
    one = content.of_event(crowd.event(numbers.start)) if size is None else b""
    contents = [one if size is None else content.of_event(crowd.event(number, size)) for number in numbers]
    status = np.where(crowd.shown[rows], STATUSES.index("VERIFIED"), STATUSES.index("REJECTED")).astype(np.uint8)
    no = np.zeros(len(numbers), np.bool_)
    return Page(
        ids=[event_id(number) for number in numbers],
        contents=contents,
        latitude=crowd.latitude[rows],
        longitude=crowd.longitude[rows],
        start=crowd.start[rows],
        end=crowd.start[rows],
        ends=no,
        created=crowd.created[rows],
        stored=crowd.counts[rows],
        published=crowd.counts[rows],
        pending=no,
        confidence=crowd.confidence[rows],
        status=status,
        private=crowd.private[rows],
        high=no,
        version=np.arange(numbers.start, numbers.stop) + 1,
        zones=["Europe/Berlin"] * len(numbers),
        recurrence={},
        people={int(n): ("owner", ()) for n in np.flatnonzero(crowd.private[rows])},
    )


class Ours:
    """A world and the questions put to it; every `rank` is at a moment of its own, as every flush is."""

    def __init__(self, crowd: Crowd, size: int | None = None) -> None:
        kernel.warm()
        self.columns = columns_of(crowd, size)
        self.lookout = Lookout(self.columns, RULES)
        self.now_ms = NOW_MS

    def rank(self, questions: Sequence[Question]) -> Ranked:
        """Fresh views at the next moment: what no viewer changes is computed anew for all events, too."""
        self.now_ms += 1
        return self.lookout.rank(questions, self.now_ms)

    def views(self, questions: Sequence[Question]) -> list[Seen]:
        """Fresh views at the moment at which rivals look."""
        ranked = self.lookout.rank(questions, NOW_MS)
        slots = self.columns.world.slot[ranked.row].tolist()
        first = ranked.first.tolist()
        numbers = [int(self.columns.id_of(slot)[1:]) for slot in slots]
        return [
            Seen(tuple(numbers[a:b]), tuple(ranked.score[a:b].tolist()), int(n))
            for a, b, n in zip(first[:-1], first[1:], ranked.candidates.tolist(), strict=True)
        ]


class Counting:
    """An outlet that takes every frame at once and counts."""

    free = True

    def __init__(self) -> None:
        self.frames = 0
        self.bytes = 0

    def hand(self, frame: Frame) -> None:
        """Take one."""
        self.frames += 1
        self.bytes += len(frame)

    async def until_free(self) -> None:
        """It always is."""


class Flush:
    """Viewers that hold their snapshot, counters that wait, and the flush that publishes them."""

    def __init__(self, crowd: Crowd, views: Views, seed: int) -> None:
        self.ours = Ours(crowd, 600)
        self.crowd, self.views = crowd, views
        self.sink = Counting()
        self.viewers = [Viewer(f"s{n}", question, self.sink) for n, question in enumerate(views.questions())]
        self.dice = np.random.default_rng(seed)
        self.version = len(crowd) + 1
        self.pending: list[tuple[str, Counts, int]] = []
        self.counts = crowd.counts.copy()
        self.versions = np.arange(len(crowd)) + 1
        self._show(Kind.SNAPSHOT)

    def change(self, count: int) -> None:
        """So many events are scanned, saved, joined; it waits for the flush."""
        for number in self.dice.choice(len(self.crowd), count, replace=False).tolist():
            self.counts[number] += self.dice.poisson((2.0, 0.5, 0.2))
            self.counts[number, 0] += 1
            scan, save, rsvp = self.counts[number].tolist()
            self.version += 1
            self.versions[number] = self.version
            self.pending.append((event_id(number), (scan, save, rsvp), self.version))

    def flush(self) -> None:
        """Publish what waits, tell everybody."""
        pending, self.pending = self.pending, []
        publish = self.ours.columns.publish
        for one, counts, version in pending:
            publish(one, counts, version)
        self._show(Kind.BATCH)

    def check(self, count: int) -> None:
        """Do the first few viewers hold just what a fresh view of the world as it is now would show?"""
        rival = Brute(replace(self.crowd, counts=self.counts), self.ours.now_ms)
        for number, viewer in enumerate(self.viewers[:count]):
            fresh = rival.view(self.views, number).events
            held = {
                int(self.ours.columns.id_of(int(one["slot"]))[1:]): int(one["version"])
                for one in records([viewer.held])
            }
            assert held == {event: int(self.versions[event]) for event in fresh}, f"viewer {number} holds {held}"

    def _show(self, kind: Kind) -> None:
        self.ours.now_ms += 1
        for start in range(0, len(self.viewers), SLICE):
            sights = [Sight(viewer, kind, THRESHOLD) for viewer in self.viewers[start : start + SLICE]]
            for draft in draw(self.ours.lookout, sights, self.ours.now_ms):
                deliver(draft)
