"""A feed that keeps a journal: files that begin and end, what is kept, and what happens when it can't be written."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from server.batching.ledger import Records
from server.batching.loop import TurnRecord
from server.batching.scores.journal import checkpoint, encoding, figures, files, journal, recorder
from server.batching.scores.journal.blocks import Kind
from server.batching.scores.journal.codec import header_row
from server.batching.scores.journal.files import Folder, Full, Written
from server.batching.scores.journal.histories import history_of
from server.batching.scores.journal.policy import Policy
from server.batching.scores.journal.reader import opened
from server.batching.scores.journal.records import Counted, Drew, Ended, Flushed, Handed, Left, Patched, Tuned
from server.batching.scores.journal.replay import replayed
from server.batching.scores.journal.simulate import simulated
from server.edge.postgres import Database
from server.errors import StartRefused
from server.settings import load
from tests.batching.scores.journal.recording import WORLD, recorded, row, story, verified, write
from tests.batching.scores.journal.recording import files as files_of
from tests.batching.scores.world import HOUR, START, trial


async def test_what_happened_is_recorded_and_replays_to_the_byte(db: Database, tmp_path: Path) -> None:
    async with recorded(db, tmp_path) as one:
        await story(one)
        one.feed.leave(one.clients[0].viewer)  # type: ignore[arg-type]
        frames = len(one.clients[0].frames)
    (path,) = files_of(tmp_path)
    report = verified(path)
    assert (report.frames, report.viewers) == (frames, 1)
    assert report.ended == "the server stopped"
    assert report.bytes > 0
    with opened(path) as found:
        kinds = {type(record) for record in found.records()}
    assert kinds >= {Drew, Handed, Patched, Counted, Left, Ended}


async def test_off_nothing_is_noted_and_nothing_written(db: Database, tmp_path: Path) -> None:
    async with trial(db, journal_dir=tmp_path / "journal") as one:
        await story(one)
        assert (one.feed.journal, one.feed.desk.recorder, one.feed._engine.witness) == (None, None, None)
        assert (await one.feed.stats())["journal"] is None
    assert files_of(tmp_path / "journal") == []


async def test_statistics_say_what_is_recorded(db: Database, tmp_path: Path) -> None:
    async with recorded(db, tmp_path) as one:
        await story(one)
        await write(one)
        said = (await one.feed.stats())["journal"]
        assert isinstance(said, dict)
        (path,) = files_of(tmp_path)
        assert (said["recording"], said["file"], said["stopped"]) == (True, path.name, None)
        assert said["bytes"] == path.stat().st_size
        assert said["frames"] == len(one.clients[0].frames)


async def test_files_are_for_their_owner_alone_and_hold_no_session(db: Database, tmp_path: Path) -> None:
    async with recorded(db, tmp_path / "journal") as one:
        await story(one)
        session = one.clients[0].viewer.session  # type: ignore[union-attr]
    (path,) = files_of(tmp_path / "journal")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with opened(path) as found:
        told = [str(header_row(found.header)), *(str(record) for record in found.records())]
    assert session == "s0"
    assert not [text for text in told if "'s0'" in text]


async def test_a_file_that_is_large_enough_is_followed_by_another_and_each_is_whole(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MIB", 256)
    async with recorded(db, tmp_path, journal_file_mb=1, journal_keep_mb=10_000) as one:
        for name in "abcd":
            await story(one, name, ord(name) % 2)
            await write(one)
        frames = sum(len(client.frames) for client in one.clients.values())
    found = files_of(tmp_path)
    assert len(found) >= 3
    reports = [verified(path) for path in found]
    assert sum(report.frames for report in reports) == frames
    assert [report.ended for report in reports[:-1]] == ["another file goes on"] * (len(found) - 1)


async def test_a_file_that_is_old_enough_ends_but_only_when_something_is_in_it(db: Database, tmp_path: Path) -> None:
    async with recorded(db, tmp_path, journal_file_minutes=1) as one:
        for _ in range(3):
            await one.clock.advance(61)
            await write(one)
        assert len(files_of(tmp_path)) == 1
        await story(one)
        await write(one)
        await one.clock.advance(61)
        await write(one)
    assert len(files_of(tmp_path)) >= 2
    assert [verified(path).difference for path in files_of(tmp_path)] == [None] * len(files_of(tmp_path))


async def test_the_oldest_files_go_when_all_together_are_too_large(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MIB", 1024)
    (tmp_path / "notes.txt").write_text("not ours")
    async with recorded(db, tmp_path, journal_file_mb=1, journal_keep_mb=6) as one:
        for name in "abcdefgh":
            await story(one, name)
            await write(one)
            assert sum(path.stat().st_size for path in files_of(tmp_path)) <= 6 * 1024
        begun = one.feed.journal._files  # type: ignore[union-attr]
    assert 1 < len(files_of(tmp_path)) < begun
    assert [verified(path).difference for path in files_of(tmp_path)] == [None] * len(files_of(tmp_path))
    assert (tmp_path / "notes.txt").exists()


async def test_when_more_happens_than_fits_the_queue_the_journal_stops_and_begins_anew(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder.Recorder.__init__, "__defaults__", (20, 1 << 20))
    async with recorded(db, tmp_path) as one:
        for name in "abcdef":
            await story(one, name)
        assert one.feed.desk.recorder is not None and one.feed.desk.recorder.overrun
        await write(one)
        assert one.feed.desk.recorder is None and one.feed._engine.witness is None
        assert "ran over" in str((await one.feed.stats())["journal"])
        await story(one, "g")
        await one.clock.advance(journal.REST_MS / 1000 + 1)
        await write(one)
        assert "ran over" not in str((await one.feed.stats())["journal"])
        await one.upsert(row("h1", start=one.clock.now_ms() + HOUR))
        await write(one)
    *_, last = files_of(tmp_path)
    assert verified(last).frames == 1


@pytest.mark.parametrize("where", ["the first block", "a later block"])
async def test_a_disk_that_fails_ends_the_recording_and_nothing_else(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    real, left = os.write, 0 if where == "the first block" else 2

    def failing(fd: int, data: bytes) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            real(fd, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(files.os, "write", failing)
    async with recorded(db, tmp_path) as one:
        await story(one)
        await write(one)
        said = (await one.feed.stats())["journal"]
        assert "No space left" in str(said)
        assert one.feed._engine.witness is None
        await story(one, "b")  # The feed goes on.
        monkeypatch.setattr(files.os, "write", real)
        await one.clock.advance(journal.REST_MS / 1000 + 1)
        await write(one)
        await story(one, "c")
        await write(one)
    assert [verified(path).difference for path in files_of(tmp_path)] == [None] * len(files_of(tmp_path))


async def test_a_bound_too_small_for_the_checkpoint_is_told_with_numbers(db: Database, tmp_path: Path) -> None:
    folder = Folder(tmp_path, 100)
    written = Written(folder, START)
    with pytest.raises(Full, match=r"more than all journals together may \(100\); raise JOURNAL_KEEP_MB"):
        written.write(Kind.WORLD, os.urandom(500))
    written.close()


async def test_an_alert_stands_while_the_journal_is_wanted_and_stopped() -> None:
    (rule,) = figures.RULES

    def told(**detail: Any) -> str | None:
        records: Records = {"journal": [TurnRecord("journal", 1, "interval", START, 0.0, detail=detail)]}
        return rule.test(records, START)

    assert rule.test({}, START) is None
    assert told(stopped="") is None
    assert told(stopped="the disk is full") == "the journal does not record: the disk is full"


async def test_two_moments_of_one_name_get_two_files(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 1 << 20)
    first, second = Written(folder, START), Written(folder, START)
    assert first.path != second.path
    assert [one.path for one in folder.files()] == sorted([first.path, second.path])
    first.close(), second.close()


async def test_a_journal_is_the_input_of_a_simulation(db: Database, tmp_path: Path) -> None:
    async with recorded(db, tmp_path) as one:
        await story(one)
        await story(one, "b", 1)
        await one.count({"eventId": "b2", "saveCount": 1})
        await one.clock.advance(600)
        await one.flush()
    (path,) = files_of(tmp_path)
    with opened(path) as found:
        history = history_of(found)
        assert [type(record) for record in found.records()].count(Flushed) == 0
        outcomes = [
            simulated(history, Policy(str(ms), interval_ms=ms, urgent=urgent))
            for ms, urgent in ((60_000, True), (900_000, True), (900_000, False))
        ]
    minute, quarter, patient = outcomes
    assert minute.viewers == quarter.viewers == 2
    assert minute.flushes > 10 * quarter.flushes
    assert minute.age_mean_ms < quarter.age_mean_ms < patient.age_mean_ms
    assert quarter.urgent >= 1 and patient.urgent == 0


async def test_what_was_pending_when_the_file_began_is_pending_in_a_simulation(db: Database, tmp_path: Path) -> None:
    async with trial(db, journal=True, journal_dir=tmp_path) as one:
        await one.upsert(row("a1"))
        await one.count({"eventId": "a1", "rsvpCount": 2})
        await one.feed.journal._stop("tried")  # type: ignore[union-attr]
        await one.clock.advance(journal.REST_MS / 1000)
        await write(one)
        await one.clock.advance(5)
        await one.flush()
        await one.feed.close()
    *_, path = files_of(tmp_path)
    with opened(path) as found:
        assert found.header.pending == ("a1",)
        outcome = simulated(history_of(found), Policy("soon", interval_ms=1000))
    assert (outcome.moved, outcome.published) == (1, 1)


async def test_run_time_settings_are_recorded(db: Database, tmp_path: Path) -> None:
    async with recorded(db, tmp_path) as one:
        one.feed._adopt("batchIntervalMs", 5000, "runtime")
        one.feed._apply_tunables()
    (path,) = files_of(tmp_path)
    with opened(path) as found:
        tuned = [record for record in found.records() if isinstance(record, Tuned)]
    assert [one.interval_ms for one in tuned] == [5000]


async def test_questions_without_number_are_known_by_numbers_that_are_used_again(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "QUESTIONS_MOST", 2)
    async with recorded(db, tmp_path) as one:
        for name in "abc":
            await story(one, name, ord(name) % 2)
        for west in range(8):
            await one.ask(one.clients[west % 2], viewport={**WORLD["viewport"], "west": west})
        await one.flush()
    (path,) = files_of(tmp_path)
    with opened(path) as found:
        asked = {look.question for record in found.records() if isinstance(record, Drew) for look in record.looks}
    assert len(asked) > 8
    assert verified(path).frames == sum(len(client.frames) for client in one.clients.values())


async def test_a_replay_may_end_at_a_moment(db: Database, tmp_path: Path) -> None:
    async with recorded(db, tmp_path) as one:
        await story(one)
    (path,) = files_of(tmp_path)
    with opened(path) as found:
        part = replayed(found, verify=True, to_ms=START + 60_000)
        whole = replayed(found, verify=True)
    assert 0 < part.frames < whole.frames
    assert part.until_ms <= START + 60_000


async def test_an_end_that_comes_before_the_checkpoint_leaves_no_file_behind(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "PAGE_EVENTS", 1)
    async with trial(db, journal=True, journal_dir=tmp_path) as one:
        await story(one)
        kept = one.feed.journal
        assert kept is not None
        await write(one)
        await kept._stop("tried")
        await one.clock.advance(journal.REST_MS / 1000)
        await kept.turn(one.occasion())
        assert kept._writing is not None and kept._writing.pages is not None
        assert len(files_of(tmp_path)) == 2
        await kept._stop("tried")
    (path,) = files_of(tmp_path)
    assert verified(path).ended == "tried"


def test_settings_that_do_not_go_together_stop_the_start() -> None:
    with pytest.raises(StartRefused, match="JOURNAL_FILE_MB=9 is more than JOURNAL_KEEP_MB=8"):
        load({"JOURNAL_FILE_MB": "9", "JOURNAL_KEEP_MB": "8"})
    assert load({"JOURNAL_STREAM": "8:12345"}).journal is False


async def test_what_a_look_from_a_later_moment_has_turned_is_turned_in_a_replay(db: Database, tmp_path: Path) -> None:
    """A walk goes on at the moment at which it began, also when somebody has looked from a later one meanwhile."""
    async with recorded(db, tmp_path) as one:
        for n in range(4):
            await one.upsert(row(f"a{n}", recurrence="FREQ=DAILY;COUNT=9", start=START + (n + 1) * HOUR))
        await one.join(0, {**WORLD, "user": None})
        later = START + 51 * HOUR
        await one.feed._engine.ask(lambda lookout: lookout.columns.refresh(later))
        await one.ask(one.clients[0], viewport={**WORLD["viewport"], "west": 0})
        for n in range(3):
            await one.count({"eventId": f"a{n}", "rsvpCount": n})
        await one.flush()
    (path,) = files_of(tmp_path)
    assert verified(path).frames == len(one.clients[0].frames)
