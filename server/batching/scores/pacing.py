"""Handing drafts over, and what follows from a viewer's budget: the rest after a message, what is owed then, what it all saved.

A viewer that rests is sent nothing that it did not ask for; what falls due is owed, as to one whose frame still waits. There is
no timer per viewer: who rests stands in one heap, and the loop `catch-up` is woken when the first rest is over. A viewer
is meant by one entry there, however often it is answered meanwhile; one that was put off is thrown away when it comes up, or
when there are too many of them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from server.batching.scores.audience import Owed, Viewer
from server.batching.scores.budget import PLAIN
from server.batching.scores.views import Draft, Kind, deliver
from server.edge.clock import Clock

SOME: Final = 256
"""Fewer old entries are not worth making the heap anew."""


@dataclass(slots=True)
class Savings:
    """What was not sent, since the process started."""

    withheld: int = 0
    """Updates: scores that moved by less than the threshold."""
    spared: int = 0
    """Bytes of updates that `delta` left out."""
    merged: int = 0
    """Messages that a rest merged into the one after it."""
    carried: int = 0
    """Creates and updates that a bound on bytes put off."""
    shared: int = 0
    """Frames that were put together for another viewer already."""

    def note(self, draft: Draft) -> None:
        """One more was handed over, or there was nothing to."""
        self.withheld += draft.saved.withheld
        self.spared += draft.saved.spared
        self.carried += draft.saved.carried
        self.shared += draft.shared

    def counts(self) -> Mapping[str, float]:
        """As metrics tell it."""
        return {
            "updates_below_threshold": self.withheld,
            "delta_bytes": self.spared,
            "messages_merged": self.merged,
            "events_carried_over": self.carried,
            "frames_shared": self.shared,
        }

    def said(self) -> Mapping[str, Mapping[str, int]]:
        """As statistics tell it."""
        return {
            "threshold": {"updatesWithheld": self.withheld},
            "delta": {"bytes": self.spared},
            "minInterval": {"messagesMerged": self.merged},
            "maxBytes": {"eventsCarried": self.carried},
            "sharing": {"framesShared": self.shared},
        }


@dataclass(slots=True)
class Pacing:
    """One per node; only the event loop uses it. `wake` asks for a turn of catch-up after so many ms."""

    clock: Clock
    wake: Callable[[int], None] = lambda after_ms: None
    savings: Savings = field(default_factory=Savings)
    _heap: list[tuple[float, int]] = field(default_factory=list)
    """Until when (monotonic seconds), and the number of the entry."""
    _meant: dict[int, Viewer] = field(default_factory=dict)
    """Whom an entry means; none: it is an old one."""
    _entry: dict[Viewer, int] = field(default_factory=dict)
    _count: int = 0

    def deliver(self, draft: Draft) -> bool | None:
        """As `views.deliver`; afterwards its viewer rests, when its budget says so."""
        handed = deliver(draft)
        if handed is None:
            return None
        self.savings.note(draft)
        if draft.viewer.budget is not PLAIN or draft.viewer.resting:
            self._follow(draft, handed=handed)
        return handed

    def owe(self, viewer: Viewer, what: Owed) -> None:
        """A message was due that may not be sent now."""
        self.savings.merged += viewer.resting and viewer.budget.min_interval_ms > 0 and viewer.owed is not Owed.NOTHING
        viewer.owe(what)

    def rested(self, most: int) -> list[Viewer]:
        """Whose rest is over: so many at most, they rest no longer."""
        now, found = self.clock.monotonic(), list[Viewer]()
        while self._heap and self._heap[0][0] <= now and len(found) < most:
            viewer = self._meant.get(heapq.heappop(self._heap)[1])
            if viewer is not None:
                self.forget(viewer)
                found.append(viewer)
        return found

    def forget(self, viewer: Viewer) -> None:
        """It rests no longer, or has left."""
        self._meant.pop(self._entry.pop(viewer, 0), None)
        viewer.resting = False

    def wake_next(self) -> None:
        """Ask for a turn when the next rest is over."""
        if self._heap:
            self.wake(max(0, math.ceil((self._heap[0][0] - self.clock.monotonic()) * 1000)))

    def _follow(self, draft: Draft, *, handed: bool) -> None:
        viewer = draft.viewer
        carrying = bool(viewer.ages)
        if carrying:
            viewer.owe(Owed.BATCH if draft.kind is Kind.BATCH else Owed.CHANGES)
        if handed:
            self.forget(viewer)  # An answer ends a rest; the one that follows is that of the budget of now.
        rest_ms = viewer.budget.rest_ms(carrying=carrying)
        if rest_ms and not viewer.resting and (handed or carrying):
            self._rest(viewer, self.clock.monotonic() + rest_ms / 1000)

    def _rest(self, viewer: Viewer, until: float) -> None:
        viewer.resting = True
        self._count += 1
        self._entry[viewer], self._meant[self._count] = self._count, viewer
        heapq.heappush(self._heap, (until, self._count))
        if len(self._heap) > 2 * len(self._meant) + SOME:
            self._heap = [entry for entry in self._heap if entry[1] in self._meant]
            heapq.heapify(self._heap)
        if self._heap[0][1] == self._count:
            self.wake_next()
