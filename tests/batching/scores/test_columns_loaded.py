"""What PostgreSQL holds at start is what the columns hold, and what is done to it then is done right."""

from __future__ import annotations

from dataclasses import replace

from server.batching.scores.columns import Columns
from server.batching.scores.predicates import said_of
from server.core.event import Event
from server.edge.postgres import Database
from server.protocol.event import event_bytes
from tests.batching.scores.test_columns import check_event, check_order, check_rows
from tests.batching.scores.test_loading import FULL, NOW, ODD, fill, pages_of, stored_rows

EVENTS = tuple(e for e in ODD if e.recurrence is None) + tuple(
    replace(FULL, id=f"daily {i}", recurrence="FREQ=DAILY", start_ms=NOW - i * 10**8, end_ms=NOW - i * 10**8 + 10**6)
    for i in range(3)
)


async def test_a_loaded_world_is_the_stored_one(db: Database) -> None:
    await fill(db, EVENTS)
    rows = await stored_rows(db)
    columns = Columns()
    for page in await pages_of(db, page_bytes=2000):
        columns.load(page, NOW)
    columns.merge()
    assert len(columns) == len(EVENTS)
    events = {i: replace(row.event, counts=row.published) for i, row in rows.items()}
    for one in events.values():
        check_event(columns, one, NOW)
    check_rows(columns)
    check_order(columns)
    for number, one in enumerate(events.values(), 1 << 60):
        touch(columns, one, number)


def touch(columns: Columns, one: Event, version: int) -> None:
    """Counters are published into the loaded form, and its body is made from it."""
    slot = columns.slot_of(one.id)
    assert slot is not None
    said = said_of(columns, slot)
    assert columns.publish(one.id, (1, 2, 3), version)
    published = replace(one, counts=(1, 2, 3), version=version)
    check_event(columns, published, NOW)
    assert columns.body(slot) == event_bytes(published)
    assert said_of(columns, slot) == said
    assert columns.publish(one.id, (4, 5, 6), version + 1)
    check_event(columns, replace(published, counts=(4, 5, 6), version=version + 1), NOW)
