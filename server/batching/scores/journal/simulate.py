"""A history under another policy, on a virtual clock: what would have been sent, and how old published counters were.

    outcome = simulated(history, Policy("every minute", interval_ms=60_000))

The world, the ranking, the differences and the frames are the server's own (`columns`, `views.draw`, `deliver`); what is made
anew here is only when what is published: the interval and its pacer, the size bound, force, urgent counters. Left out: slow
readers (everybody is always free), the grouping of immediate turns, and the time that work itself takes.

The age of an event's published counters is the time since the first accepted change that they don't show. Two measures of it,
both weighted by time: over every event that ever moves and all of the time (`age`; up to date counts as 0; the denominator is
the same for every policy, so policies can be compared), and only while something waits (`stale`). `wait` is each change's own.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import orjson

from server.batching.scores.audience import Viewer
from server.batching.scores.batch import SLICE
from server.batching.scores.desk import follow
from server.batching.scores.feed import ADAPT_EVERY_MS
from server.batching.scores.frame import Frame
from server.batching.scores.journal.histories import (
    Arrived,
    Asked,
    Changed,
    Departed,
    Forced,
    History,
    Input,
    Moved,
)
from server.batching.scores.journal.policy import Pacer, Policy
from server.batching.scores.lookout import Lookout
from server.batching.scores.plan import Settled
from server.batching.scores.question import Question
from server.batching.scores.score import popularity_term
from server.batching.scores.views import Kind, Sight, deliver, draw
from server.core.event import Counts, Event

P95: Final = 0.95
_SUMMARY: Final = re.compile(rb'"newEvents":(\d+),"updatedEvents":(\d+),"deletedEvents":(\d+)\},"digest"')
_SUMMARY_BYTES: Final = 200
"""At the end of a batch-update its summary stands within so many bytes."""
NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Outcome:
    """What would have been. `messages`, `bytes`, `creates` … of batches and immediate changes; snapshots and pans are apart."""

    policy: str
    seconds: float
    viewers: int
    flushes: int
    published: int
    urgent: int
    messages: int
    bytes: int
    creates: int
    updates: int
    deletes: int
    answers: int
    answer_bytes: int
    moved: int
    moving: int
    most_pending: int
    intervals: int
    interval_mean_ms: float
    age_mean_ms: float
    age_p95_ms: float
    stale_mean_ms: float
    stale_p95_ms: float
    wait_mean_ms: float
    wait_p95_ms: float


@dataclass(slots=True)
class Sent:
    """Frames, counted."""

    frames: int = 0
    bytes: int = 0
    creates: int = 0
    updates: int = 0
    deletes: int = 0


class Counter:
    """A viewer's outlet: it is always free, and counts."""

    free = True

    def __init__(self, sent: Sent, answered: Sent) -> None:
        self._sent, self._answered = sent, answered
        self.answering = False

    def hand(self, frame: Frame) -> None:
        """Take one frame."""
        into = self._answered if self.answering else self._sent
        created, updated, deleted = parts_of(frame)
        into.frames += 1
        into.bytes += len(frame)
        into.creates += created
        into.updates += updated
        into.deletes += deleted

    async def until_free(self) -> None:
        """It is."""

    def supersede(self) -> None:
        """Nobody comes back here."""


def parts_of(frame: Frame) -> tuple[int, int, int]:
    """Creates, updates and deletes of a frame."""
    found = _SUMMARY.search(frame.tail.body, max(0, len(frame.tail) - _SUMMARY_BYTES))
    if found is not None:
        created, updated, deleted = map(int, found.groups())
        return created, updated, deleted
    message = orjson.loads(frame.text)
    match message["type"]:
        case "replace-all":
            return len(message["events"]), 0, 0
        case "add-event":
            return 1, 0, 0
        case "update-event":
            return 0, 1, 0
        case "delete-event":
            return 0, 0, 1
        case _:
            updates = message["updates"]
            return len(updates["creates"]), len(updates["updates"]), len(updates["deletes"])


@dataclass(slots=True)
class Waiting:
    """An event whose stored counters are not published."""

    counts: Counts
    times: list[int]
    """When each change was accepted that is not published yet."""


@dataclass(slots=True)
class Ages:
    """How long what was accepted waited: by event from its first change on, and each change for itself."""

    spells: array[int] = field(default_factory=lambda: array("q"))
    waits: array[int] = field(default_factory=lambda: array("q"))
    moving: set[str] = field(default_factory=set)

    def end(self, waiting: Waiting, now_ms: int) -> None:
        """It is published now."""
        self.spells.append(now_ms - waiting.times[0])
        self.waits.extend(now_ms - at for at in waiting.times)


class Simulation:
    """One run."""

    def __init__(self, history: History, policy: Policy, *, frames: bool, most_viewers: int | None) -> None:
        self._history, self._policy, self._frames = history, policy, frames
        self._most_viewers = NEVER if most_viewers is None else most_viewers
        self.lookout = Lookout(history.events(), policy.rules or history.rules)
        self.columns = self.lookout.columns
        self._version = int(self.columns.world.version.max(initial=0)) + 1
        self._pacer: Pacer | None = None if policy.pacer is None else policy.pacer()
        self._moved = 0
        self.viewers: dict[int, Viewer] = {}
        self.seen: set[int] = set()
        self.sent, self.answered, self.ages = Sent(), Sent(), Ages()
        self.pending: dict[str, Waiting] = {}
        self._published: dict[str, Counts] = {}
        self._urgent: set[str] = set()
        self.flushes = self.published = self.urgent = self.most_pending = self.intervals = 0
        start = history.began_ms
        self._now_ms = start
        self._last_ms, self._urgent_ms = start, start - policy.urgent_gap_ms
        self._looks_ms = NEVER if self._pacer is None else start + ADAPT_EVERY_MS
        self._interval_since_ms, self._interval_area = start, 0.0

    @property
    def interval_ms(self) -> int:
        """The interval in force."""
        return self._policy.interval_ms if self._pacer is None else self._pacer.interval_ms

    # Time.

    def run(self) -> None:
        """All of it."""
        for one in self._history.inputs():
            if one.now_ms > self._history.until_ms:
                break
            self._pass(one.now_ms)
            self._now_ms = max(self._now_ms, one.now_ms)
            self._take(one)
        self._pass(self._history.until_ms)
        self._count_interval(self._history.until_ms)

    def _pass(self, until_ms: int) -> None:
        """Do what falls due before then, in order."""
        while True:
            due = [(self._flush_due_ms(), 0), (self._urgent_due_ms(), 1), (self._looks_ms, 2)]
            at_ms, what = min(due)
            if at_ms > until_ms:
                return
            self._now_ms = at_ms
            if what == 0:
                self.flush(at_ms)
            elif what == 1:
                self._publish_urgent(at_ms)
            else:
                self._look(at_ms)

    def _flush_due_ms(self) -> int:
        wait_ms = self.interval_ms
        if len(self.pending) >= self._policy.max_batch:
            wait_ms = min(wait_ms, self._policy.min_gap_ms)
        return max(self._now_ms, self._last_ms + wait_ms)

    def _urgent_due_ms(self) -> int:
        return self._urgent_ms + self._policy.urgent_gap_ms if self._urgent else NEVER

    def _look(self, now_ms: int) -> None:
        assert self._pacer is not None
        self._looks_ms = now_ms + ADAPT_EVERY_MS
        before = self._pacer.interval_ms
        if self._pacer.look(self._moved, self._policy.max_batch, now_ms):
            self.intervals += 1
            self._interval_area += before * (now_ms - self._interval_since_ms)
            self._interval_since_ms = now_ms

    def _count_interval(self, now_ms: int) -> None:
        self._interval_area += self.interval_ms * (now_ms - self._interval_since_ms)
        self._interval_since_ms = now_ms

    # Inputs.

    def _take(self, one: Input) -> None:
        match one:
            case Arrived(now_ms, number, question):
                self._arrive(now_ms, number, question)
            case Asked(now_ms, number, question):
                viewer = self.viewers.get(number)
                if viewer is not None:
                    viewer.question = self._cut(question)
                    self._answer(viewer, Kind.ANSWER, now_ms)
            case Departed(_, number):
                self.viewers.pop(number, None)
            case Changed(now_ms, changes):
                self._change(now_ms, changes)
            case Moved():
                self._move(one)
            case Forced(now_ms):
                self.flush(now_ms)

    def _cut(self, question: Question) -> Question:
        most = self._policy.max_events
        return question if most is None else replace(question, limit=most)

    def _arrive(self, now_ms: int, number: int, question: Question) -> None:
        if len(self.seen) >= self._most_viewers or not self._frames:
            return
        self.seen.add(number)
        viewer = self.viewers[number] = Viewer(str(number), self._cut(question), Counter(self.sent, self.answered))
        self._answer(viewer, Kind.SNAPSHOT, now_ms)

    def _answer(self, viewer: Viewer, kind: Kind, now_ms: int) -> None:
        outlet = viewer.outlet
        assert isinstance(outlet, Counter)
        outlet.answering = True
        self._show([viewer], kind, self._policy.threshold, now_ms)
        outlet.answering = False

    def _change(self, now_ms: int, changes: Sequence[Settled]) -> None:
        for one in changes:
            if isinstance(one.published, Event):
                self._version += 1
                follow(self.columns, one._replace(published=replace(one.published, version=self._version)), now_ms)
            else:
                follow(self.columns, one, now_ms)
            waiting = self.pending.pop(one.event_id, None)
            self._urgent.discard(one.event_id)
            self._published.pop(one.event_id, None)
            if waiting is not None:
                self.ages.end(waiting, now_ms)
        self._tell([one.event_id for one in changes], now_ms)

    def _move(self, moved: Moved) -> None:
        slot = self.columns.slot_of(moved.event_id)
        if slot is None or not self.columns.exists(slot):
            return
        before = self._published.get(moved.event_id)
        if before is None:
            before = self._published[moved.event_id] = self.columns.event(slot).counts
        self.ages.moving.add(moved.event_id)
        waiting = self.pending.get(moved.event_id)
        if moved.counts == before:
            if waiting is not None:  # Back to what is published: nothing is out of date any more.
                self.ages.end(self.pending.pop(moved.event_id), moved.now_ms)
                self._urgent.discard(moved.event_id)
            return
        self._moved += 1
        if waiting is None:
            waiting = self.pending[moved.event_id] = Waiting(moved.counts, [])
        waiting.counts = moved.counts
        waiting.times.append(moved.now_ms)
        self.most_pending = max(self.most_pending, len(self.pending))
        if self._hurries(moved, before):
            self._urgent.add(moved.event_id)
            self._urgent_ms = max(self._urgent_ms, moved.now_ms - self._policy.urgent_gap_ms)

    def _hurries(self, moved: Moved, before: Counts) -> bool:
        policy = self._policy
        gained = popularity_term(moved.counts) - popularity_term(before) if policy.growth else 0.0
        return (policy.urgent and moved.high) or (policy.growth > 0 and gained >= policy.growth)

    # Publishing.

    def flush(self, now_ms: int) -> None:
        """One batch: publish what is pending, then a frame to each whom it concerns."""
        self._last_ms = now_ms
        self.flushes += 1
        self._publish(list(self.pending), now_ms)
        self._show(list(self.viewers.values()), Kind.BATCH, self._policy.threshold, now_ms)

    def _publish_urgent(self, now_ms: int) -> None:
        ids = sorted(self._urgent)
        self._urgent_ms = now_ms
        self.urgent += len(ids)
        self._publish(ids, now_ms)
        self._tell(ids, now_ms)

    def _publish(self, ids: Iterable[str], now_ms: int) -> None:
        for event_id in ids:
            waiting = self.pending.pop(event_id)
            self._version += 1
            self.columns.publish(event_id, waiting.counts, self._version)
            self._published[event_id] = waiting.counts
            self.ages.end(waiting, now_ms)
            self.published += 1
            self._urgent.discard(event_id)

    def _tell(self, changed: Sequence[str], now_ms: int) -> None:
        if self.viewers:
            due = self.lookout.touched(list(self.viewers.values()), changed, now_ms)
            self._show(due, Kind.IMMEDIATE, None, now_ms)

    def _show(self, viewers: Sequence[Viewer], kind: Kind, threshold: float | None, now_ms: int) -> None:
        for first in range(0, len(viewers), SLICE):
            sights = [Sight(viewer, kind, threshold) for viewer in viewers[first : first + SLICE]]
            for draft in draw(self.lookout, sights, now_ms):
                deliver(draft)
        if self.columns.merge_due:
            self.columns.merge()

    # What came of it.

    def outcome(self) -> Outcome:
        """After `run`."""
        until_ms, sent = self._history.until_ms, self.sent
        for waiting in self.pending.values():  # Still stale at the end.
            self.ages.end(waiting, until_ms)
        span_ms = max(until_ms - self._history.began_ms, 1)
        spells, waits = np.sort(np.asarray(self.ages.spells)), np.asarray(self.ages.waits)
        area, stale_ms = float((spells.astype(float) ** 2).sum()) / 2, float(spells.sum())
        watched_ms = len(self.ages.moving) * float(span_ms)
        return Outcome(
            policy=self._policy.name,
            seconds=span_ms / 1000,
            viewers=len(self.seen),
            flushes=self.flushes,
            published=self.published,
            urgent=self.urgent,
            messages=sent.frames,
            bytes=sent.bytes,
            creates=sent.creates,
            updates=sent.updates,
            deletes=sent.deletes,
            answers=self.answered.frames,
            answer_bytes=self.answered.bytes,
            moved=len(waits),
            moving=len(self.ages.moving),
            most_pending=self.most_pending,
            intervals=self.intervals,
            interval_mean_ms=self._interval_area / span_ms,
            age_mean_ms=area / watched_ms if watched_ms else 0.0,
            age_p95_ms=quantile(spells.tolist(), watched_ms, P95),
            stale_mean_ms=area / stale_ms if stale_ms else 0.0,
            stale_p95_ms=quantile(spells.tolist(), stale_ms, P95),
            wait_mean_ms=float(waits.mean()) if len(waits) else 0.0,
            wait_p95_ms=float(np.quantile(waits, P95)) if len(waits) else 0.0,
        )


def quantile(spells: Sequence[int], whole_ms: float, share: float) -> float:
    """The age that is not exceeded for `share` of the whole time, when each spell (ascending) runs from 0 to its length."""
    allowed = (1 - share) * whole_ms

    def above(age: float) -> float:
        first = bisect_left(spells, age)
        return float(sum(spells[first:])) - age * (len(spells) - first)

    if not spells or above(0.0) <= allowed:
        return 0.0
    low, high = 0.0, float(spells[-1])
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > allowed else (low, middle)
    return high


def simulated(history: History, policy: Policy, *, frames: bool = True, most_viewers: int | None = None) -> Outcome:
    """The outcome of a history under a policy; without `frames` nothing is drawn, only published."""
    simulation = Simulation(history, policy, frames=frames, most_viewers=most_viewers)
    simulation.run()
    return simulation.outcome()
