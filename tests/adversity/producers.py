"""Producers that note what was acknowledged, and send again what was not, until it is.

A `Counter` counts under an updateId, so each of its updates counts once, however often it was sent. An `Author` writes whole events:
what it said last must be what stands there in the end. `expected` is what the database then holds of each.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any, Final

from server.client import Client, Lost, Refusal
from tests.serving import HOUR_MS, Message, Process, event, now_ms

EVENTS: Final = 120
CENTRE: Final = (52.5, 13.4)
HOURS: Final = (-20, -5, -0.5, 0.5, 1.5, 6, 20, 40, 60, 200)
"""When events start. Away from where a score has steps, so that a second more or less changes no order by much."""
WORDS: Final = ("jazz", "food", "art", "run")
GENTLE: Final[Message] = {"quiet_s": 1.0, "pulse_s": 3.0}
"""A client notices within these that nobody is there any more."""


def some_event(rng: random.Random, event_id: str, **more: Any) -> Message:
    """Any event in the middle of the map."""
    place = {"latitude": CENTRE[0] + rng.uniform(-0.3, 0.3), "longitude": CENTRE[1] + rng.uniform(-0.4, 0.4)}
    start = now_ms() + round(rng.choice(HOURS) * HOUR_MS)
    made = event(event_id, location=place, start=start, title=f"{rng.choice(WORDS)} {event_id}", **more)
    return made | {"categories": rng.sample(WORDS, rng.randint(0, 2)), "confidence": rng.choice([0, 0.5, 1])}


async def soon(seconds: float) -> None:
    """A wait that is not sat out whole: half a minute of backoff is a second here."""
    await asyncio.sleep(min(seconds / 10, 1))


class Producer:
    """One that says everything again until it is acknowledged."""

    def __init__(self, server: Process, url: str, name: str, rng: random.Random) -> None:
        self.name, self.rng = name, rng
        self.numbers = itertools.count(1)
        self.acknowledged = 0
        self.refusals: list[Refusal] = []
        self.expected: dict[str, Message] = {}
        """What must stand in the database in the end."""
        nowhere = {"west": 0.0, "south": 0.0, "east": 0.1, "north": 0.1}
        token = server.token("producer", name)
        self.client = Client(url, viewport=nowhere, token=token, sleep=soon, **GENTLE)

    async def say(self, kind: str, done: str = "", **fields: Any) -> None:
        """Until it is acknowledged, or refused by the code that says that an earlier attempt has `done` it."""
        for attempt in itertools.count():
            try:
                await self.client.request(kind, **fields)
            except Lost:
                continue
            except Refusal as refusal:
                if attempt == 0 or refusal.code != done:
                    assert refusal.retry, refusal
                    self.refusals.append(refusal)
                    await asyncio.sleep(0.05)
                    continue
            self.acknowledged += 1
            return

    async def create(self, count: int) -> None:
        for number in range(count):
            await self.write(some_event(self.rng, f"{self.name}-{number}", creatorId=self.name))

    async def write(self, row: Message) -> None:
        await self.say("event-upsert", event=row)
        self.expected[row["id"]] = {**self.expected.get(row["id"], {}), **row}

    async def push(self, enough: Callable[[], bool]) -> None:
        while not enough():
            await self.next()
            await asyncio.sleep(0.005)

    async def next(self) -> None:
        raise NotImplementedError


class Counter(Producer):
    """Counts."""

    async def next(self) -> None:
        event_id = self.rng.choice(list(self.expected))
        delta = {name: self.rng.randint(0, 2) for name in ("scanCount", "saveCount", "rsvpCount")}
        more = {"priority": "high"} if self.rng.random() < 0.05 else {}
        update_id = f"{self.name}:{next(self.numbers)}"
        await self.say("popularity-update", eventId=event_id, delta=delta, updateId=update_id, **more)
        one = self.expected[event_id]
        one.update({name: one.get(name, 0) + moved for name, moved in delta.items()})


class Author(Producer):
    """Makes events, changes them, deletes them."""

    async def next(self) -> None:
        ids, rng = list(self.expected), self.rng
        match rng.randrange(6):
            case 0 if len(ids) > EVENTS // 10:
                await self.say("event-delete", done="not_found", id=ids[0])
                del self.expected[ids[0]]
            case 0 | 1:
                new = f"{self.name}-new{next(self.numbers)}"
                await self.write(some_event(rng, new, creatorId=self.name))
            case 2:
                moved = some_event(rng, rng.choice(ids))
                await self.write({"id": moved["id"], "location": moved["location"], "start": moved["start"]})
            case 3:
                shared = [f"viewer {3 * rng.randrange(5)}"]
                await self.write({"id": rng.choice(ids), "isPrivate": rng.random() < 0.5, "sharedWith": shared})
            case 4:
                await self.write({"id": rng.choice(ids), "status": rng.choice(["PENDING", "VERIFIED", "REJECTED"])})
            case _:
                await self.write({"id": rng.choice(ids), "title": f"{rng.choice(WORDS)} {next(self.numbers)}"})
