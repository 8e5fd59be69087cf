"""Loading by COPY gives what reading row by row gives, on rows of every odd kind, in pages of any size, and waits when told to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import numpy as np
import pytest

from server.batching.scores import content, loading, store
from server.batching.scores.loading import Page, Splitter, load_pages
from server.batching.scores.plan import Group, Row
from server.core.event import COUNTER_MAX, STATUSES, Event
from server.edge.postgres import Connection, Database
from server.errors import StartRefused, Unavailable
from server.protocol.event import event_bytes
from server.protocol.values import MAX_MS, MIN_MS

NOW = 1_790_000_000_000
PLAIN = Event("plain", 52.5, 13.4, NOW, version=1)
FULL = Event(
    id="full",
    latitude=-90.0,
    longitude=180.0,
    start_ms=NOW + 1,
    title='A "title" with \\ and ,"version": in it',
    emoji="👨‍👩‍👧",
    description="line\nline\tünïcode \u2028 \x01 \U0010ffff",
    categories=("music", 'a"b', "c,d", "{e}", "null", "", "NULL", "ä\\", "\n"),
    end_ms=NOW + 3_600_000,
    timezone="Europe/Berlin",
    status="PENDING",
    counts=(COUNTER_MAX, 0, 7),
    confidence=0.1 + 0.2,
    private=True,
    creator_id="me",
    shared_with=("you", 'o"ne', "🎷"),
    recurrence="FREQ=WEEKLY;COUNT=10",
    priority="high",
    created_ms=MIN_MS,
    updated_ms=MAX_MS,
    version=2**53 - 1,
    properties='{"a":[1,2.5,null],"version":3}',
)
ODD = (
    PLAIN,
    FULL,
    replace(PLAIN, id="é" * 128, latitude=5e-324, longitude=-0.0, version=2),
    replace(PLAIN, id="empty texts", title="", emoji="", description="", creator_id="", recurrence="", version=3),
    replace(FULL, id="shared with nobody", shared_with=(), creator_id=None, version=4),
    replace(FULL, id="public and shared", private=False, status="REJECTED", version=5),
    replace(
        PLAIN, id="long", title="t" * 500, description="d" * 10_000, properties='{"p":"' + "x" * 8_000 + '"}', version=6
    ),
    replace(PLAIN, id="noisy", description="".join(chr(0x4E00 + i * 37 % 20_000) for i in range(10_000)), version=7),
    replace(PLAIN, id="ends at once", end_ms=NOW, status="EXPIRED", timezone="UTC", confidence=0.0, version=8),
    replace(PLAIN, id="certain", confidence=1.0, start_ms=0, end_ms=0, timezone="Europe/Berlin", version=9),
)
PUBLISHED = {"full": (1, 0, 7), "plain": (0, 0, COUNTER_MAX)}


async def fill(db: Database, events: tuple[Event, ...] = ODD) -> dict[str, Row]:
    rows = {e.id: Row(e, PUBLISHED.get(e.id, e.counts)) for e in events}
    # An odd recurrence is refused long before it comes here; the writer would have to understand it.
    plain = {i: Row(replace(r.event, recurrence=None), r.published) for i, r in rows.items()}
    async with db.transaction() as connection:
        await store.write_group(connection, Group(content=plain), NOW)
        for row in rows.values():
            await connection.execute(
                "update feed.event set recurrence = $2 where id = $1", row.event.id, row.event.recurrence
            )
    return rows


@asynccontextmanager
async def dedicated(db: Database) -> AsyncIterator[Connection]:
    connection = await db.dedicated()
    try:
        with db.translated():
            yield connection
    finally:
        await connection.close()


async def pages_of(db: Database, page_bytes: int = loading.PAGE_BYTES) -> list[Page]:
    pages: list[Page] = []

    async def take(page: Page) -> None:
        pages.append(page)

    async with dedicated(db) as connection:
        count = await load_pages(connection, take, page_bytes)
        assert await connection.fetchval("show work_mem") == "4MB"
    assert count == sum(map(len, pages))
    return pages


async def stored_rows(db: Database) -> dict[str, Row]:
    async with db.connection() as connection:
        return {row.event.id: row async for row in store.all_rows(connection)}


def check(page: Page, rows: dict[str, Row]) -> None:
    """Every field of every row of the page is that of the row read one by one."""
    for at, event_id in enumerate(page.ids):
        event, published = rows[event_id].event, rows[event_id].published
        told = replace(event, counts=published)
        assert content.event_of(page.contents[at]) == told
        assert content.body_of(page.contents[at]) == event_bytes(told)
        assert content.encoded(page.contents[at]) == content.of_event(told)
        assert content.words(page.contents[at]) == (event.title, event.categories, event.description)
        assert (page.latitude[at], page.longitude[at]) == (event.latitude, event.longitude)
        assert (page.start[at], page.created[at]) == (event.start_ms, event.created_ms)
        assert page.ends[at] == (event.end_ms is not None)
        assert page.end[at] == (event.start_ms if event.end_ms is None else event.end_ms)
        assert tuple(page.stored[at].tolist()) == event.counts
        assert tuple(page.published[at].tolist()) == published
        assert page.pending[at] == rows[event_id].pending
        assert np.isnan(page.confidence[at]) if event.confidence is None else page.confidence[at] == event.confidence
        assert STATUSES[page.status[at]] == event.status
        assert page.private[at] == event.private
        assert page.high[at] == (event.priority == "high")
        assert page.version[at] == event.version
        assert page.zones[at] == event.timezone
        assert page.recurrence.get(at) == event.recurrence
        people = (event.creator_id, event.shared_with) if event.private else None
        assert page.people.get(at) == people


async def test_a_page_says_of_odd_rows_what_reading_them_one_by_one_says(db: Database) -> None:
    await fill(db)
    rows = await stored_rows(db)
    (page,) = await pages_of(db)
    assert sorted(page.ids) == sorted(e.id for e in ODD)
    check(page, rows)


async def test_pages_of_any_size_hold_every_row_once(db: Database) -> None:
    many = tuple(replace(PLAIN, id=f"e{i}", latitude=i / 100, title="t" * (i % 90), version=i) for i in range(3000))
    await fill(db, many)
    for size in (1, 100_000, 10_000_000):
        pages = await pages_of(db, size)
        ids = [i for page in pages for i in page.ids]
        assert len(ids) == len(set(ids)) == 3000
        assert len(pages) > 1 or size > 1_000_000
        for page in pages:
            assert [f"e{v}" for v in page.version.tolist()] == page.ids
            assert (page.latitude == page.version / 100).all()


async def test_nothing_stored_is_no_page(db: Database) -> None:
    assert await pages_of(db) == []


async def test_only_what_differs_is_pending(db: Database) -> None:
    await fill(db)
    (page,) = await pages_of(db)
    assert {page.ids[at] for at in np.flatnonzero(page.pending)} == {"plain", "full"}


async def stream_of(db: Database) -> bytes:
    """What PostgreSQL sends, as one piece."""
    chunks: list[bytes] = []

    async def receive(chunk: bytes) -> None:
        chunks.append(chunk)

    async with db.connection() as connection:
        await connection.copy_from_query(loading.COPY, output=receive, format="binary")
    return b"".join(chunks)


async def test_rows_may_come_in_pieces_cut_anywhere(db: Database) -> None:
    await fill(db, ODD[:6])
    rows, stream = await stored_rows(db), await stream_of(db)
    for step in (1, 7, 100, 1009, len(stream)):
        splitter = Splitter()
        ids: list[str] = []
        for at in range(0, len(stream), step):
            assert not splitter.ended
            splitter.feed(stream[at : at + step])
            page = splitter.page()
            check(page, rows)
            ids += page.ids
        assert sorted(ids) == sorted(rows)
        assert splitter.ended
        assert splitter.waiting == 0


async def test_what_is_not_our_copy_is_not_taken(db: Database) -> None:
    await fill(db)
    stream = await stream_of(db)
    for broken in (b"X" + stream, stream[:11] + b"\0\1\0\0" + stream[15:], stream[:15] + b"\0\0\0\4" + stream[19:]):
        splitter = Splitter()
        splitter.feed(broken)
        with pytest.raises(AssertionError):
            splitter.page()
    fields = int.from_bytes(stream[19:21])
    splitter = Splitter()
    splitter.feed(stream[:19] + (fields + 1).to_bytes(2) + stream[21:])
    with pytest.raises(AssertionError, match="fields"):
        splitter.page()


def wide(count: int) -> tuple[Event, ...]:
    """Events so many and so long that they don't fit between two processes: about 10 MB."""
    return tuple(replace(PLAIN, id=f"w{i}", description=f"{i} " * 1000, version=i) for i in range(count))


async def backend_waits(db: Database) -> bool:
    async with db.connection() as connection:
        found = await connection.fetchval(
            "select count(*) from pg_stat_activity where query ilike 'copy (%' and wait_event = 'ClientWrite'"
        )
    return bool(found)


async def test_while_a_page_is_taken_nothing_is_read_and_one_snapshot_is_seen(db: Database) -> None:
    await fill(db, wide(2000))
    first, going_on = asyncio.Event(), asyncio.Event()
    taken: list[str] = []

    async def take(page: Page) -> None:
        first.set()
        await going_on.wait()
        taken.extend(page.ids)

    async def load() -> int:
        async with dedicated(db) as connection:
            return await load_pages(connection, take, 100_000)

    loading_all = asyncio.create_task(load())
    async with asyncio.timeout(30):
        await first.wait()
        while not await backend_waits(db):
            await asyncio.sleep(0.01)
        assert taken == []
        async with db.transaction() as connection:
            await connection.execute("delete from feed.event where id <> 'w7'")
            await connection.execute("update feed.counters set scan = 1, version = 0")
        going_on.set()
        assert await loading_all == 2000
    assert sorted(taken) == sorted(f"w{i}" for i in range(2000))


async def test_an_error_while_taking_ends_the_load_and_leaves_the_connection_usable(db: Database) -> None:
    await fill(db, wide(500))

    async def take(page: Page) -> None:
        raise KeyError(page.ids[0])

    async with dedicated(db) as connection:
        with pytest.raises(KeyError):
            await load_pages(connection, take, 10_000)
        assert await connection.fetchval("show work_mem") == "4MB"
        assert await connection.fetchval("select count(*) from feed.event") == 500


async def test_a_postgres_that_goes_away_is_unavailable(db: Database) -> None:
    await fill(db, wide(500))

    async def take(page: Page) -> None:
        async with db.connection() as other:
            ended = "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'copy (%'"
            assert await other.fetchval(ended)

    with pytest.raises(Unavailable):
        async with dedicated(db) as connection:
            await load_pages(connection, take, 10_000)


async def test_equal_zones_are_one_object_in_all_pages(db: Database) -> None:
    await fill(db, tuple(replace(PLAIN, id=f"z{i}", timezone="America/New_York", version=i) for i in range(50)))
    pages = await pages_of(db, 1)
    assert len({id(zone) for page in pages for zone in page.zones}) == 1


@pytest.mark.pure
def test_a_stream_without_rows_is_a_page_without_rows() -> None:
    splitter = Splitter()
    splitter.feed(b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff")
    page = splitter.page()
    assert len(page) == 0
    assert page.published.shape == (0, 3)
    assert splitter.ended


async def never(page: Page) -> None:
    raise AssertionError(f"a page of {len(page)} was handed over")


async def test_a_database_of_another_encoding_is_refused(db: Database) -> None:
    async with dedicated(db) as connection:
        await connection.execute("create database latin encoding 'LATIN1' locale 'C' template template0")
        other = await asyncpg.connect(re.sub(r"/test_\d+\?", "/latin?", db.dsn))
        try:
            with pytest.raises(StartRefused, match="LATIN1"):
                await load_pages(other, never)
        finally:
            await other.close()
            await connection.execute("drop database latin")
