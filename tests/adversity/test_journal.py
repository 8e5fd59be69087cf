"""kill -9 while a journal is being written: what stands in the file is whole, and replays to the byte."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from server.batching.scores.journal.reader import opened
from tests.adversity.test_durability import Pusher, die, talk_to
from tests.batching.scores.journal.recording import files, verified
from tests.serving import BERLIN, Process, Talk, spread, until


async def looking(server: Process, ends: AsyncExitStack) -> Talk:
    talk = Talk(await ends.enter_async_context(connect(server.ws_url, compression=None, close_timeout=1)))
    await talk.ask("register", viewport=BERLIN)
    return talk


async def read_all(talk: Talk) -> None:
    try:
        while True:
            await talk._read()
    except (ConnectionClosed, OSError):
        return


def biggest(folder: Path) -> int:
    return max((path.stat().st_size for path in files(folder)), default=0)


async def test_after_kill_9_the_journal_is_whole_up_to_its_end_and_the_next_one_begins(own_process: Process) -> None:
    server, folder = own_process, own_process.data_dir / "journal"
    server.environ |= {"JOURNAL": "true", "PRODUCER_MESSAGES_PER_S": "1000000", "BATCH_INTERVAL_MS": "100"}
    server.environ["MIN_FLUSH_GAP_MS"] = "0"
    await server.start()
    async with AsyncExitStack() as ends:
        await server.ask("POST", "/events", spread(40))
        talks = [await looking(server, ends) for _ in range(5)]
        reading = [asyncio.ensure_future(read_all(talk)) for talk in talks]
        pushers = [Pusher(f"e{n}") for n in range(4)]
        pushing = [asyncio.ensure_future(one.push(await talk_to(server, ends, sub="paul"))) for one in pushers]
        await until(lambda: biggest(folder) > 20_000, "the journal grows")
        await die(server, postgres_too=True)
        await asyncio.gather(*pushing, *reading)
    (path,) = files(folder)
    report = verified(path)
    assert report.ended is None
    assert report.frames > 20
    assert report.frames <= sum(talk.view.seq for talk in talks)
    await server.start()
    await until(lambda: len(files(folder)) == 2, "another journal has begun")
    with opened(files(folder)[1]) as found:
        assert found.header.events == 40
