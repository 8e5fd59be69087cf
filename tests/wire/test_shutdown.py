"""SIGTERM to a real process: the last batch is delivered, clients are told when to come back, nothing acknowledged is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import orjson
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.serving import BERLIN, Process, Start, Talk, deaf_socket, event, process, spread, until


@pytest_asyncio.fixture
async def server(dsn: str) -> AsyncIterator[Process]:
    """A process over this test's database."""
    with process(DATABASE_URL=dsn) as made:
        await made.start()
        yield made


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def talk_to(server: Process, ends: AsyncExitStack, role: str | None = None, **options: Any) -> Talk:
    socket = await ends.enter_async_context(
        connect(server.ws_url, compression=None, max_size=None, close_timeout=1, ping_interval=None, **options)
    )
    talk = Talk(socket)
    if role is not None:
        await talk.ask("authenticate", token=server.token(role))
    return talk


async def watch(server: Process, ends: AsyncExitStack, **registration: Any) -> Talk:
    talk = await talk_to(server, ends)
    await talk.ask("register", viewport=BERLIN, **registration)
    await talk.get("replace-all")
    return talk


async def test_sigterm_delivers_the_last_batch_says_when_to_come_back_and_exits_0(
    server: Process, ends: AsyncExitStack, dsn: str
) -> None:
    await server.ask("POST", "/events", spread(3))
    viewers = [await watch(server, ends) for _ in range(3)]
    await server.ask("POST", "/popularity", [{"eventId": "e0", "scanCount": 5}, {"eventId": "e1", "rsvpCount": 2}])
    server.signal(signal.SIGTERM)
    for viewer in viewers:
        code, reason = await viewer.closed()
        batch = await viewer.get("batch-update")
        assert {"e0", "e1"} <= {e["id"] for e in batch["updates"]["updates"]}
        assert code == 1012
        assert set(orjson.loads(reason)) == {"retryAfterMs"}
        assert 0 <= orjson.loads(reason)["retryAfterMs"] <= 5000
    assert await server.ended() == 0
    assert await pending_in(dsn) == []
    assert server.said("server stopped")


async def pending_in(dsn: str) -> list[str]:
    """The events whose stored counters differ from the published ones."""
    connection = await asyncpg.connect(dsn)
    try:
        sql = "select event_id from feed.counters where (scan, save, rsvp) <> (pub_scan, pub_save, pub_rsvp) order by 1"
        return [row[0] for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def test_sigint_is_the_same(server: Process, ends: AsyncExitStack) -> None:
    viewer = await watch(server, ends)
    server.signal(signal.SIGINT)
    assert (await viewer.closed())[0] == 1012
    assert await server.ended() == 0


async def test_whatever_was_acknowledged_until_the_end_is_stored(
    server: Process, ends: AsyncExitStack, dsn: str
) -> None:
    await server.ask("POST", "/events", spread(4))
    producers = [asyncio.ensure_future(push(await talk_to(server, ends, "producer"), f"e{n}")) for n in range(4)]
    await until(lambda: min(ACKS.get(f"e{n}", 0) for n in range(4)) > 50, "all push")
    server.signal(signal.SIGTERM)
    await asyncio.gather(*producers)
    assert await server.ended() == 0
    connection = await asyncpg.connect(dsn)
    stored = {r["event_id"]: r["scan"] for r in await connection.fetch("select event_id, scan from feed.counters")}
    await connection.close()
    for event_id, acknowledged in ACKS.items():
        assert stored[event_id] >= acknowledged, f"{event_id} lost an acknowledged update"


ACKS: dict[str, int] = {}


async def push(talk: Talk, event_id: str) -> None:
    """Count up until the connection ends, noting the last number that was acknowledged."""
    ACKS.pop(event_id, None)
    try:
        for number in range(1, 1_000_000):
            answer = await talk.ask("popularity-update", eventId=event_id, scanCount=number)
            if answer["type"] == "ack":
                ACKS[event_id] = number
            else:
                assert answer["code"] == "shutting_down", answer
    except ConnectionClosed as gone:
        assert gone.rcvd is not None
        assert gone.rcvd.code == 1012


async def test_a_client_that_does_not_read_holds_nobody_up_for_long(dsn: str, ends: AsyncExitStack) -> None:
    with process(DATABASE_URL=dsn, SHUTDOWN_TIMEOUT_MS=500) as server:
        await server.start()
        await server.ask("POST", "/events", spread(300, description="x" * 9000))
        deaf = await talk_to(server, ends, sock=deaf_socket(int(server.ports["WS_PORT"])))
        deaf.socket.transport.pause_reading()
        await deaf.send("register", viewport=BERLIN, maxEvents=500)
        good = await watch(server, ends, filters=[{"text": "e0"}])
        await server.ask("POST", "/popularity", [{"eventId": "e0", "scanCount": 5}])
        server.signal(signal.SIGTERM)
        assert (await good.closed())[0] == 1012
        assert good.unread[-1]["type"] == "batch-update"
        assert await server.ended() == 0
        assert await pending_in(dsn) == []


async def test_while_it_goes_away_nothing_new_is_begun(start: Start) -> None:
    place = await start(SHUTDOWN_TIMEOUT_MS=20_000)
    await place.put(*spread(300, description="x" * 9000))
    deaf = await place.deaf()
    await deaf.send("register", viewport=BERLIN, maxEvents=500)
    talk = await place.watching("admin", maxEvents=1)
    url = place.app.ws_url
    stopping = asyncio.ensure_future(place.app.stop())
    while (await talk.ask("get-stats"))["type"] != "error":
        assert not stopping.done()
    for kind, fields in (
        ("get-stats", {}),
        ("register", {"viewport": BERLIN}),
        ("event-upsert", {"event": event("new")}),
    ):
        answer = await talk.ask(kind, **fields)
        assert (answer["code"], answer["retry"]) == ("shutting_down", True)
    assert (await talk.ask("ping"))["type"] == "pong"
    with pytest.raises(OSError):
        await place.talk(url=url)
    deaf.socket.transport.abort()
    assert (await talk.closed())[0] == 1012
    await stopping


async def test_a_new_server_over_the_same_data_knows_it_all_and_flushes_nothing_by_itself(start: Start) -> None:
    first = await start()
    await first.put(*spread(3))
    await first.count("e0", scanCount=5)
    await first.app.stop()
    second = await start()
    talk = await second.watching()
    assert sorted(talk.view.events) == ["e0", "e1", "e2"]
    assert talk.view.events["e0"]["scanCount"] == 5
    assert [(await second.stats())[name] for name in ("batchesProcessed", "pendingUpdates", "lastBatchTime")] == [
        0,
        0,
        0,
    ]
