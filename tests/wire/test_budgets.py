"""Budgets over a real socket: what `register` asks for is kept to, and `/stats` says what it saved."""

from __future__ import annotations

import asyncio

import orjson

from tests.serving import BERLIN, CHANGES, LIMIT_S, Live, Start, Talk, event, spread, until


async def measured(place: Live, **registration: object) -> tuple[Talk, list[int]]:
    """A viewer with this budget; and how many bytes each change message to it has."""
    talk, sizes, read = await place.talk(), list[int](), 0

    async def receive() -> dict[str, object]:
        nonlocal read
        text = await talk.socket.recv(decode=False)
        message: dict[str, object] = orjson.loads(text)
        if message["type"] in CHANGES:
            sizes.append(len(text))
            assert talk.view.apply(message).matches
        return message

    talk._read = receive  # type: ignore[method-assign]  # the test's own reader, which weighs
    assert (await talk.ask("register", viewport=BERLIN, maxEvents=500, **registration))["type"] == "registered"
    await talk.get("replace-all")
    return talk, sizes


async def until_all(talk: Talk, count: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while len(talk.view.events) < count:
            await talk._read()


async def test_every_message_stays_within_its_bytes_until_all_is_there(place: Live) -> None:
    await place.put(*spread(40, description="ü" * 100))
    talk, sizes = await measured(place, maxBytesPerBatch=8192, reasons=True)
    first = len(talk.view.events)
    while len(talk.view.events) < 40:
        await talk.get("changes")
    assert (await place.stats())["savings"]["maxBytes"]["eventsCarried"] == 40 - first
    assert max(sizes) <= 8192 < sum(sizes)
    assert max(sizes) > 7000, "and it is made use of"
    answer = await talk.ask("viewport-update", viewport={**BERLIN, "east": 13.5})
    assert (answer["type"], sizes[-1] <= 8192) == ("changes", True)


async def test_a_second_registration_changes_the_budget(place: Live) -> None:
    await place.put(*spread(40))
    talk, sizes = await measured(place, maxBytesPerBatch=1024)
    await talk.ask("register", viewport=BERLIN, maxEvents=500)
    await until_all(talk, 40)
    assert sizes[-1] > 10_000


async def test_a_second_registration_ends_the_rest_of_the_first(place: Live) -> None:
    await place.put(*spread(3))
    talk = await place.watching(minIntervalMs=86_400_000)
    await talk.ask("register", viewport=BERLIN)
    await talk.get("replace-all")
    await place.put(event("new"))
    await talk.get("add-event")
    assert not place.app.feed.desk.pacing._entry


async def test_a_flush_counts_who_rests_as_deferred_and_one_message_follows(start: Start) -> None:
    place = await start()
    await place.put(*spread(3))
    resting, other = await place.watching(minIntervalMs=1500), await place.watching()
    await place.count("e0", rsvpCount=3)
    assert (await place.force())["deferred"] == 1
    await other.get("batch-update")
    await place.put(event("new"))
    await other.settled()
    assert not resting.unread
    batch = await resting.get("batch-update")
    assert [e["id"] for e in batch["updates"]["creates"]] == ["new"]
    assert "e0" in [e["id"] for e in batch["updates"]["updates"]]
    assert resting.view.digest == other.view.digest
    # One at least: the three events may still have been on their way to a viewer who rested already.
    assert (await place.stats())["savings"]["minInterval"]["messagesMerged"] >= 1


async def test_what_the_viewer_asks_for_does_not_wait(place: Live) -> None:
    await place.put(*spread(3))
    resting = await place.watching(minIntervalMs=86_400_000)
    for number in range(5):
        answer = await resting.ask("viewport-update", viewport={**BERLIN, "west": 13.0 + number / 1000})
        assert answer["type"] == "changes"
    assert (await resting.ask("resync"))["type"] == "replace-all"


async def test_a_viewer_that_rests_leaves_nothing_behind(place: Live) -> None:
    await place.put(*spread(3))
    for _ in range(3):
        resting = await place.watching(minIntervalMs=86_400_000)
        await place.count("e0", delta={"scanCount": 1})
        await place.force()
        await resting.socket.close()
        await until(lambda: not len(place.app.feed.desk.audience), "it has gone")
    pacing = place.app.feed.desk.pacing
    assert (pacing._meant, pacing._entry) == ({}, {})


async def test_statistics_and_metrics_say_what_was_saved(place: Live) -> None:
    await place.put(*spread(10, description="x" * 500))
    full, brief = await place.watching(), await place.watching(fields="delta")
    await place.count("e0", rsvpCount=3)
    await place.force()
    messages = [await full.get("batch-update"), await brief.get("batch-update")]
    sizes = [len(orjson.dumps(message)) for message in messages]
    savings = (await place.stats())["savings"]
    assert savings["delta"]["bytes"] == sizes[0] - sizes[1] > 500
    assert full.view.events == brief.view.events
    text = (await place.ask("GET", "/metrics")).body.decode()
    assert f'batchcast_saved_total{{what="delta_bytes"}} {float(savings["delta"]["bytes"])}' in text
    await asyncio.gather(full.socket.close(), brief.socket.close())
