"""Sessions: who is here under which name, and what those who are gone were last handed, for when they come back.

    here --connection ends--> kept --comes back, too old, too many--> forgotten
      |                                                                  ^
      +--unregister, or another connection takes it over-----------------+

A session is the name that a connection was told in `registered`; who can say it, and its last `seq`, was there. What is kept
is what stands in memory anyway: the records of what was handed over (ids, versions, scores), which equal viewers share, and
no payloads. Coming back is a difference against them, whatever has happened since: nothing is replayed.

It promises
- A session counts for the same user only (nobody is the same as nobody), and only with the `seq` of the last frame handed
  over: a frame that was under way when the connection broke may never have arrived.
- It is used once. Who names it with another `seq` has shown that it is of no use, and it is forgotten too.
- A connection that still stands, because nobody noticed its end, is as good as one that has ended: the caller ends it.
- At most `most` sessions, EVENTS_MOST records and `keep_s` seconds: beyond that the one that ended first is forgotten, and
  its client gets a snapshot. So the slots of events that are gone (Turns.forget) are held for a bounded time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from server.batching.scores.audience import Held, Viewer, count

EVENTS_MOST: Final = 2_000_000
"""Records kept for all sessions together, counted as if none were shared: some 60 MB."""


@dataclass(frozen=True, slots=True)
class Former:
    """Who comes back: the viewer that still stands for it, if one does; and what it holds, None when that is not known."""

    viewer: Viewer | None = None
    held: Held | None = None


NOBODY: Final = Former()


@dataclass(frozen=True, slots=True)
class _Kept:
    """A session whose connection has ended."""

    user: str | None
    seq: int
    held: Held
    ended_s: float


class Sessions:
    """Those of this node. Times are monotonic seconds."""

    def __init__(self, most: int = 0, keep_s: float = 0.0) -> None:
        self._most = most
        self._keep_s = keep_s
        self._here: dict[str, Viewer] = {}
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """The one that ended first comes first."""
        self._events = 0

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    @property
    def events(self) -> int:
        """Records kept for them."""
        return self._events

    def held(self) -> Collection[Held]:
        """What they hold, equal ones once as far as they share it."""
        return {id(kept.held): kept.held for kept in self._kept.values()}.values()

    def enter(self, viewer: Viewer) -> None:
        """It looks from now on."""
        self._here[viewer.session] = viewer

    def leave(self, viewer: Viewer) -> None:
        """It looks no more, and there is nothing to come back to."""
        self._here.pop(viewer.session, None)

    def keep(self, viewer: Viewer, now_s: float) -> None:
        """Its connection has ended. Who has left before, or was handed nothing yet, has nothing to come back to."""
        if self._here.pop(viewer.session, None) is None or viewer.seq == 0 or self._most == 0:
            return
        assert viewer.session not in self._kept, "no two connections have the same name"
        self._kept[viewer.session] = _Kept(viewer.question.user, viewer.seq, viewer.held, now_s)
        self._events += count(viewer.held)
        self.expire(now_s)
        while len(self._kept) > self._most or self._events > EVENTS_MOST:
            self._drop(next(iter(self._kept)))

    def take(self, session: str, user: str | None, seq: int | None, now_s: float) -> Former:
        """Somebody says that this was its session, and `seq` the last that arrived."""
        viewer = self._here.get(session)
        if viewer is not None:
            known = viewer.seq == seq and seq != 0
            return Former(viewer, viewer.held if known else None) if viewer.question.user == user else NOBODY
        self.expire(now_s)
        kept = self._kept.get(session)
        if kept is None or kept.user != user:
            return NOBODY
        self._drop(session)
        return Former(None, kept.held) if kept.seq == seq else NOBODY

    def expire(self, now_s: float) -> int:
        """Forget what is too old; how many."""
        before = len(self._kept)
        while self._kept and next(iter(self._kept.values())).ended_s + self._keep_s <= now_s:
            self._drop(next(iter(self._kept)))
        return before - len(self._kept)

    def _drop(self, session: str) -> None:
        self._events -= count(self._kept.pop(session).held)
