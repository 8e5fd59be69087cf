"""Who looks at the map: viewers, what each was last handed, and the port through which frames leave.

A viewer's `held` advances only when a frame is handed over. At most one frame waits per connection: while the outlet is not
free nothing is made for it, `owed` remembers what kind of frame it missed, and when it has drained one difference covers all.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Protocol

from server.batching.scores.diff import DIGEST_MASK, Held
from server.batching.scores.question import Question


class Outlet(Protocol):
    """Where a viewer's frames go. `hand` may only be called while `free`."""

    @property
    def free(self) -> bool:
        """Does no frame wait?"""

    def hand(self, frame: bytes) -> None:
        """Take one frame."""


class Owed(IntEnum):
    """What a viewer missed while a frame of it waited; the greater covers the smaller."""

    NOTHING = 0
    CHANGES = 1
    BATCH = 2


class Viewer:
    """One registered connection: its question, and exactly what it holds."""

    __slots__ = ("digest", "held", "last", "outlet", "owed", "question", "reasons", "seq", "session")

    def __init__(self, session: str, question: Question, outlet: Outlet, *, reasons: bool = False) -> None:
        self.session = session
        self.question = question
        self.outlet = outlet
        self.reasons = reasons
        self.held: dict[str, Held] = {}
        self.digest = 0
        self.seq = 0
        self.owed = Owed.NOTHING
        self.last: str | None = None
        """The id that a better event would push out: the last one of a full view."""

    @property
    def full(self) -> bool:
        """Does the view hold as much as it may?"""
        return len(self.held) >= self.question.limit

    def forget(self) -> None:
        """Hold nothing: the next frame is a snapshot."""
        self.held.clear()
        self.digest = 0
        self.last = None

    def owe(self, what: Owed) -> None:
        """A frame was due while another waited."""
        self.owed = max(self.owed, what)

    def shift_digest(self, delta: int) -> None:
        """Move the digest, modulo 2^64."""
        self.digest = (self.digest + delta) & DIGEST_MASK


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
