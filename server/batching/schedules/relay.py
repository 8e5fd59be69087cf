"""What has changed in the schedules, told to those who follow the topic `schedules`: a hint, at most two a second.

A loop or a handler notes what it has changed (`note`). The turn says it to the other nodes over the bus and, with what they
have said, to the followers here: the areas that changed, and which schedules, as long as these are few. It says where to look and
carries no state, so what a follower had no room for, and what is lost with a process, is made good by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeAlias, get_args

from server.batching.loop import Occasion, Turn
from server.batching.parts import Follow
from server.edge.bus import Bus, Envelope, Lost
from server.edge.clock import Clock
from server.edge.postgres import Database

Area: TypeAlias = Literal["schedules", "runs", "retries", "teams", "businesses"]
AREAS: Final[tuple[Area, ...]] = get_args(Area)
TOPIC: Final = "schedules"
TELL: Final = "schedules-tell"
GAP_MS: Final = 500
"""The loop's turns are this far apart at least."""
NAMED_MOST: Final = 200
"""Schedules named in one message; when more have changed, none is named: any may have."""


class News:
    """What has changed since it was last told. `schedules` None: any of them may have."""

    def __init__(self) -> None:
        self.areas: set[Area] = set()
        self.schedules: set[int] | None = set()

    def __bool__(self) -> bool:
        return bool(self.areas)

    def add(self, areas: Iterable[str], schedules: Iterable[int] | None = ()) -> None:
        """Some more; an area that we do not know (of a newer node) is left out."""
        self.areas |= {area for area in AREAS if area in set(areas)}
        if self.schedules is None or schedules is None:
            self.schedules = None
            return
        self.schedules |= set(schedules)
        if len(self.schedules) > NAMED_MOST:
            self.schedules = None

    def merge(self, other: News) -> None:
        """All that the other one knows."""
        self.add(other.areas, other.schedules)

    def said(self) -> dict[str, object]:
        """As it goes over the bus and to followers."""
        named = None if self.schedules is None else sorted(self.schedules)
        return {"changed": sorted(self.areas), "schedules": named}


class Relay:
    """One node's end: `heard` and `lost` are the bus's handlers, `turn` the loop's (with GAP_MS between two)."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        clock: Clock,
        follow: Follow,
    ) -> None:
        self.woken: Callable[[], None] = _nothing
        self._db = db
        self._bus = bus
        self._follow = follow
        self._own = News()
        self._news = News()
        self._mark = f"{bus.node}/{clock.random()}"

    def note(self, *areas: Area, schedules: Iterable[int] | None = ()) -> None:
        """This has changed, committed."""
        self._own.add(areas, schedules)
        self.woken()

    async def heard(self, messages: list[Envelope]) -> None:
        """What other processes have changed; our own is told already."""
        for message in messages:
            if message.payload.get("by") != self._mark:
                self._news.add(*_read(message.payload))
        if self._news:
            self.woken()

    async def lost(self, lost: Lost) -> None:
        """Nobody knows what changed."""
        self._news.add(AREAS, None)
        self.woken()

    async def turn(self, occasion: Occasion) -> Turn:
        """Say it to the others, then to the followers here."""
        own, self._own = self._own, News()
        try:
            await self._publish(own)
        except BaseException:
            self._own.merge(own)
            raise
        news, self._news = self._news, News()
        news.merge(own)
        if not news:
            return Turn()
        if TOPIC in set(self._follow.topics()) and not self._follow.tell(TOPIC, message_of(news, occasion)):
            self._news.merge(news)
            return Turn(1, deferred=1)
        return Turn(1, 1)

    async def _publish(self, own: News) -> None:
        if own:
            async with self._db.transaction() as connection:
                await self._bus.publish(connection, TOPIC, {**own.said(), "by": self._mark})


def message_of(news: News, occasion: Occasion) -> dict[str, object]:
    """The message `status`, in the form in which turns of loops are told."""
    counts = {"taken": len(news.areas), "done": len(news.areas), "failed": 0, "deferred": 0}
    turn = {"loop": TELL, "number": occasion.number, "trigger": occasion.trigger, "seconds": 0.0, **counts}
    return {"type": "status", "topic": TOPIC, **turn, "error": None, "detail": news.said()}


def _read(payload: Mapping[str, object]) -> tuple[list[str], list[int] | None]:
    changed, named = payload.get("changed"), payload.get("schedules")
    areas = changed if isinstance(changed, list) else AREAS
    return [area for area in areas if isinstance(area, str)], [
        one for one in named if isinstance(one, int)
    ] if isinstance(named, list) else None


def _nothing() -> None:
    """Nobody to wake yet."""
