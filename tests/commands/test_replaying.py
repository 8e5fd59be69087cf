"""Rules and wire: a log of RSVPs becomes popularity, line by line, and never twice."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.commands.calling import Failed
from server.commands.importing import Bad
from server.commands.replaying import Log, Reading, Step, recognised
from tests.commands.conftest import Command

Lines = Callable[..., Path]


def rsvp(number: int, event: str, response: str, minute: int) -> dict[str, Any]:
    at = datetime(2017, 3, 19, 12, minute, tzinfo=UTC)
    start = (at + timedelta(days=2)).isoformat()
    about = {"id": event, "title": f"Meeting {event}", "start": start}
    return {
        "rsvpId": number,
        "at": at.isoformat(),
        "response": response,
        "guests": 2,
        "event": about,
        "location": [1.5, 2.5],
        "topics": ["go"],
    }


def deltas(log: Log, *rows: dict[str, Any]) -> list[object]:
    steps = [log.step(row) for row in rows]
    assert all(isinstance(step, Step) for step in steps), steps
    return [step.popularity and step.popularity["delta"] for step in steps if isinstance(step, Step)]


def test_yes_is_one_no_is_none_and_a_later_line_replaces_the_earlier() -> None:
    log = Log(recognised(rsvp(1, "a", "yes", 0)))
    rows = [
        rsvp(1, "a", "yes", 0),
        rsvp(2, "a", "no", 1),
        rsvp(1, "a", "yes", 2),
        rsvp(1, "a", "no", 3),
        rsvp(2, "a", "yes", 4),
    ]
    one, gone = {"rsvpCount": 1}, {"rsvpCount": -1}
    assert deltas(log, *rows) == [one, None, None, gone, one]


def test_the_first_line_of_an_event_creates_it_from_the_fields_of_the_known_format() -> None:
    log = Log(recognised(rsvp(1, "a", "yes", 0)))
    first, second = log.step(rsvp(1, "a", "yes", 0)), log.step(rsvp(2, "a", "yes", 1))
    assert isinstance(first, Step)
    assert first.event == {
        "id": "a",
        "title": "Meeting a",
        "start": "2017-03-21T12:00:00+00:00",
        "location": [1.5, 2.5],
        "categories": ["go"],
    }
    assert isinstance(second, Step)
    assert second.event is None


def test_update_ids_are_made_of_the_log_so_that_a_second_run_makes_the_same() -> None:
    rows = [rsvp(1, "a", "yes", 0), rsvp(1, "a", "no", 1), rsvp(2, "b" * 200, "yes", 1)]
    runs = []
    for _ in range(2):
        log = Log(recognised(rows[0]))
        runs.append([step.popularity for step in map(log.step, rows) if isinstance(step, Step)])
    assert runs[0] == runs[1]
    ids = [str(move["updateId"]) for move in runs[0] if move]
    assert len(set(ids)) == 3
    assert all(len(text) <= 128 for text in ids)


def test_a_log_of_check_ins_counts_each_line() -> None:
    reading = recognised({"place": "a", "when": 5}, event="place", at="when", count="saveCount")
    assert deltas(Log(reading), {"place": "a", "when": 5}, {"place": "a", "when": 5}) == [{"saveCount": 1}] * 2


def test_a_line_that_cannot_be_read_is_told_and_the_next_goes_on() -> None:
    log = Log(Reading("e", "t", "scanCount"))
    steps = [log.step(row) for row in ({"t": 1}, {"e": "a", "t": "yesterday"}, [1], {"e": "a", "t": 1})]
    assert [(step.row, step.field) if isinstance(step, Bad) else "good" for step in steps] == [
        (0, "e"),
        (1, "t"),
        (2, None),
        "good",
    ]


def test_a_log_of_no_known_format_needs_to_be_told_where_the_event_is() -> None:
    with pytest.raises(Failed, match="--event PATH"):
        recognised({"x": 1})
    with pytest.raises(Failed, match="--count"):
        recognised({"x": 1}, event="x", count="likes")


def test_a_replay_moves_counters_once_however_often_it_runs(batchcast: Command, lines: Lines) -> None:
    rows = [rsvp(n, f"meet-{n % 2}", "yes" if n != 3 else "no", n) for n in range(6)] + [rsvp(0, "meet-0", "no", 9)]
    for _ in range(2):
        said = batchcast("events", "replay", lines(*rows), "--speed", 0)
        assert (said.code, "7 of 7 rows went in" in said.err) == (0, True), said
        counts = [batchcast("events", "show", f"meet-{n}").json["rsvpCount"] for n in range(2)]
        assert counts == [2, 2]
    start = datetime.fromisoformat(batchcast("events", "show", "meet-1").json["start"])
    assert timedelta(days=1) < start - datetime.now(UTC) < timedelta(days=3)


def test_a_replay_keeps_the_pace_it_was_given(batchcast: Command, lines: Lines) -> None:
    rows = [rsvp(n, "paced", "yes", n) for n in range(3)]
    began = datetime.now(UTC)
    assert batchcast("events", "replay", lines(*rows), "--speed", 120).code == 0
    assert datetime.now(UTC) - began >= timedelta(seconds=1)
    assert batchcast("events", "show", "paced").json["rsvpCount"] == 3


def test_an_event_that_cannot_be_created_is_told_once(batchcast: Command, lines: Lines) -> None:
    bad = rsvp(1, "no-start", "yes", 0)
    del bad["event"]["start"]
    said = batchcast("events", "replay", lines(bad, rsvp(2, "fine", "yes", 1)), "--speed", 0)
    assert said.code == 1
    assert "1 of 2 rows went in, 1 did not" in said.err
