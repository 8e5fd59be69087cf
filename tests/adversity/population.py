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
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from server.client import Client, Lost
from server.protocol.values import to_ms
from tests.adversity.producers import CENTRE, EVENTS, GENTLE, WORDS, Author, Counter, Producer, soon
from tests.conftest import short_folder
from tests.oracle import view as oracle
from tests.serving import HOUR_MS, Message, Process, now_ms
from tests.ways import Proxy

WATCHERS: Final = 60
COUNTERS: Final = 4
AUTHORS: Final = 2
THRESHOLD: Final = 0.01
ROUNDING: Final = 0.0001
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


@contextmanager
def in_memory_process(**environ: object) -> Iterator[Process]:
    """A server of its own, not yet started, whose files are in memory: they outlive every process, and cost no disk's time."""
    made = Process(short_folder(), {name: str(value) for name, value in environ.items()})
    try:
        yield made
    finally:
        made.remove()


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
        self.changes, self.last = 0, "none"
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
                change = await self.client.next_change(self.rng.uniform(1, 5) if restless() else None)
                self.changes += 1
                self.last = f"{change.type} of {change.message['timestamp']}"
            except TimeoutError:
                if restless():  # Still: what is asked for when all is quiet is asked for to the end.
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

    def state(self) -> str:
        """What is known of one that is wrong."""
        client = self.client
        waits = list(client._answers) + ([f"resync {client._resync_ref}"] if client._resync_ref else [])
        return (
            f"holds {len(client.events)}; {self.question}; asked for {client._wishes['viewport']}; "
            f"connection {client.connections}, open: {client.connected}, seq {client.view.seq}, diverged {client.divergences}, "
            f"{self.changes} changes, the last: {self.last}, waits for {waits or 'nothing'}"
        )

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
            wrong = [f"{what}; {one.state()}" for one, view in right if (what := one.differs(stored, view))]
            listed = "\n".join(wrong[:5])
            raise AssertionError(f"{len(wrong)} do not hold the oracle's view:\n{listed}") from None
        clients = [one.client for one in self.watchers]
        diverged = {number: one.divergences for number, one in enumerate(clients) if one.divergences}
        assert not diverged, f"whose digest or seq was wrong, and how often: {diverged}"
        problems = [problem for one in clients for problem in one.problems]
        assert not problems, f"what clients were told unasked: {problems[:3]}"

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
        strange = stored.keys() ^ expected.keys()
        assert not strange, f"acknowledged and not stored, or the other way round: {strange}"
        for event_id, row in expected.items():
            there = stored[event_id] | {"start": to_ms(stored[event_id]["start"])}
            wrong = {name: (value, there.get(name)) for name, value in row.items() if there.get(name) != value}
            assert not wrong, f"{event_id}: acknowledged, stored: {wrong}"
