"""Three real servers over one PostgreSQL: what one takes reaches the viewers of all, and the end of any of them loses nothing."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from server.client import Client
from tests.conftest import named, run_apart, tell
from tests.serving import BERLIN, LIMIT_S, WORLD, Message, Process, Talk, event, process, spread

SERVERS = 3
DATABASE = "three_servers"


async def eventually(look: Callable[[], Awaitable[Any]], what: str, limit_s: float = LIMIT_S) -> Any:
    """What was looked for, as soon as there is something; the bound is only there to end a broken run."""
    try:
        async with asyncio.timeout(limit_s):
            while not (found := await look()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"still not so after {limit_s:.0f} s: {what}") from None
    return found


class Group:
    """The servers, and what tests say to them again and again."""

    def __init__(self, servers: Sequence[Process]) -> None:
        self.servers = list(servers)

    def __getitem__(self, number: int) -> Process:
        return self.servers[number]

    def __iter__(self) -> Iterator[Process]:
        return iter(self.servers)

    async def start(self) -> None:
        """Start those that do not run, one after the other, and wait until one leads and all know of all."""
        for one in self:
            if one.popen is None or one.popen.poll() is not None:
                await one.start()
        await eventually(self.complete, "all know of all")

    async def complete(self) -> bool:
        told = [await self.stats(one) for one in self]
        return all(len(s["nodes"]) == len(self.servers) and sum(n["leader"] for n in s["nodes"]) == 1 for s in told)

    async def stats(self, server: Process) -> Message:
        return dict((await server.ask("GET", "/stats")).json)

    async def leader(self) -> Process:
        """Whoever leads."""

        async def look() -> Process | None:
            for one in self:
                if one.popen is not None and one.popen.poll() is None and await one.gauge("leader"):
                    return one
            return None

        found: Process = await eventually(look, "one of them leads")
        return found

    async def force(self, server: Process) -> Message:
        answer = await server.ask("POST", "/force-batch")
        assert answer.status == 200, answer.body
        return dict(answer.json["turn"])

    async def put(self, server: Process, *events: Message) -> None:
        answer = await server.ask("POST", "/events", list(events))
        assert (answer.status, answer.json["rejected"]) == (200, []), answer.body

    async def count(self, server: Process, event_id: str, **counters: Any) -> None:
        answer = await server.ask("POST", "/popularity", [{"eventId": event_id, **counters}])
        assert answer.json["rejected"] == [], answer.body

    async def clear(self) -> None:
        """No event is left, on any of them."""
        for one in (await self[0].ask("GET", "/events?limit=1000")).json["events"]:
            await self[0].ask("DELETE", f"/events/{one['id']}")
        for one in self:
            await eventually(lambda one=one: self._empty(one), "nothing is left")

    async def known(self) -> None:
        """Every server has every event: nothing that was put before is still on its way."""
        stored = len((await self[0].ask("GET", "/events?limit=1000")).json["events"])
        for one in self:
            await eventually(lambda one=one: self._has(one, stored), "all have every event")

    async def _has(self, server: Process, count: int) -> bool:
        return bool((await self.stats(server))["events"] == count)

    async def _empty(self, server: Process) -> bool:
        stats = await self.stats(server)
        return (stats["events"], stats["pendingUpdates"]) == (0, 0)


@pytest.fixture(scope="module")
def running(template: str, cluster: str) -> Iterator[Group]:
    run_apart(tell(cluster, f"create database {DATABASE} template {template} strategy file_copy"))
    with ExitStack() as ends:
        environ = {"DATABASE_URL": named(cluster, DATABASE), "DATABASE_POOL": 4, "PRODUCER_MESSAGES_PER_S": 1_000_000}
        yield Group([ends.enter_context(process(**environ)) for _ in range(SERVERS)])
    run_apart(tell(cluster, f"drop database if exists {DATABASE} with (force)"))


@pytest.fixture
def three(running: Group) -> Iterator[Group]:
    """All three run, without events."""

    async def ready() -> None:
        await running.start()
        await running.clear()

    run_apart(ready())
    yield running


async def talk_to(server: Process, ends: AsyncExitStack, role: str = "producer") -> Talk:
    talk = Talk(await ends.enter_async_context(connect(server.ws_url, compression=None, close_timeout=1)))
    await talk.ask("authenticate", token=server.token(role))
    return talk


async def viewers(three: Group, ends: AsyncExitStack, **registration: Any) -> list[Talk]:
    """One viewer at each server, with its snapshot, in which is what was put before."""
    await three.known()
    talks = [await talk_to(one, ends, "viewer") for one in three]
    for talk in talks:
        await talk.ask("register", **{"viewport": BERLIN, **registration})
        await talk.get("replace-all")
    return talks


async def test_what_one_server_takes_is_told_at_once_by_all(three: Group) -> None:
    async with AsyncExitStack() as ends:
        talks = await viewers(three, ends, reasons=True)
        await three.put(three[1], event("a", title="New"))
        assert [(await talk.get("add-event"))["event"]["title"] for talk in talks] == ["New"] * SERVERS
        await three.put(three[2], {"id": "a", "title": "Other"})
        assert [(await talk.get("update-event"))["event"]["title"] for talk in talks] == ["Other"] * SERVERS
        await three.count(three[0], "a", scanCount=9, priority="high")
        assert [(await talk.get("update-event"))["event"]["scanCount"] for talk in talks] == [9] * SERVERS
        await three[1].ask("DELETE", "/events/a")
        assert [(await talk.get("delete-event"))["reason"] for talk in talks] == ["removed"] * SERVERS


async def test_counts_taken_by_each_are_one_batch_for_the_viewers_of_all(three: Group) -> None:
    await three.put(three[0], *spread(SERVERS))
    async with AsyncExitStack() as ends:
        talks = await viewers(three, ends)
        for number, server in enumerate(three):
            await three.count(server, f"e{number}", scanCount=10 + number)
        turn = await three.force(three[2])
        assert (turn["taken"], turn["done"], turn["failed"], "missing" in turn) == (3, 3, 0, False)
        for talk in talks:
            batch = await talk.get("batch-update")
            sent = {one["id"]: one["scanCount"] for one in batch["updates"]["updates"]}
            assert sent == {"e0": 10, "e1": 11, "e2": 12}
        for server in three:
            stats = await three.stats(server)
            assert (stats["pendingUpdates"], stats["registeredUsers"]) == (0, 3) or await eventually(
                lambda server=server: _counted(three, server), "each counts the viewers of all"
            )


async def _counted(three: Group, server: Process) -> bool:
    stats = await three.stats(server)
    return (stats["pendingUpdates"], stats["registeredUsers"]) == (0, 3)


async def test_a_force_answers_when_every_servers_viewers_are_told_with_the_sums(three: Group) -> None:
    await three.put(three[0], *spread(2))
    async with AsyncExitStack() as ends:
        talks = await viewers(three, ends)
        before = [await three.stats(server) for server in three]
        for server in three:
            await three.count(server, "e1", delta={"scanCount": 1})
            answer = (await server.ask("POST", "/force-batch")).json
            assert answer["turn"]["done"] == 1
            for talk in talks:
                assert "e1" in {one["id"] for one in (await talk.get("batch-update"))["updates"]["updates"]}
        after = [await three.stats(server) for server in three]
        for old, new in zip(before, after, strict=True):
            assert new["totalUsersUpdated"] - old["totalUsersUpdated"] == 9
            assert new["batchesProcessed"] - old["batchesProcessed"] == 3
            assert new["totalEventsProcessed"] - old["totalEventsProcessed"] == 3
            assert sum(node["totalUsersUpdated"] for node in new["nodes"]) == new["totalUsersUpdated"]


async def test_a_setting_changed_at_one_server_holds_at_all(three: Group) -> None:
    for number, server in enumerate(three):
        await server.ask("PATCH", "/config", {"maxBatchSize": 50 + number})
        for other in three:
            await eventually(lambda other=other: _size(other, 50 + number), "the size is that of the last change")  # noqa: B023
    await three[1].ask("PATCH", "/config", {"maxBatchSize": 2})
    for server in three:
        await eventually(lambda server=server: _size(server, 2), "the size is two")
    await three.put(three[0], *spread(2))
    async with AsyncExitStack() as ends:
        talks = await viewers(three, ends)
        await three.count(three[0], "e0", scanCount=1)
        await three.count(three[1], "e1", scanCount=1)
        assert [(await talk.get("batch-update"))["summary"]["updatedEvents"] for talk in talks] == [2] * SERVERS
    await three[2].ask("DELETE", "/config/maxBatchSize")


async def _size(server: Process, size: int) -> bool:
    return bool((await server.ask("GET", "/config")).json["maxBatchSize"] == size)


async def test_batching_switched_off_at_one_is_off_at_all(three: Group) -> None:
    await three.put(three[0], *spread(1))
    async with AsyncExitStack() as ends:
        talks = await viewers(three, ends)
        await three.count(three[0], "e0", scanCount=5)
        await three[1].ask("PATCH", "/config", {"enableBatching": False})
        assert [(await talk.get("batch-update"))["summary"]["updatedEvents"] for talk in talks] == [1] * SERVERS
        for server in three:
            await eventually(lambda server=server: _off(server), "it is off")
        await three.count(three[2], "e0", scanCount=6)
        assert [(await talk.get("update-event"))["event"]["scanCount"] for talk in talks] == [6] * SERVERS
    await three[1].ask("DELETE", "/config/enableBatching")


async def _off(server: Process) -> bool:
    return (await server.ask("GET", "/config")).json["enableBatching"] is False


async def test_a_client_that_comes_back_at_another_server_gets_the_difference_to_what_it_holds(three: Group) -> None:
    await three.put(three[0], *spread(5))
    async with Client(three[0].ws_url, viewport=tuple(BERLIN.values()), jitter=lambda: 0.0) as client:
        assert len(client.events) == 5
        await three.put(three[1], {"id": "e1", "title": "Other"})
        client.url = three[2].ws_url
        await client._drop()
        await eventually(lambda: _same(three, client), "the client holds what is stored")
        assert client.registered["recovered"] is True
        assert (client.divergences, client.connections) == (0, 2)


async def _same(three: Group, client: Client) -> bool:
    """Read on; does it hold what is stored, versions and all?"""
    with suppress(TimeoutError):
        await client.next_change(0.05)
    servers = [one for one in three if one.popen is not None and one.popen.poll() is None]
    stored = (await servers[0].ask("GET", "/events?limit=1000")).json["events"]
    return {(e["id"], e["version"], e["title"], e["scanCount"]) for e in stored} == {
        (e["id"], e["version"], e["title"], e["scanCount"]) for e in client.events.values()
    }


async def test_two_servers_that_create_the_same_events_at_once_agree_on_each(three: Group) -> None:
    async with AsyncExitStack() as ends:
        clients = [
            await ends.enter_async_context(Client(one.ws_url, viewport=tuple(WORLD.values()), max_events=500))
            for one in three
        ]
        for round_ in range(5):
            events = spread(300)[round_ * 60 : round_ * 60 + 60]
            rows = [[{**one, "title": f"{n}"} for one in events] for n in range(SERVERS)]
            answers = await asyncio.gather(
                *(server.ask("POST", "/events", row) for server, row in zip(three, rows, strict=True))
            )
            assert [a.json["accepted"] for a in answers] == [60] * SERVERS
        for client in clients:
            await eventually(lambda client=client: _same(three, client), "all hold the same versions")
            assert client.divergences == 0


async def test_a_server_that_is_told_to_stop_leaves_the_batch_to_the_others(three: Group) -> None:
    await three.put(three[0], *spread(1))
    leader = await three.leader()
    others = [one for one in three if one is not leader]
    await three.count(leader, "e0", scanCount=3)
    for one in others:
        await eventually(lambda one=one: _pending(three, one, 1), "all know that it waits")
    leader.signal(signal.SIGTERM)
    assert await leader.ended() == 0
    following = await three.leader()
    assert following in others
    assert (await three.stats(following))["pendingUpdates"] == 1
    assert len((await three.stats(following))["nodes"]) == 2
    turn = await three.force(others[0])
    assert (turn["done"], "missing" in turn) == (1, False)


async def _pending(three: Group, server: Process, count: int) -> bool:
    return bool((await three.stats(server))["pendingUpdates"] == count)


class Pusher:
    """One producer at one server: numbered updates of one event, each with an updateId, many ahead of their answers."""

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id
        self.sent = 0
        self.acknowledged = 0

    def update(self, number: int) -> Message:
        return {"eventId": self.event_id, "delta": {"scanCount": 1}, "updateId": f"{self.event_id}:{number}"}

    async def push(self, talk: Talk, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set():
                for _ in range(20):
                    self.sent += 1
                    await talk.send("popularity-update", **self.update(self.sent - 1))
                for _ in range(20):
                    await talk.get("ack")
                    self.acknowledged += 1
        except (ConnectionClosed, OSError):
            return


@pytest.mark.parametrize("who", ["the leader", "another"])
async def test_kill_9_of_any_under_load_loses_nothing_acknowledged_and_the_rest_go_on(three: Group, who: str) -> None:
    dice = random.Random(6)
    names = [f"{who}-{number}" for number in range(6)]
    await three.put(three[0], *({**one, "id": name} for one, name in zip(spread(6), names, strict=True)))
    leader = await three.leader()
    victim = leader if who == "the leader" else dice.choice([one for one in three if one is not leader])
    survivors = [one for one in three if one is not victim]
    stop = asyncio.Event()
    async with AsyncExitStack() as ends:
        clients = []
        for one in three:
            client = Client(one.ws_url, viewport=tuple(WORLD.values()), jitter=lambda: 0.0)
            clients.append(await ends.enter_async_context(client))
        pushers = [Pusher(name) for name in names]
        running = [
            asyncio.ensure_future(one.push(await talk_to(three[n % SERVERS], ends), stop))
            for n, one in enumerate(pushers)
        ]
        await eventually(lambda: _all_push(pushers), "all push")
        forced = asyncio.ensure_future(victim.ask("POST", "/force-batch"))
        await asyncio.sleep(dice.random() * 0.05)
        await victim.kill()
        await asyncio.gather(forced, return_exceptions=True)
        for client, one in zip(clients, three, strict=True):
            client.url = survivors[0].ws_url if one is victim else client.url
        answer = await three.force(survivors[1])
        assert answer["failed"] == 0
        assert (await three.leader()) in survivors
        stop.set()
        await asyncio.gather(*running)
        assert "missing" not in await three.force(survivors[0])
        stored = {e["id"]: e["scanCount"] for e in (await survivors[1].ask("GET", "/events?limit=10")).json["events"]}
        for one in pushers:
            assert one.acknowledged <= stored[one.event_id] <= one.sent
        for one in pushers:
            rows = [one.update(number) for number in range(one.sent)]
            assert (await survivors[0].ask("POST", "/popularity", rows, role="producer")).json["rejected"] == []
        assert "missing" not in await three.force(survivors[1])
        stored = {e["id"]: e["scanCount"] for e in (await survivors[1].ask("GET", "/events?limit=10")).json["events"]}
        assert stored == {one.event_id: one.sent for one in pushers}, "sent again to another server each counts once"
        for client in clients:
            await eventually(lambda client=client: _same(three, client), "every client holds what is stored")
            assert client.divergences == 0
        for one in survivors:
            assert len((await three.stats(one))["nodes"]) == 2


async def _all_push(pushers: Sequence[Pusher]) -> bool:
    return all(one.acknowledged >= 100 for one in pushers)
