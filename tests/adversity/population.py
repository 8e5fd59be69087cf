"""Many real clients, all different, and producers that note what was acknowledged; and the judgement in the end: the oracle's.

async with Population(server, seed) as people:      a world of events, WATCHERS who look at it, and producers, by way of `people.proxy`
    people.begin()                                  producers push, watchers pan now and then, for as long as it is not quiet
    ...                                             faults
    await people.converge()                         quiet: nothing acknowledged is missing or counted twice, and every client holds
                                                    the oracle's view of what is stored, with its digest, scores within the threshold

A `Counter` counts by way of the proxy, under an updateId: what it sent is sent again until it is acknowledged, so in the end each
of its updates has counted once. An `Author` writes whole events on a way of its own: what it sent last must be what stands there
(a message that a stalled cable kept for later would rightly be the last).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from server.client import Client, Lost, Refusal
from server.protocol.values import to_ms
from tests.conftest import in_memory, short_folder
from tests.oracle import view as oracle
from tests.serving import HOUR_MS, Message, Process, event, now_ms
from tests.ways import Proxy

WATCHERS: Final = 60
COUNTERS: Final = 4
AUTHORS: Final = 2
EVENTS: Final = 120
THRESHOLD: Final = 0.01
ROUNDING: Final = 0.0001
CENTRE: Final = (52.5, 13.4)
HOURS: Final = (-20, -5, -0.5, 0.5, 1.5, 6, 20, 40, 60, 200)
"""When events start. Away from where a score has steps, so that a second more or less changes no order by much."""
WORDS: Final = ("jazz", "food", "art", "run")
PATIENCE_S: Final = 90.0
"""A bound that is only there to end a broken run."""
LONG_MS: Final = 3_600_000
MILD: Final = {
    "BATCH_INTERVAL_MS": 500,
    "MIN_FLUSH_GAP_MS": 0,
    "URGENT_GAP_MS": 200,
    "PING_INTERVAL_MS": 1000,
    "SLOW_CLIENT_TIMEOUT_MS": 5000,
    "MESSAGES_PER_S": 1000,
    "RETURN_JITTER_MS": 1000,
}
"""Settings with which much happens in a few seconds, and who is gone is missed within a few more."""
UNDER_WAY: Final = (
    "frames_waiting",
    "frames_owed",
    "answers_expected",
    "changes_waiting",
    "rows_waiting",
    "rows_doubtful",
    "drawing",
    "engine_waiting",
    "connections_expected",
    "pending",
)
"""The gauges of work under way."""
NAMES: Final = {
    "scanCount": "scan",
    "saveCount": "save",
    "rsvpCount": "rsvp",
    "isPrivate": "private",
    "creatorId": "creator",
}
GENTLE: Final[Message] = {"quiet_s": 1.0, "pulse_s": 3.0}
"""A client notices within these that nobody is there any more."""


@contextmanager
def in_memory_process(**environ: object) -> Iterator[Process]:
    """A server of its own, not yet started, whose files are in memory: they outlive every process, and cost no disk's time."""
    made = Process(short_folder(in_memory()), {name: str(value) for name, value in environ.items()})
    try:
        yield made
    finally:
        made.remove()


def some_event(rng: random.Random, event_id: str, **more: Any) -> Message:
    """Any event in the middle of the map."""
    place = {"latitude": CENTRE[0] + rng.uniform(-0.3, 0.3), "longitude": CENTRE[1] + rng.uniform(-0.4, 0.4)}
    start = now_ms() + round(rng.choice(HOURS) * HOUR_MS)
    made = event(event_id, location=place, start=start, title=f"{rng.choice(WORDS)} {event_id}", **more)
    return made | {"categories": rng.sample(WORDS, rng.randint(0, 2)), "confidence": rng.choice([0, 0.5, 1])}


def some_viewport(rng: random.Random) -> Message:
    """All of the map, or a part of it."""
    if rng.random() < 0.2:
        return {"west": -180.0, "south": -85.0, "east": 180.0, "north": 85.0}
    lat, lon, size = CENTRE[0] + rng.uniform(-0.2, 0.2), CENTRE[1] + rng.uniform(-0.3, 0.3), rng.uniform(0.05, 0.4)
    return {"west": lon - size, "south": lat - size, "east": lon + size, "north": lat + size}


def some_filters(rng: random.Random) -> list[Message]:
    around = {"latitude": CENTRE[0], "longitude": CENTRE[1], "radius": rng.randint(3_000, 20_000)}
    return rng.choice(
        [
            [],
            [],
            [{"text": rng.choice(WORDS)}],
            [{"categories": {"include": [rng.choice(WORDS)]}}, {"location": around}],
            [{"categories": {"exclude": [rng.choice(WORDS)]}}],
            [{"dateRange": {"start": now_ms() + 3 * HOUR_MS}}],
            [{"status": ["PENDING"]}, {"text": rng.choice(WORDS)}],
        ]
    )


async def at_rest(server: Process) -> None:
    """Nothing is under way any more."""
    await all_zero(server, UNDER_WAY)


async def nobody_is_there(server: Process) -> None:
    await all_zero(server, ("connections", "viewers", *UNDER_WAY))


async def all_zero(server: Process, names: Sequence[str]) -> None:
    busy: Message = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while busy := {name: number for name in names if (number := await server.gauge(name))}:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"still under way after {PATIENCE_S:.0f} s: {busy}") from None


class Watcher:
    """A client with a question of its own, which it changes now and then."""

    def __init__(self, server: Process, url: str, number: int, rng: random.Random) -> None:
        self.rng = rng
        self.user = f"viewer {number}" if number % 3 == 0 else None
        self.question: Message = {"viewport": some_viewport(rng), "filters": some_filters(rng), "user": self.user}
        self.question["maxEvents"] = rng.choice([1, 5, 20, 50, 200])
        self.changes = 0
        self.client = Client(
            url,
            viewport=self.question["viewport"],
            filters=self.question["filters"],
            max_events=self.question["maxEvents"],
            reasons=bool(number % 2),
            token=(lambda: server.token("viewer", self.user)) if self.user else None,
            sleep=soon,
            **GENTLE,
        )

    async def watch(self, restless: Callable[[], bool]) -> None:
        """See what changes, for ever."""
        while True:
            try:
                await self.client.next_change(self.rng.uniform(1, 5) if restless() else None)
                self.changes += 1
            except TimeoutError:
                await self.pan()

    async def pan(self) -> None:
        self.question["viewport"] = some_viewport(self.rng)
        try:
            await self.client.set_viewport(self.question["viewport"])
        except Lost:
            return  # It is said again with the next registration.

    def scores(self, events: list[Message], now: int) -> dict[str, float]:
        """The oracle's view."""
        return {one["id"]: score for one, score in oracle.view(events, self.question, now)}

    def differs(self, stored: dict[str, Message], scores: dict[str, float]) -> str:
        """What is wrong with what it holds; empty when that is the oracle's view."""
        held, client = self.client.events, self.client
        if held.keys() != scores.keys():
            return f"{sorted(held.keys() - scores.keys())} too much, {sorted(scores.keys() - held.keys())} missing"
        if client.digest != oracle.digest({event_id: stored[event_id]["version"] for event_id in held}):
            return "another digest"
        for event_id, one in held.items():
            if abs(one["relevanceScore"] - scores[event_id]) >= THRESHOLD + ROUNDING:
                return f"{event_id} has {one['relevanceScore']}, it is {scores[event_id]}"
            truth = stored[event_id]
            other = {name for name in one if name != "relevanceScore" and one[name] != truth.get(name)}
            if other:
                return f"{event_id} differs in {other}"
        return ""


def as_oracle(stored: Message) -> Message:
    """An event of GET as the oracle reads it."""
    known = {NAMES.get(name, name): value for name, value in stored.items()}
    end = known.get("end")
    times = {"start": to_ms(stored["start"]), "end": None if end is None else to_ms(end)}
    return {
        **known,
        **stored["location"],
        **times,
        "created": to_ms(stored["createdAt"]),
        "shared": stored.get("sharedWith", []),
    }


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


@dataclass
class Population:
    """See above."""

    server: Process
    seed: int
    count: int = WATCHERS
    watchers: list[Watcher] = field(default_factory=list)
    producers: list[Producer] = field(default_factory=list)
    quiet: bool = False
    _running: list[asyncio.Future[None]] = field(default_factory=list)
    _pushing: list[asyncio.Future[None]] = field(default_factory=list)
    _ends: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Population:
        rng = random.Random(self.seed)
        self.proxy: Proxy = await self._ends.enter_async_context(Proxy(self.ws_port))
        makes = [(Counter, self.proxy.url, f"counter {n}") for n in range(COUNTERS)]
        makes += [(Author, self.server.ws_url, f"author {n}") for n in range(AUTHORS)]
        for make, url, name in makes:
            self.producers.append(make(self.server, url, name, random.Random(rng.random())))
            await self._ends.enter_async_context(self.producers[-1].client)
        await asyncio.gather(*(one.create(EVENTS // len(self.producers)) for one in self.producers))
        for number in range(self.count):
            self.watchers.append(Watcher(self.server, self.proxy.url, number, random.Random(rng.random())))
            await self._ends.enter_async_context(self.watchers[-1].client)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for one in (*self._running, *self._pushing):
            one.cancel()
        await asyncio.gather(*self._running, *self._pushing, return_exceptions=True)
        self.proxy.flow()
        await self._ends.aclose()

    @property
    def ws_port(self) -> int:
        return int(self.server.ports["WS_PORT"])

    @property
    def acknowledged(self) -> int:
        return sum(one.acknowledged for one in self.producers)

    def begin(self) -> None:
        self._running = [self._under_way(one.watch(lambda: not self.quiet)) for one in self.watchers]
        self._pushing = [self._under_way(one.push(lambda: self.quiet)) for one in self.producers]

    def _under_way(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        return asyncio.ensure_future(work)

    async def more_acknowledged(self, count: int) -> None:
        """Wait until every producer has got so many more acknowledgements."""
        goals = [one.acknowledged + count for one in self.producers]
        await self.until(
            lambda: all(p.acknowledged >= g for p, g in zip(self.producers, goals, strict=True)), "updates are taken"
        )

    async def until(self, true: Callable[[], bool], what: str) -> None:
        """Look until it holds; whoever has fallen over meanwhile is heard at once."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not true():
                    for one in (*self._running, *self._pushing):
                        if one.done() and not one.cancelled():
                            one.result()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"still not so after {PATIENCE_S:.0f} s: {what}") from None

    # Quiet.

    async def converge(self) -> None:
        """All has been mended: everybody holds the truth, and nothing that was acknowledged is missing."""
        self.quiet = True
        await self.until(lambda: all(one.done() for one in self._pushing), "all that was sent is acknowledged")
        await self.until(lambda: all(one.client.connected for one in self.watchers), "all have come back")
        await self._until_registered()
        now = await self._flush()
        stored = await self.stored()
        self._nothing_is_missing(stored)
        events = [as_oracle(one) for one in stored.values()]
        right = [(one, one.scores(events, now)) for one in self.watchers]
        try:
            await self.until(lambda: not any(o.differs(stored, v) for o, v in right), "all hold the oracle's view")
        except AssertionError:
            assert [what for one, view in right if (what := one.differs(stored, view))] == []
            raise
        assert [one.client.divergences for one in self.watchers] == [0] * len(self.watchers)
        assert not [one.client.problems for one in self.watchers if one.client.problems]

    async def _until_registered(self) -> None:
        """The server knows of each once, and of nobody else: who left without a word is gone."""
        wanted = len(self.watchers) + len(self.producers)
        async with asyncio.timeout(PATIENCE_S):
            while (await self.stats())["registeredUsers"] != wanted:
                await asyncio.sleep(0.1)

    async def _flush(self) -> int:
        """The last batch, in which nobody is owed; when that was."""
        answer = await self.server.ask("PATCH", "/config", {"batchIntervalMs": LONG_MS})
        assert answer.status == 200, answer.body
        last = self.producers[0]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await last.next()
                forced = (await self.server.ask("POST", "/force-batch")).json
                if not forced["turn"]["deferred"]:
                    return int(forced["stats"]["lastBatchTime"])

    async def stats(self) -> Message:
        return dict((await self.server.ask("GET", "/stats")).json)

    async def stored(self) -> dict[str, Message]:
        """Every event as it is stored."""
        answer = await self.server.ask("GET", "/events?limit=1000")
        return {one["id"]: one for one in answer.json["events"]}

    def _nothing_is_missing(self, stored: dict[str, Message]) -> None:
        expected = {event_id: row for one in self.producers for event_id, row in one.expected.items()}
        assert stored.keys() == expected.keys()
        for event_id, row in expected.items():
            there = stored[event_id] | {"start": to_ms(stored[event_id]["start"])}
            wrong = {name: (value, there.get(name)) for name, value in row.items() if there.get(name) != value}
            assert not wrong, f"{event_id}: acknowledged, stored: {wrong}"
