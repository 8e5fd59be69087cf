"""The live feed's SQL on a real PostgreSQL: what is written is read back, and search finds what a slow look would."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from server.batching.scores import store
from server.batching.scores.plan import Group, Row, Tally, joined
from server.batching.scores.store import Search
from server.core.event import COUNTER_MAX, Accepted, Event, visible_to
from server.core.recurrence import last_end_ms
from server.edge.postgres import Database
from server.protocol.values import Viewport
from tests.oracle import view as oracle

NOW = 1_790_000_000_000
HOUR = 3_600_000
LOCKED = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
FULL = Event(
    "full",
    -33.86,
    151.2,
    NOW,
    title="Night 'Market' \\ é 🍜",
    emoji="🍜",
    description='a "b"\n{c,d}',
    categories=("food", 'with "quotes", {braces}', "NULL", ""),
    end_ms=NOW + HOUR,
    timezone="Australia/Sydney",
    status="PENDING",
    counts=(COUNTER_MAX, 2, 3),
    confidence=0.1 + 0.2,
    private=True,
    creator_id="ada",
    shared_with=("bob", "x,y"),
    recurrence="FREQ=WEEKLY;COUNT=3",
    priority="high",
    created_ms=-1,
    updated_ms=NOW,
    version=7,
    properties='{"a":[null,"\\\\u0000"]}',
)


def plain(event_id: str, **values: object) -> Event:
    return Event(**{"id": event_id, "latitude": 0.0, "longitude": 0.0, "start_ms": NOW, "version": 1, **values})  # type: ignore[arg-type]  # Event's own fields


async def write(db: Database, *rows: Row | Event, **parts: object) -> None:
    content = {one.event.id: one for one in (r if isinstance(r, Row) else Row(r, r.counts) for r in rows)}
    async with db.transaction() as connection:
        await store.write_group(connection, Group(content=content, **parts), NOW)  # type: ignore[arg-type]  # Group's own fields


async def read(db: Database, *ids: str) -> dict[str, Row | None]:
    async with db.connection() as connection:
        return await store.read_rows(connection, ids)


# --- rows ---


async def test_an_event_is_read_back_as_it_was_written(db: Database) -> None:
    rows = [Row(FULL, (1, 2, 3)), Row(plain("plain"), (0, 0, 0))]
    await write(db, *rows)
    assert await read(db, "full", "plain", "none") == {"full": rows[0], "plain": rows[1], "none": None}


async def test_a_second_write_replaces_every_field(db: Database) -> None:
    await write(db, FULL)
    bare = plain("full", version=8)
    await write(db, bare)
    assert (await read(db, "full"))["full"] == Row(bare, (0, 0, 0))


async def test_counters_are_written_alone_and_leave_the_content_and_what_is_published(db: Database) -> None:
    await write(db, Row(FULL, (0, 0, 1)), plain("other"))
    tally = Tally((9, 0, COUNTER_MAX), (0, 0, 1), 7, high=True)
    async with db.transaction() as connection:
        await store.write_group(connection, Group(counters={"full": tally}), NOW)
    assert (await read(db, "full"))["full"] == joined(FULL, tally)
    assert (await read(db, "other"))["other"] == Row(plain("other"), (0, 0, 0))


async def test_without_batching_counters_are_published_as_they_are_written(db: Database) -> None:
    await write(db, Row(FULL, (0, 0, 1)), plain("other"))
    tallies = {"full": Tally((9, 0, 7), (9, 0, 7), 12, high=True), "other": Tally((1, 2, 3), (1, 2, 3), 11)}
    async with db.transaction() as connection:
        await store.write_group(connection, Group(published=True, counters=tallies), NOW)
        assert (await store.lock(connection, tallies))[0] == tallies
    assert (await read(db, "full"))["full"] == joined(FULL, tallies["full"])


async def test_the_tally_of_an_event_says_whether_it_is_urgent_by_itself(db: Database) -> None:
    for priority in ("high", "normal", "high"):
        await write(db, plain("a", priority=priority))
        async with db.transaction() as connection:
            tallies, events = await store.lock(connection, ["a", "none"])
        assert (tallies["a"].high, events) == (priority == "high", {})


async def test_deleting_takes_counters_along_and_comes_before_writing(db: Database) -> None:
    await write(db, Row(FULL, (0, 0, 0)), plain("gone"))
    again = plain("full", version=9, title="again")
    await write(db, again, deleted={"full": 8, "gone": 8})
    assert await read(db, "full", "gone") == {"full": Row(again, (0, 0, 0)), "gone": None}
    async with db.connection() as connection:
        assert await connection.fetchval("select count(*) from feed.counters") == 1


async def test_rows_are_locked_in_one_order_so_that_writers_cannot_deadlock(db: Database) -> None:
    ids = [f"e{n}" for n in range(20)]
    await write(db, *map(plain, ids))

    async def writer(order: Sequence[str]) -> None:
        for _ in range(15):
            async with db.transaction() as connection:
                tallies, _ = await store.lock(connection, order)
                assert list(tallies) == sorted(ids)
                await asyncio.sleep(0)

    await asyncio.gather(writer(ids), writer(ids[::-1]), writer(ids[::2] + ids[1::2]))


async def test_a_locked_row_is_waited_for(db: Database) -> None:
    await write(db, plain("a"))

    async def second() -> tuple[dict[str, Tally], dict[str, Event]]:
        async with db.transaction() as connection:
            return await store.lock(connection, ["a"], ["a"])

    async def waits() -> bool:
        async with db.connection() as connection:
            return bool(await connection.fetchval(LOCKED))

    async with db.transaction() as first:
        await store.lock(first, ["a"])
        task = asyncio.create_task(second())
        async with asyncio.timeout(20):
            while not (task.done() or await waits()):
                await asyncio.sleep(0.005)
        assert not task.done(), "it did not wait"
        row = Row(plain("a", title="first", version=2, priority="high", counts=(5, 0, 0)), (4, 0, 0))
        await store.write_group(first, Group(content={"a": row}), NOW)
    assert await task == ({"a": Tally((5, 0, 0), (4, 0, 0), 2, high=True)}, {"a": row.event})


async def test_all_rows_come_a_page_at_a_time(db: Database) -> None:
    await write(db, *(plain(f"e{n:03}") for n in range(25)))
    async with db.connection() as connection:
        found = [row.event.id async for row in store.all_rows(connection, page=4)]
    assert sorted(found) == [f"e{n:03}" for n in range(25)]


async def test_versions_only_grow_whoever_draws_them(db: Database) -> None:
    async def draw() -> list[int]:
        async with db.connection() as connection:
            assert await store.draw_versions(connection, 0) == []
            return [v for _ in range(5) for v in await store.draw_versions(connection, 7)]

    drawn = await asyncio.gather(draw(), draw())
    for versions in drawn:
        assert versions == sorted(versions)
    assert len({*drawn[0], *drawn[1]}) == 70


async def test_updates_taken_before_are_known_with_their_answer(db: Database) -> None:
    await write(db, plain("a"), applied=[("ann", "u1", "a", 7), ("bob", "u1", "a", 8)])
    async with db.connection() as connection:
        assert await store.known_updates(connection, []) == {}
        found = await store.known_updates(connection, [("ann", "u1"), ("bob", "u2"), ("bob", "u1"), ("", "u1")])
    assert found == {("ann", "u1"): Accepted("a", 7), ("bob", "u1"): Accepted("a", 8)}


async def test_a_transaction_that_fails_leaves_nothing(db: Database) -> None:
    bad = Row(plain("b", latitude=91.0), (0, 0, 0))
    with pytest.raises(asyncpg.CheckViolationError):
        await write(db, plain("a"), bad, applied=[("ann", "u", "a", 1)])
    assert await read(db, "a", "b") == {"a": None, "b": None}
    async with db.connection() as connection:
        assert await store.known_updates(connection, [("ann", "u")]) == {}


# --- publishing ---


async def test_publishing_makes_stored_counters_the_published_ones_under_a_new_version(db: Database) -> None:
    await write(db, Row(plain("a", counts=(5, 0, 1)), (1, 0, 1)), plain("b", counts=(2, 2, 2)))
    async with db.transaction() as connection:
        newest = (await store.draw_versions(connection, 1))[0]
        found = await store.publish(connection, ["a", "b", "none"])
    assert [(one.id, one.counts) for one in found] == [("a", (5, 0, 1))], "b had nothing pending"
    assert found[0].version > newest
    row = (await read(db, "a"))["a"]
    assert row is not None
    assert (row.published, row.pending, row.event.version) == ((5, 0, 1), False, found[0].version)


async def test_publishing_twice_publishes_once(db: Database) -> None:
    await write(db, Row(plain("a", counts=(5, 0, 1)), (1, 0, 1)))
    async with db.transaction() as connection:
        assert len(await store.publish(connection, ["a"])) == 1
        assert await store.publish(connection, ["a"]) == []


# --- the end of events ---


async def test_shown_events_whose_last_occurrence_is_over_are_found_the_oldest_first(db: Database) -> None:
    events = [
        plain("over", start_ms=NOW - 2 * HOUR, end_ms=NOW - HOUR - 1),
        plain("just not", start_ms=NOW - 2 * HOUR, end_ms=NOW - HOUR),
        plain("without an end", start_ms=NOW - 3 * HOUR),
        plain("rejected", start_ms=NOW - 9 * HOUR, status="REJECTED"),
        plain("pending", start_ms=NOW - 4 * HOUR, status="PENDING"),
        plain("for ever", start_ms=NOW - 99 * HOUR, recurrence="FREQ=DAILY"),
        plain("three days", start_ms=NOW - 48 * HOUR, end_ms=NOW - 47 * HOUR, recurrence="FREQ=DAILY;COUNT=3"),
        plain("two days", start_ms=NOW - 48 * HOUR, end_ms=NOW - 47 * HOUR, recurrence="FREQ=DAILY;COUNT=2"),
    ]
    await write(db, *events)
    async with db.connection() as connection:
        found = await store.ended(connection, NOW - HOUR, 10)
        assert found == ["two days", "pending", "without an end", "over"]
        assert await store.ended(connection, NOW - HOUR, 2) == found[:2]
    for event in events:
        over = last_end_ms(event.recurrence, event.start_ms, event.end_ms, None)
        shown = event.status != "REJECTED"
        assert (event.id in found) is (shown and over is not None and over < NOW - HOUR)


async def test_expired_events_are_outlived_when_they_have_been_so_for_long(db: Database) -> None:
    await write(
        db,
        plain("old", status="EXPIRED", updated_ms=NOW - 1),
        plain("new", status="EXPIRED", updated_ms=NOW),
        plain("shown", updated_ms=NOW - 1),
    )
    async with db.connection() as connection:
        assert await store.outlived(connection, NOW, 10) == ["old"]


# --- search ---


async def search(db: Database, user: str | None = None, *, admin: bool = False, **query: object) -> list[str]:
    async with db.connection() as connection:
        return [row.event.id for row in await store.search(connection, Search(**query), user, admin=admin)]  # type: ignore[arg-type]  # Search's own fields


BOXES = [
    (-1, -1, 1, 1),
    (0, 0, 1, 1),
    (-180, -90, 180, 90),
    (170, -10, -170, 10),
    (179.9, -10, -179.9, 10),
    (180, -10, -180, 10),
    (1, -10, 0, 10),
]


@pytest.mark.parametrize("sides", BOXES)
async def test_a_box_holds_what_is_inside_it_bounds_inclusive_across_the_antimeridian_too(
    db: Database, sides: tuple[float, float, float, float]
) -> None:
    places = [
        (lat, lon) for lat in (-90, -10, -1, 0, 1, 9.5, 10, 90) for lon in (-180, -170, -1, 0, 0.5, 1, 170, 175, 180)
    ]
    await write(db, *(plain(f"{lat}/{lon}", latitude=float(lat), longitude=float(lon)) for lat, lon in places))
    box = dict(zip(("west", "south", "east", "north"), sides, strict=True))
    expected = {f"{lat}/{lon}" for lat, lon in places if oracle.inside(box, lat, lon)}
    assert set(await search(db, bbox=Viewport(**box), limit=500)) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("100%", ["percent"]),
        ("%", ["percent"]),
        ("_", ["underscore"]),
        ("a_b", ["underscore"]),
        ("\\", ["backslash"]),
        ("c:\\t", ["backslash"]),
        ("FOOD", ["percent", "words"]),
        ("market night", ["words"]),
        ("night food", ["words"]),
        ("", ["backslash", "other", "percent", "underscore", "words"]),
        ("nothing", []),
        ("'; drop table feed.event; --", []),
    ],
)
async def test_every_word_must_be_there_and_no_sign_is_special(db: Database, text: str, found: list[str]) -> None:
    await write(
        db,
        plain("percent", title="100% fun", categories=("Food",)),
        plain("underscore", title="a_b"),
        plain("backslash", title="C:\\temp"),
        plain("other", title="a-b"),
        plain("words", title="Night Market", categories=("street food",), description=None),
    )
    assert await search(db, text=text) == found


async def test_a_status_is_any_of_those_asked_for(db: Database) -> None:
    for status in ("PENDING", "VERIFIED", "REJECTED", "EXPIRED"):
        await write(db, plain(status.lower(), status=status))
    assert await search(db, status=("PENDING", "EXPIRED")) == ["expired", "pending"]
    assert len(await search(db)) == 4


@pytest.mark.parametrize(
    ("user", "admin"), [(None, False), ("ann", False), ("bob", False), ("cy", False), ("root", True)]
)
async def test_private_events_are_found_only_by_those_who_may_see_them(
    db: Database, user: str | None, admin: bool
) -> None:
    events = [
        plain("public", creator_id="ann"),
        plain("anns", private=True, creator_id="ann"),
        plain("shared", private=True, creator_id="ann", shared_with=("bob", "dan")),
        plain("nobodys", private=True),
    ]
    await write(db, *events)
    expected = sorted(e.id for e in events if admin or visible_to(e, user))
    assert await search(db, user, admin=admin) == expected
    assert ("nobodys" in expected) is admin


async def test_a_cursor_goes_on_where_the_page_before_ended_to_the_end(db: Database) -> None:
    ids = sorted(f"e{n}" for n in range(23))
    await write(db, *map(plain, ids))
    found: list[str] = []
    while page := await search(db, cursor=found[-1] if found else None, limit=5):
        assert len(page) <= 5
        found += page
    assert found == ids


async def test_all_that_is_asked_for_must_hold(db: Database) -> None:
    await write(
        db,
        plain("both", title="Jazz", status="PENDING"),
        plain("elsewhere", title="Jazz", status="PENDING", latitude=50.0),
        plain("another", title="Food", status="PENDING"),
        plain("verified", title="Jazz"),
    )
    near = Viewport(west=-1, south=-1, east=1, north=1)
    assert await search(db, bbox=near, text="jazz", status=("PENDING",)) == ["both"]


# --- remembered updates in hourly partitions ---


async def partitions(db: Database) -> list[str]:
    async with db.connection() as connection:
        return sorted(r["relname"] for r in await connection.fetch(store.PARTITIONS))


async def where(db: Database) -> dict[str, str]:
    async with db.connection() as connection:
        rows = await connection.fetch("select update_id, tableoid::regclass::text as place from feed.applied")
    return {row["update_id"]: row["place"] for row in rows}


async def remember(db: Database, update_id: str, at_ms: int) -> None:
    async with db.transaction() as connection:
        await store.write_group(connection, Group(applied=[("ann", update_id, "a", 1)]), at_ms)


async def test_partitions_of_this_hour_and_the_next_are_made_once(db: Database) -> None:
    async with db.connection() as connection:
        assert await store.make_partitions(connection, NOW) == 3
        assert await store.make_partitions(connection, NOW) == 0
        assert await store.make_partitions(connection, NOW + HOUR) == 1
    assert await partitions(db) == [
        "applied_2026092114",
        "applied_2026092115",
        "applied_2026092116",
        "applied_2026092117",
    ]


async def test_updates_go_to_the_partition_of_their_hour_and_are_known_from_any(db: Database) -> None:
    async with db.connection() as connection:
        await store.make_partitions(connection, NOW)
    for update_id, at_ms in (("now", NOW), ("next", NOW + HOUR), ("rest", NOW - 50 * HOUR)):
        await remember(db, update_id, at_ms)
    assert await where(db) == {
        "now": "feed.applied_2026092114",
        "next": "feed.applied_2026092115",
        "rest": "feed.applied_rest",
    }
    async with db.connection() as connection:
        known = await store.known_updates(connection, [("ann", "now"), ("ann", "next"), ("ann", "rest")])
    assert len(known) == 3


async def test_hours_older_than_asked_are_dropped_whole_and_what_is_kept_is_kept_in_full(db: Database) -> None:
    async with db.connection() as connection:
        for hours in (30, 26, 25, 24, 23, 0):
            await store.make_partitions(connection, NOW - hours * HOUR, hours=1)
    for hours in (30, 26, 25, 24, 23, 0):
        await remember(db, f"u{hours}", NOW - hours * HOUR)
    await remember(db, "rest", NOW - 99 * HOUR)
    async with db.connection() as connection:
        assert await store.drop_partitions(connection, NOW, 24, 10**7) == 2
    assert set(await where(db)) == {"u25", "u24", "u23", "u0"}


async def test_beyond_so_many_rows_the_oldest_hours_go_first_but_never_the_newest(db: Database) -> None:
    async with db.connection() as connection:
        await store.make_partitions(connection, NOW)
    for number in range(9):
        await remember(db, f"u{number}", NOW + number % 3 * HOUR)
    async with db.connection() as connection:
        await connection.execute("analyze feed.applied")
        assert await store.drop_partitions(connection, NOW, 24, 6) == 1
        assert set((await where(db)).values()) == {"feed.applied_2026092115", "feed.applied_2026092116"}
        assert await store.drop_partitions(connection, NOW, 24, 1) == 1
    assert set((await where(db)).values()) == {"feed.applied_2026092116"}


async def test_an_hour_whose_partition_was_made_late_is_made_all_the_same(db: Database) -> None:
    await remember(db, "early", NOW)
    assert (await where(db))["early"] == "feed.applied_rest"
    async with db.connection() as connection:
        await store.make_partitions(connection, NOW)
    await remember(db, "late", NOW)
    async with db.connection() as connection:
        assert len(await store.known_updates(connection, [("ann", "early"), ("ann", "late")])) == 2
