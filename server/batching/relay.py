"""What has moved, told to those who follow it: a job, a run, each at most every TOLD_EVERY_S, the newest state, the last one always.

Whoever moves a thing, in this process or another, says its id on the bus. The relay notes those that somebody here follows, reads
them and tells. What a follower had no room for is told again; after messages were lost on the bus, all that may have moved unseen
is. What the things are and what is said of them is the `Subject`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Protocol, TypeAlias

from server.batching.loop import Occasion, Turn
from server.batching.parts import Follow
from server.edge.bus import Envelope, Lost
from server.edge.clock import Clock

TOLD_EVERY_S: Final = 0.5
TOLD_MOST: Final = 200
"""Things told in one turn; the others follow in the next."""
NOTED_MOST: Final = 10_000
"""Things that wait to be told; at the bound the others are told when they move again."""

Message: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class Said:
    """What is told of one thing, by topic."""

    id: int
    by_topic: tuple[tuple[str, Message], ...]


class Subject(Protocol):
    """The things that one relay tells of."""

    named: str
    """The list of ids in what is said on the bus."""

    def followed(self, id: int, topics: Collection[str]) -> bool:
        """Does somebody follow it?"""
        ...

    async def unseen(self, topics: Collection[str]) -> Iterable[int]:
        """Which may have moved, when nobody knows."""
        ...

    async def read(self, ids: Sequence[int]) -> Sequence[Said]:
        """What is to be said of these; nothing of one that is gone."""
        ...


class Relay:
    """One node's end: `heard` and `lost` are the bus's handlers, `turn` the loop's."""

    def __init__(self, subject: Subject, clock: Clock, follow: Follow) -> None:
        self.woken: Callable[[int], None] = _nothing
        self._subject = subject
        self._clock = clock
        self._follow = follow
        self._noted: dict[int, None] = {}
        self._told_at: dict[int, float] = {}

    async def heard(self, messages: list[Envelope]) -> None:
        """Note what somebody follows."""
        topics = set(self._follow.topics())
        for id in (id for message in messages for id in _ids(message.payload, self._subject.named)):
            if self._subject.followed(id, topics):
                self.note(id)

    async def lost(self, lost: Lost) -> None:
        """Nobody knows what has moved."""
        for id in await self._subject.unseen(set(self._follow.topics())):
            self.note(id)

    def note(self, id: int) -> None:
        """It has moved, or somebody has begun to follow it."""
        if len(self._noted) < NOTED_MOST:
            self._noted[id] = None
            self.woken(0)

    async def turn(self, occasion: Occasion) -> Turn:
        """Tell what is due; wake again for what is not."""
        now = self._clock.monotonic()
        self._told_at = {id: at for id, at in self._told_at.items() if now - at < TOLD_EVERY_S}
        due = [id for id in self._noted if id not in self._told_at][:TOLD_MOST]
        for id in due:
            del self._noted[id]
        again = await self._told(due, now)
        if self._noted:
            next_at = min(self._told_at.get(id, -TOLD_EVERY_S) for id in self._noted) + TOLD_EVERY_S
            self.woken(max(0, ceil((next_at - now) * 1000)))
        return Turn(len(due), len(due) - again, deferred=again)

    async def _told(self, due: list[int], now: float) -> int:
        """How many must be told once more, because somebody had no room."""
        if not due:
            return 0
        try:
            said = await self._subject.read(due)
        except BaseException:
            self._noted |= dict.fromkeys(due)
            raise
        again = [one.id for one in said if not self._tell(one)]
        self._told_at |= dict.fromkeys(due, now)
        self._noted |= dict.fromkeys(again)
        return len(again)

    def _tell(self, one: Said) -> bool:
        # All are told, whether or not the first had room.
        said = [self._follow.tell(topic, message) for topic, message in one.by_topic]
        return all(said)


def _ids(payload: Mapping[str, object], named: str) -> list[int]:
    ids = payload.get(named)
    return [id for id in ids if isinstance(id, int)] if isinstance(ids, list) else []


def _nothing(after_ms: int) -> None:
    """Nobody to wake yet."""
