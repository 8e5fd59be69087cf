"""Work under way is counted while it is under way, and is zero at rest."""

from __future__ import annotations

from typing import Any

from server.batching.scores.figures import GAUGES, measure
from server.batching.scores.plan import Asked
from server.edge.postgres import Database
from server.protocol.event import event_op
from tests.batching.scores.world import ADMIN, Trial, trial

WORLD = {
    "viewport": {"west": -180, "south": -90, "east": 180, "north": 90},
    "filters": [],
    "user": None,
    "maxEvents": 50,
}
EVENT: dict[str, Any] = {"id": "a", "location": {"latitude": 0, "longitude": 0}, "start": 1_790_000_000_000}


def busy(one: Trial) -> dict[str, float]:
    """Those that are not zero."""
    numbers: dict[str, float] = {}
    feed = one.feed
    measure(lambda name, meaning, read: numbers.update({name: read()}), feed.desk, feed._engine, feed._writer)
    assert numbers.keys() == GAUGES.keys()
    return {name: number for name, number in numbers.items() if number}


async def test_a_row_is_counted_until_it_is_written_and_told(db: Database) -> None:
    async with trial(db) as one:
        assert busy(one) == {}
        await one.feed._writer.submit([Asked(event_op(EVENT), ADMIN)])
        assert busy(one) == {"rows_waiting": 1}
        await one.feed._writer.turn(one.occasion())
        assert busy(one) == {"changes_waiting": 1}
        await one.turns.immediate(one.occasion())
        assert busy(one) == {}
        one.model.upsert(EVENT, one.clock.now_ms())
        await one.count({"eventId": "a", "scanCount": 1})
        assert busy(one) == {"pending": 1}
        await one.flush()
        assert busy(one) == {}


async def test_a_frame_is_counted_until_it_has_left_and_what_was_missed_until_it_is_made_up_for(db: Database) -> None:
    async with trial(db) as one:
        await one.upsert(EVENT)
        client = await one.join(0, WORLD)
        assert client.viewer is not None
        client.stalled = True
        await one.upsert({**EVENT, "title": "another"})
        assert busy(one) == {"frames_waiting": 1}
        await one.upsert({**EVENT, "title": "a third"})
        assert busy(one) == {"frames_waiting": 1, "frames_owed": 1}
        await one.drain(client)
        assert busy(one) == {}
        assert client.view.events["a"]["title"] == "a third"
        with one.feed._engine.drawn():
            client.viewer.expect()
            assert busy(one) == {"drawing": 1, "answers_expected": 1}
