"""Who looks at the map: viewers, what each was last handed, and the port through which frames leave.

A viewer's `held` advances only when a frame is handed over. At most one frame waits per connection: while the outlet is not
free nothing is made for it, `owed` remembers what kind of frame it missed, and when it has drained one difference covers all.

A frame is computed by the engine's thread while the event loop goes on, so whatever could make it wrong moves the viewer's
`epoch`: another frame handed over, another question, a departure. A draft of an older epoch is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Final, Protocol, TypeAlias

import numpy as np

from server.batching.scores.budget import NO_AGES, PLAIN, Ages, Budget
from server.batching.scores.frame import Frame
from server.batching.scores.kernel import HELD, Ints, Records
from server.batching.scores.question import Question

Held: TypeAlias = bytes
"""Records of kernel.HELD, one behind another: compact, joined at the speed of memory, and shared by viewers that are equal."""
NOTHING: Final[Held] = b""
AT_ONCE: Final = 500
"""Connections whose records are joined in one go, under a millisecond."""


def records(held: Iterable[Held]) -> Records:
    """What several connections hold, one behind another, as an array of kernel.HELD."""
    return np.frombuffer(bytearray().join(held), HELD)  # writable, which is the type that is compiled


def slots(held: Sequence[Held]) -> Ints:
    """Those in all of it; a part at a time, for joining bytes lets no other thread run."""
    parts = [records(held[start : start + AT_ONCE])["slot"].copy() for start in range(0, len(held), AT_ONCE)]
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def count(held: Held) -> int:
    """How many events these are."""
    return len(held) // HELD.itemsize


class Outlet(Protocol):
    """Where a viewer's frames go. `hand` may only be called while `free`."""

    @property
    def free(self) -> bool:
        """Does no frame wait?"""

    def hand(self, frame: Frame) -> None:
        """Take one frame."""

    async def until_free(self) -> None:
        """Wait until a frame may be handed over; raises when the connection is gone."""

    def supersede(self) -> None:
        """Another connection has come back to its session: this one ends."""


class Owed(IntEnum):
    """What a viewer missed while a frame of it waited; the greater covers the smaller."""

    NOTHING = 0
    CHANGES = 1
    BATCH = 2


class Viewer:
    """One registered connection: its question, and exactly what it holds."""

    __slots__ = (
        "_question",
        "ages",
        "budget",
        "clusters",
        "digest",
        "epoch",
        "expecting",
        "held",
        "last",
        "outlet",
        "owed",
        "reasons",
        "resting",
        "seq",
        "session",
        "told",
    )

    def __init__(self, session: str, question: Question, outlet: Outlet, *, reasons: bool = False) -> None:
        self.session = session
        self._question = question
        self.outlet = outlet
        self.reasons = reasons
        self.budget: Budget = PLAIN
        self.ages: Ages = NO_AGES
        """What a bound on bytes has left out of its messages so far; then the rest is owed."""
        self.resting = False
        """Its budget wants a pause after the last message (pacing.py): what falls due meanwhile is owed."""
        self.clusters = False
        """Does it want to know how much more there is in view?"""
        self.told = b""
        """The mark of the clusters that it was last told."""
        self.held = NOTHING
        self.digest = 0
        self.seq = 0
        self.owed = Owed.NOTHING
        self.last = -1
        """The slot that a better event would push out: the last one of a full view; -1 while there is room."""
        self.epoch = 0
        self.expecting = False
        """An answer is being made for it: no other frame may come before, and what falls due meanwhile is owed."""

    @property
    def free(self) -> bool:
        """May a frame be made for it that nobody waits for?"""
        return not self.expecting and not self.resting and self.outlet.free

    def expect(self) -> None:
        """An answer is being made; drafts under way are stale."""
        self.expecting = True
        self.epoch += 1

    @property
    def question(self) -> Question:
        """What it asks."""
        return self._question

    @question.setter
    def question(self, question: Question) -> None:
        self._question = question
        self.epoch += 1

    def forget(self) -> None:
        """Hold nothing: the next frame is a snapshot."""
        self.held = NOTHING
        self.told = b""
        self.digest = 0
        self.last = -1
        self.ages = NO_AGES
        self.epoch += 1

    def hold(self, held: Held) -> None:
        """This is what its other end holds already, from an earlier connection."""
        self.held = held
        self.epoch += 1

    def owe(self, what: Owed) -> None:
        """A frame was due while another waited."""
        self.owed = max(self.owed, what)


class Audience:
    """All viewers of this node."""

    def __init__(self) -> None:
        self._viewers: dict[Viewer, None] = {}

    def __len__(self) -> int:
        return len(self._viewers)

    def __iter__(self) -> Iterator[Viewer]:
        return iter(self._viewers)

    def __contains__(self, viewer: Viewer) -> bool:
        return viewer in self._viewers

    def add(self, viewer: Viewer) -> None:
        """Start sending to a viewer."""
        self._viewers[viewer] = None

    def remove(self, viewer: Viewer) -> None:
        """Stop; a viewer that is not there is fine."""
        self._viewers.pop(viewer, None)

    def all(self) -> list[Viewer]:
        """The viewers of this moment, for a turn that yields between them."""
        return list(self._viewers)
