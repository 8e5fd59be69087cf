"""A real server that keeps a journal, with sockets, threads and PostgreSQL: each of its files replays to the byte."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from server.batching.scores.journal import journal
from server.batching.scores.journal.histories import history_of
from server.batching.scores.journal.policy import Policy
from server.batching.scores.journal.reader import opened
from server.batching.scores.journal.records import Flushed, Header, Tuned
from server.batching.scores.journal.replay import replayed
from server.batching.scores.journal.simulate import simulated
from tests.batching.scores.journal.recording import files, verified
from tests.serving import BERLIN, Live, Start, Talk, event, spread

SOUTH = {**BERLIN, "north": 52.3}
EAST = {**BERLIN, "west": 13.4}


async def restless(talk: Talk, seed: int) -> None:
    """A viewer that pans, filters, resyncs with what it holds, and comes anew."""
    dice = random.Random(seed)
    for number in range(12):
        kind = dice.randrange(5)
        if kind == 0:
            await talk.ask("filters-update", filters=[] if number % 2 else [{"text": "even"}])
        elif kind == 1:
            held = [[one["id"], one["version"]] for one in talk.view.events.values()]
            await talk.ask("resync", held=[*held[:5], [f"stranger{seed}", 1]])
        elif kind == 2:
            await talk.ask("register", viewport=BERLIN, reasons=bool(number % 2), maxEvents=dice.choice([5, 50]))
        else:
            await talk.ask("viewport-update", viewport=dice.choice([BERLIN, SOUTH, EAST]))


async def busy(place: Live, seed: int) -> None:
    """Producers and the batch, meanwhile."""
    dice = random.Random(seed)
    for number in range(40):
        event_id = f"e{dice.randrange(120)}"
        kind = dice.randrange(6)
        if kind == 0:
            await place.put(event(f"n{seed}-{number}", title="even" if number % 2 else "odd"))
        elif kind == 1:
            await place.put(
                {"id": event_id, "title": f"even {number}", "isPrivate": number % 3 == 0, "creatorId": "ann"}
            )
        elif kind == 2:
            await place.ask("DELETE", f"/events/n{seed}-{number - 1}")
        elif kind == 3:
            await place.count(f"e{number % 20}", delta={"rsvpCount": 1}, priority="high")
        else:
            await place.count(f"e{number % 20}", delta={"scanCount": number})
        if number % 10 == 9:
            await place.force()


async def crowd(place: Live) -> list[Talk]:
    await place.put(*spread(120, title="even"), event("often", recurrence="FREQ=DAILY;COUNT=5"))
    talks = [await place.watching(sub="ann" if n % 3 == 0 else None, role=None) for n in range(8)]
    await asyncio.gather(busy(place, 1), busy(place, 2), *(restless(talk, n) for n, talk in enumerate(talks)))
    gone = talks.pop()
    await gone.ask("unregister")
    await place.force()
    for talk in talks:
        await talk.settled()
    return [*talks, gone]


async def test_all_that_a_server_sent_replays_to_the_byte(start: Start, tmp_path: Path) -> None:
    place = await start(JOURNAL="true", IMMEDIATE_GROUP_MS=0, URGENT_GAP_MS=50)
    talks = await crowd(place)
    stats = await place.stats()
    assert stats["journal"]["recording"] is True
    await place.app.stop()
    (path,) = files(tmp_path / "data" / "journal")
    report = verified(path)
    assert report.viewers == len(talks)
    with opened(path) as found:
        flushed = [record for record in found.records() if isinstance(record, Flushed)]
        last = sum(one.frames for one in flushed if one.trigger == "shutdown")  # Nobody has read these.
        assert report.frames == sum(talk.view.seq for talk in talks) + last
        assert 1 <= [one.trigger for one in flushed].count("forced") <= 9  # Who asks at the same time shares one.
        assert sum(one.frames for one in flushed) == stats["totalUsersUpdated"] + last
        history = history_of(found)
        often = simulated(history, Policy("often", interval_ms=100))
        rare = simulated(history, Policy.of("as recorded", found.header.tuned))
    assert often.viewers >= len(talks)
    assert often.moved == rare.moved > 20
    assert often.flushes > rare.flushes
    assert often.wait_mean_ms <= rare.wait_mean_ms


async def test_files_that_follow_each_other_while_the_server_works_verify_alone(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MIB", 4096)
    monkeypatch.setattr(journal, "EVERY_MS", 100)
    place = await start(JOURNAL="true", JOURNAL_FILE_MB=1, IMMEDIATE_GROUP_MS=0)
    talks = await crowd(place)
    await place.app.stop()
    found = files(tmp_path / "data" / "journal")
    assert len(found) >= 3
    frames = sum(verified(path).frames for path in found)
    # What was drawn for one file and handed over in the next is in neither; the last batch has nobody read.
    sent = sum(talk.view.seq for talk in talks)
    assert 0.8 * sent < frames <= sent + len(talks)
    headers: list[Header] = []
    for path in found:
        with opened(path) as one:
            headers.append(one.header)
    assert [one.number for one in headers] == list(range(1, len(found) + 1))
    assert max(len(one.watching) for one in headers) == len(talks)


async def test_other_settings_at_run_time_are_in_the_journal(start: Start, tmp_path: Path) -> None:
    place = await start(JOURNAL="true")
    await place.ask("PATCH", "/config", json={"batchIntervalMs": 7000})
    await place.ask("PATCH", "/config", json={"enableBatching": False})
    await place.app.stop()
    (path,) = files(tmp_path / "data" / "journal")
    with opened(path) as found:
        tuned = [(one.interval_ms, one.enabled) for one in found.records() if isinstance(one, Tuned)]
        report = replayed(found)
    assert [(7000, True) in tuned, tuned[-1][1]] == [True, False]
    assert report.ended == "the server stopped"
