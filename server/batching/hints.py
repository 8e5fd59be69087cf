"""What has changed in a system, told to those who follow its topic: a hint, at most two a second. Shared by systems.

    hints = Hints("schedules", AREAS, bus=bus, db=db, clock=clock, follow=follow, named="schedules")
    hints.note("runs", ids=[7])                 committed: this has changed
    bus.subscribe([topic], hints.heard, lost=hints.lost)         `turn` belongs to a loop with GAP_MS between two turns

A loop or a handler notes what it has changed. The turn says it to the other nodes over the bus and, with what they have said, to
the followers here: the areas that changed, and which things, as long as these are few. It says where to look, so what a follower had
no room for, and what is lost with a process, is made good by the next one. `more` reads what is told beside that, of the newest state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeAlias

from server.batching.loop import Occasion, Turn
from server.batching.parts import Follow
from server.edge.bus import Bus, Envelope, Lost
from server.edge.clock import Clock
from server.edge.postgres import Database

GAP_MS: Final = 500
"""The loop's turns are this far apart at least."""
NAMED_MOST: Final = 200
"""Things named in one message; when more have changed, none is named: any may have."""

More: TypeAlias = Callable[["News"], Awaitable[Mapping[str, object]]]


class News:
    """What has changed since it was last told. `ids` None: any of them may have."""

    def __init__(self, known: tuple[str, ...], named: str | None = None) -> None:
        self.areas: set[str] = set()
        self.ids: set[int] | None = set()
        self._known = known
        self._named = named

    def __bool__(self) -> bool:
        return bool(self.areas)

    def add(self, areas: Iterable[str], ids: Iterable[int] | None = ()) -> None:
        """Some more; an area that we do not know (of a newer node) is left out."""
        self.areas |= set(areas) & set(self._known)
        if self.ids is None or ids is None:
            self.ids = None
            return
        self.ids |= set(ids)
        if len(self.ids) > NAMED_MOST:
            self.ids = None

    def merge(self, other: News) -> None:
        """All that the other one knows."""
        self.add(other.areas, other.ids)

    def said(self) -> dict[str, object]:
        """As it goes over the bus and to followers."""
        changed: dict[str, object] = {"changed": sorted(self.areas)}
        if self._named is None:
            return changed
        return {**changed, self._named: None if self.ids is None else sorted(self.ids)}

    def read(self, payload: Mapping[str, object]) -> None:
        """What another node has said; of what can't be read anything may be true."""
        changed = payload.get("changed")
        named = payload.get(self._named) if self._named is not None else []
        areas = changed if isinstance(changed, list) else self._known
        ids = [one for one in named if isinstance(one, int)] if isinstance(named, list) else None
        self.add([area for area in areas if isinstance(area, str)], ids)


class Hints:
    """One node's end: `heard` and `lost` are the bus's handlers, `turn` the loop's."""

    def __init__(
        self,
        topic: str,
        areas: tuple[str, ...],
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        follow: Follow,
        named: str | None = None,
        more: More | None = None,
    ) -> None:
        self.woken: Callable[[], None] = _nothing
        self._topic, self._areas, self._named, self._more = topic, areas, named, more
        self._db = db
        self._bus = bus
        self._follow = follow
        self._own = self._none()
        self._news = self._none()
        self._mark = f"{bus.node}/{clock.random()}"

    def _none(self) -> News:
        return News(self._areas, self._named)

    def note(self, *areas: str, ids: Iterable[int] | None = ()) -> None:
        """This has changed, committed."""
        assert set(areas) <= set(self._areas), f"{self._topic} has no such area: {areas}"
        self._own.add(areas, ids)
        self.woken()

    async def heard(self, messages: list[Envelope]) -> None:
        """What other processes have changed; our own is told already."""
        for message in messages:
            if message.payload.get("by") != self._mark:
                self._news.read(message.payload)
        if self._news:
            self.woken()

    async def lost(self, lost: Lost) -> None:
        """Nobody knows what changed."""
        self._news.add(self._areas, None)
        self.woken()

    async def turn(self, occasion: Occasion) -> Turn:
        """Say it to the others, then to the followers here."""
        own, self._own = self._own, self._none()
        try:
            await self._publish(own)
        except BaseException:
            self._own.merge(own)
            raise
        news, self._news = self._news, self._none()
        news.merge(own)
        if not news:
            return Turn()
        try:
            told = await self._tell(news, occasion)
        except BaseException:
            self._news.merge(news)
            raise
        if not told:
            self._news.merge(news)
            return Turn(1, deferred=1)
        return Turn(1, 1)

    async def _publish(self, own: News) -> None:
        if own:
            async with self._db.transaction() as connection:
                await self._bus.publish(connection, self._topic, {**own.said(), "by": self._mark})

    async def _tell(self, news: News, occasion: Occasion) -> bool:
        """Whether all who follow had room; true where nobody does."""
        if self._topic not in set(self._follow.topics()):
            return True
        more = {} if self._more is None else await self._more(news)
        return self._follow.tell(self._topic, self._message(news, {**news.said(), **more}, occasion))

    def _message(self, news: News, detail: Mapping[str, object], occasion: Occasion) -> dict[str, object]:
        """The message `status`, in the form in which turns of loops are told."""
        counts = {"taken": len(news.areas), "done": len(news.areas), "failed": 0, "deferred": 0}
        loop = {"loop": f"{self._topic}-tell", "number": occasion.number, "trigger": occasion.trigger, "seconds": 0.0}
        return {"type": "status", "topic": self._topic, **loop, **counts, "error": None, "detail": dict(detail)}


def _nothing() -> None:
    """Nobody to wake yet."""
