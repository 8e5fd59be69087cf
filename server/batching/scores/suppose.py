"""What viewers would be sent if other settings counted, or if what waits were published. In the engine's thread only.

The published world is changed for the length of one slice and put back before the slice ends: nobody else ever sees it,
nothing is sent, no version is used up. What a viewer would be sent is what `draw` makes of it, byte for byte; a `ghost` stands
for the viewer, holds what it holds (or what it held an interval ago) and asks what it would ask.

    Supposed      events under counters they have not been published with; `applied` for the length of a `with`
    Case          the settings to rank and compare by
    upcoming, steady    one slice of viewers under one case: the next flush, and one of many
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from server.batching.scores.audience import NOTHING, Held, Viewer
from server.batching.scores.columns import Columns
from server.batching.scores.content import Content, with_counts
from server.batching.scores.estimate import Sent
from server.batching.scores.lookout import Lookout
from server.batching.scores.question import Question
from server.batching.scores.ranking import Rules
from server.batching.scores.rows import Counters
from server.batching.scores.score import popularity_term
from server.batching.scores.views import Draft, Kind, Sight, draw
from server.core.event import Counts
from server.edge.clock import thread_seconds

SUMMARY: Final = b'"summary":'
COUNTS: Final = re.compile(rb'"newEvents":(\d+),"updatedEvents":(\d+),"deletedEvents":(\d+)')


@dataclass(frozen=True, slots=True)
class Case:
    """Settings that decide what is sent. `limit` None: as many events as each viewer asked for.

    `ago_ms`: so long before now was the flush before."""

    rules: Rules
    threshold: float
    limit: int | None
    ago_ms: int


@dataclass(slots=True)
class Supposed:
    """Events as if they had just been published: with their waiting counters, or with the present ones anew."""

    slots: list[int] = field(default_factory=list)
    was: list[int] = field(default_factory=list)
    """The versions that these events had; one that has another by now is left alone."""
    version: list[int] = field(default_factory=list)
    contents: list[Content | None] = field(default_factory=list)
    """None: as they are."""
    popularity: list[float] = field(default_factory=list)

    def add(self, columns: Columns, counted: Mapping[str, Counts | None], newest: int) -> None:
        """Take these events in, under the versions that follow `newest`; None: counters as they are."""
        for event_id, counts in counted.items():
            slot = columns.slot_of(event_id)
            if slot is None or not columns.exists(slot):
                continue
            version = newest + len(self.slots) + 1
            self.slots.append(slot)
            self.was.append(int(columns.world.version[slot]))
            self.version.append(version)
            self.contents.append(None if counts is None else with_counts(columns.content(slot), counts, version))
            self.popularity.append(float("nan") if counts is None else popularity_term(counts))

    @contextmanager
    def applied(self, columns: Columns) -> Iterator[None]:
        """The world with these events published; afterwards it is as it was."""
        before = columns.exchange(self._counters(columns))
        try:
            yield
        finally:
            columns.exchange(before)

    def _counters(self, columns: Columns) -> Counters:
        """What is supposed of the events that have not changed meanwhile."""
        world, slots = columns.world, np.array(self.slots, np.int32)
        chosen = np.flatnonzero((world.version[slots] == self.was) & (world.row_of[slots] >= 0))
        slots = slots[chosen]
        popularity = np.array(self.popularity, np.float64)[chosen]
        places, contents = zip(chosen.tolist(), slots.tolist(), strict=True), self.contents
        return Counters(
            slots,
            [columns.content(slot) if (held := contents[i]) is None else held for i, slot in places],
            np.where(np.isnan(popularity), world.popularity[world.row_of[slots]], popularity),
            np.array(self.version, np.int64)[chosen],
            np.zeros(len(slots), np.uint64),
        )


@dataclass(frozen=True, slots=True)
class Upcoming:
    """Of a slice of viewers: what the next flush would send each, and its view then, best first."""

    sent: list[Sent]
    views: list[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Steady:
    """Of a slice of viewers: what one flush of many would send each; `cpu_s`: what ranking and putting together took."""

    sent: list[Sent]
    cpu_s: float


def upcoming(lookout: Lookout, viewers: Sequence[Viewer], case: Case, waiting: Supposed, now_ms: int) -> Upcoming:
    """What the next flush would send these viewers; it publishes what waits."""
    questions = [_asked(viewer.question, case.limit) for viewer in viewers]
    with lookout.under(case.rules), waiting.applied(lookout.columns):
        drafts = _drawn(lookout, viewers, questions, [v.held for v in viewers], case.threshold, now_ms)
        return Upcoming([sent_of(draft) for draft in drafts], views_of(lookout, questions, now_ms))


def steady(lookout: Lookout, viewers: Sequence[Viewer], case: Case, moved: Supposed, now_ms: int) -> Steady:
    """What one flush of many would send these viewers, who hold what was right an interval ago; it publishes what moved."""
    questions = [_asked(viewer.question, case.limit) for viewer in viewers]
    with lookout.under(case.rules):
        before = held_of(lookout, questions, now_ms - case.ago_ms)
        with moved.applied(lookout.columns):
            begun = thread_seconds()
            drafts = _drawn(lookout, viewers, questions, before, case.threshold, now_ms)
            cpu_s = thread_seconds() - begun
    return Steady([sent_of(draft) for draft in drafts], cpu_s)


def _asked(question: Question, limit: int | None) -> Question:
    return question if limit is None else replace(question, limit=limit)


def _drawn(
    lookout: Lookout,
    viewers: Sequence[Viewer],
    questions: Sequence[Question],
    held: Sequence[Held],
    threshold: float,
    now_ms: int,
) -> list[Draft]:
    ghosts = [_ghost(*three) for three in zip(viewers, questions, held, strict=True)]
    return draw(lookout, [Sight(ghost, Kind.BATCH, threshold) for ghost in ghosts], now_ms)


def _ghost(viewer: Viewer, question: Question, held: Held) -> Viewer:
    """Somebody who asks this and holds that, and is sent nothing."""
    ghost = Viewer(viewer.session, question, viewer.outlet, reasons=viewer.reasons)
    ghost.held, ghost.seq = held, viewer.seq
    ghost.budget, ghost.ages = viewer.budget, viewer.ages
    ghost.clusters, ghost.told = viewer.clusters, viewer.told
    return ghost


def held_of(lookout: Lookout, questions: Sequence[Question], now_ms: int) -> list[Held]:
    """What somebody holds who was sent all of each view at that moment."""
    distinct = list(dict.fromkeys(questions))
    ranked = lookout.rank(distinct, now_ms)
    columns = lookout.columns
    columns.ensure_marks(columns.world.slot[ranked.row])
    count = len(distinct)
    changes = lookout.compare(ranked, range(count), [NOTHING] * count, [None] * count)
    first = changes.first.tolist()
    held = {one: changes.next[first[i] : first[i + 1]].tobytes() for i, one in enumerate(distinct)}
    return [held[question] for question in questions]


def views_of(lookout: Lookout, questions: Sequence[Question], now_ms: int) -> list[tuple[int, ...]]:
    """The slots of each fresh view, best first."""
    ranked = lookout.rank(questions, now_ms)
    slots, first = lookout.columns.world.slot[ranked.row].tolist(), ranked.first.tolist()
    return [tuple(slots[first[i] : first[i + 1]]) for i in range(len(questions))]


def sent_of(draft: Draft) -> Sent:
    """How large a batch is, and what it says it holds."""
    if draft.frame is None:
        return Sent()
    tail = draft.frame.tail.body
    found = COUNTS.search(tail, tail.rindex(SUMMARY))  # the last one: nothing that strangers wrote follows it
    assert found is not None, "a batch without a summary"
    new, updated, deleted = map(int, found.groups())
    return Sent(len(draft.frame), new, updated, deleted)
