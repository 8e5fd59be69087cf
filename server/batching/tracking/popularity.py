"""Growth of clips, handed to the live map as popularity of the events that they belong to.

    popularity = Popularity(ingest)                                          the feed's verb, as a port: no system knows another
    bus.subscribe([growth.TOPIC], popularity.heard)                          the node that settled a count hands it over
    Loop(POPULARITY, popularity.turn, ...); popularity.woken = loop.wake

A handler of the bus only leaves a note; the turn takes a slice of the notes. Each growth has a key, so the feed counts one that is handed
over twice once. An event that is not there (any more) is passed over. What waits when a process ends is not told again: it is
a hint for a map, and no money.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from server.batching.loop import Occasion, Turn
from server.batching.tracking.growth import Growth, read
from server.core.event import Op, Outcome, Rejected
from server.core.event import Popularity as Moved
from server.core.identity import Identity
from server.edge.bus import Envelope

POPULARITY: Final = "tracking-popularity"
SLICE: Final = 500
"""Growths handed over in one turn."""
NOTED_MOST: Final = 20_000
"""Growths that wait; when more come, the oldest go untold."""
PRODUCER: Final = Identity("tracking", frozenset(("producer",)))

Ingest: TypeAlias = Callable[[Sequence[Op], Identity], Awaitable[Sequence[Outcome]]]


class Popularity:
    """One node's end: `heard` is the bus's handler, `turn` the loop's."""

    def __init__(self, ingest: Ingest) -> None:
        self.woken: Callable[[], None] = _nothing
        self._ingest = ingest
        self._noted: deque[Growth] = deque(maxlen=NOTED_MOST)

    async def heard(self, messages: list[Envelope]) -> None:
        """Note what was settled here; the other nodes hand over their own."""
        for message in messages:
            if message.own:
                self._noted.extend(read(message.payload))
        if self._noted:
            self.woken()

    async def turn(self, occasion: Occasion) -> Turn:
        """Hand over a slice; what the feed can't take just now is taken again."""
        slice_ = [self._noted.popleft() for _ in range(min(SLICE, len(self._noted)))]
        if not slice_:
            return Turn()
        ops = [Moved(one.event_id, deltas=(one.views, 0, 0), update_id=one.key) for one in slice_]
        try:
            outcomes = await self._ingest(ops, PRODUCER)
        except BaseException:
            self._noted.extendleft(reversed(slice_))
            raise
        unknown = sum(isinstance(outcome, Rejected) for outcome in outcomes)
        return Turn(len(slice_), len(slice_), more=bool(self._noted), detail={"unknown": unknown})


def _nothing() -> None:
    """Nobody to wake yet."""
