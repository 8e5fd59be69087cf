"""kill -9 of the whole server: what was acknowledged is there afterwards, what was not published is pending again."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.serving import BERLIN, Message, Process, Talk, event, spread, until

EVENTS = 4
AHEAD = 64
"""Updates that a producer sends before it waits for acknowledgements."""


async def talk_to(server: Process, ends: AsyncExitStack, role: str = "producer", sub: str | None = None) -> Talk:
    talk = Talk(await ends.enter_async_context(connect(server.ws_url, compression=None, close_timeout=1)))
    await talk.ask("authenticate", token=server.token(role, sub))
    return talk


async def die(server: Process, *, postgres_too: bool) -> None:
    """kill -9 the server, and PostgreSQL at the same moment or not at all."""
    postmaster = server.postmaster()
    server.signal(signal.SIGKILL)
    if postgres_too:
        os.kill(postmaster, signal.SIGKILL)
    await server.ended()
    await until(lambda: server.postgres() == [], "no PostgreSQL is left behind")


class Pusher:
    """One producer: numbered updates of one event, each with an updateId, many ahead of their acknowledgements."""

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id
        self.sent: list[Message] = []
        self.acknowledged: dict[str, Message] = {}
        self.room = asyncio.Semaphore(AHEAD)

    async def push(self, talk: Talk) -> None:
        sending = asyncio.ensure_future(self._send(talk))
        try:
            while True:
                answer = await talk.get("ack")
                self.acknowledged[answer["ref"]] = answer
                self.room.release()
        except (ConnectionClosed, OSError):
            sending.cancel()
            await asyncio.wait({sending})

    async def _send(self, talk: Talk) -> None:
        try:
            while True:
                name = f"{self.event_id}:{len(self.sent)}"
                self.sent.append({"eventId": self.event_id, "delta": {"scanCount": 1}, "updateId": name})
                await talk.send("popularity-update", ref=name, **self.sent[-1])
                await self.room.acquire()
        except (ConnectionClosed, OSError):
            return

    async def repeat_all(self, talk: Talk) -> None:
        """Send every update again; those acknowledged before get the same acknowledgement."""
        for start in range(0, len(self.sent), 500):
            part = self.sent[start : start + 500]
            await talk.say([{"type": "popularity-update", "ref": one["updateId"], **one} for one in part])
            for _ in part:
                answer = await talk.get("ack")
                before = self.acknowledged.get(answer["ref"])
                assert before in (None, answer), f"{before} became {answer}"


@pytest.mark.parametrize("postgres_too", [False, True], ids=["the server alone", "and PostgreSQL with it"])
async def test_after_kill_9_all_that_was_acknowledged_is_there(own_process: Process, postgres_too: bool) -> None:
    server = own_process
    server.environ["PRODUCER_MESSAGES_PER_S"] = "1000000"
    await server.start()
    async with AsyncExitStack() as ends:
        await server.ask("POST", "/events", spread(EVENTS))
        pushers = [Pusher(f"e{n}") for n in range(EVENTS)]
        running = [asyncio.ensure_future(one.push(await talk_to(server, ends, sub="paul"))) for one in pushers]
        creator = await talk_to(server, ends)
        created = await create_some(creator, 20)
        await until(lambda: all(len(one.acknowledged) > 100 for one in pushers), "all push")
        await die(server, postgres_too=postgres_too)
        await asyncio.gather(*running)
    await server.start()
    await check(server, pushers, created)


async def create_some(talk: Talk, count: int) -> dict[str, int]:
    """Version of each event that was acknowledged."""
    answers = [await talk.ask("event-upsert", event=event(f"new{n}", title=f"New {n}")) for n in range(count)]
    await talk.ask("event-delete", id="new0")
    return {answer["id"]: answer["version"] for answer in answers if answer["id"] != "new0"}


async def check(server: Process, pushers: Sequence[Pusher], created: dict[str, int]) -> None:
    stored = {one["id"]: one for one in (await server.ask("GET", "/events?limit=1000")).json["events"]}
    assert set(stored) == {*created, *(one.event_id for one in pushers)}
    assert {event_id: stored[event_id]["version"] for event_id in created} == created
    for one in pushers:
        assert len(one.acknowledged) <= stored[one.event_id]["scanCount"] <= len(one.sent)
    assert (await server.ask("GET", "/stats")).json["pendingUpdates"] == EVENTS
    async with AsyncExitStack() as ends:
        viewer = await talk_to(server, ends, "viewer")
        await viewer.ask("register", viewport=BERLIN)
        await viewer.get("replace-all")
        assert {viewer.view.events[one.event_id]["scanCount"] for one in pushers} == {0}
        await server.ask("POST", "/force-batch")
        batch = await viewer.get("batch-update")
        sent = {one["id"]: one["scanCount"] for one in batch["updates"]["updates"]}
        assert {one.event_id: stored[one.event_id]["scanCount"] for one in pushers}.items() <= sent.items()
        for one in pushers:
            await one.repeat_all(await talk_to(server, ends, sub="paul"))
        stored = {one["id"]: one for one in (await server.ask("GET", "/events?limit=1000")).json["events"]}
        assert {one.event_id: stored[one.event_id]["scanCount"] for one in pushers} == {
            one.event_id: len(one.sent) for one in pushers
        }


async def test_the_configuration_an_admin_chose_and_the_keys_survive_kill_9(own_process: Process) -> None:
    server = own_process
    await server.start()
    await server.ask("PATCH", "/config", {"maxBatchSize": 7})
    token = (server.data_dir / "admin.token").read_text()
    await die(server, postgres_too=True)
    await server.start()
    assert (await server.ask("GET", "/config")).json["maxBatchSize"] == 7
    assert (server.data_dir / "admin.token").read_text() == token
    server.signal(signal.SIGTERM)
    assert await server.ended() == 0
    assert server.postgres() == []
