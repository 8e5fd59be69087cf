"""Files of businesses: placed in bulk as if one by one, resumed where they stopped, taken in twice without harm."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest
import pytest_asyncio

from server.batching.schedules import taking
from server.batching.schedules.rows import Unusable
from server.batching.schedules.taking import Taken
from server.edge.postgres import Database
from server.errors import Refused
from server.protocol.intake import Format
from tests.batching.schedules.placed import ADMIN, OVERVIEW, REVIEWS, Placed, member, place


@pytest_asyncio.fixture
async def world(db: Database, monkeypatch: pytest.MonkeyPatch) -> Placed:
    monkeypatch.setattr(taking, "CHUNK", 7)
    return Placed(db)


async def pieces(text: str, size: int = 40) -> AsyncIterator[bytes]:
    data = text.encode()
    for at in range(0, len(data), size):
        yield data[at : at + size]


def csv(rows: Iterable[Sequence[object]], header: str = "team,name,tier,platform,identifier") -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def simple(count: int, team: str = "a") -> list[tuple[object, ...]]:
    return [(team, f"Business {n}", "", "google", place(n)) for n in range(count)]


class Ears:
    """What was told, chunk by chunk."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.unusable: list[Unusable] = []

    def __call__(self, taken: Taken, unusable: Sequence[Unusable]) -> None:
        self.taken.append(taken)
        self.unusable += unusable


async def take(world: Placed, text: str, key: str = "file", fmt: Format = Format.CSV) -> tuple[Taken, Ears]:
    ears = Ears()
    return await world.core.taking.take_in(key, fmt, pieces(text), ears), ears


async def test_a_file_is_placed_as_if_one_by_one(world: Placed, db: Database) -> None:
    taken, ears = await take(world, csv(simple(20)))
    assert (taken.rows, taken.placed, taken.known, taken.refused) == (20, 20, 0, 0)
    assert [told.rows for told in ears.taken] == [7, 14, 20]
    assert await world.loads(REVIEWS) == [3, 3, 3, 3, 3, 3, 2] == await world.loads(OVERVIEW)
    assert await world.ask("select count(*) from schedules.business where name like 'Business %'") == 20
    await world.sound()


async def test_a_file_taken_in_twice_changes_nothing(world: Placed) -> None:
    await take(world, csv(simple(20)))
    rows = await world.rows("select * from schedules.mapping order by 1, 3, 4")
    taken, _ = await take(world, csv(simple(20)))
    assert (taken.rows, taken.placed, taken.known) == (20, 0, 20)
    assert await world.rows("select * from schedules.mapping order by 1, 3, 4") == rows
    taken, _ = await take(world, csv(simple(25)), key="a longer file")
    assert (taken.placed, taken.known) == (5, 20)
    await world.sound()


async def test_a_row_that_cannot_be_used_is_told_and_stops_nothing(world: Placed) -> None:
    rows = [
        *simple(3),
        ("", "x", "", "google", place(9)),
        ("a", "x", "", "yelp", "y"),
        ("a", "x", "gold", "google", place(8)),
        *simple(8),
    ]
    taken, ears = await take(world, csv(rows))
    assert (taken.rows, taken.placed, taken.known, taken.refused) == (14, 8, 3, 3)
    assert [(row.number, row.field) for row in ears.unusable] == [(3, "team"), (4, "platform"), (5, "tier")]
    await world.sound()


async def test_it_goes_on_where_it_was_cut_off(world: Placed) -> None:
    text = csv(simple(20))

    async def cut() -> AsyncIterator[bytes]:
        async for piece in pieces(text[: len(text) // 2]):
            yield piece
        raise ConnectionResetError("the upload was cut off")

    with pytest.raises(ConnectionResetError):
        await world.core.taking.take_in("file", Format.CSV, cut())
    assert await world.ask("select rows from schedules.intake") == 7
    taken, ears = await take(world, text)
    assert (taken.resumed_at, taken.rows, taken.placed, taken.known) == (7, 20, 20, 0)
    assert [told.rows for told in ears.taken] == [14, 20]
    await world.sound()


async def test_two_who_take_in_the_same_file_do_not_do_it_twice(world: Placed) -> None:
    assert await world.core.taking._begin("file") == Taken()
    await world.tell("update schedules.intake set rows = 7")
    with pytest.raises(Refused, match="another process is taking in this file"):
        await world.core.taking._store("file", Taken(), [Unusable(0, None, "x")], Ears())


async def test_a_tier_in_the_file_is_that_of_new_teams(world: Placed) -> None:
    await world.core.intervals.set_tier("old", "professional", ADMIN)
    rows = [(team, "", "enterprise", "google", place(n)) for n, team in enumerate(["old", "new", "new"])]
    await take(world, csv(rows))
    assert await world.rows("select team, tier from schedules.team order by 1") == [
        ("new", "enterprise"),
        ("old", "professional"),
    ]
    await world.sound()


async def test_an_interval_of_its_own_counts_for_what_a_file_brings(world: Placed) -> None:
    await world.core.intervals.set_tier("a", "enterprise", ADMIN)
    await world.core.intervals.set_own("a", 5, ADMIN)
    await take(world, csv(simple(5)))
    assert await world.rows("select distinct interval_hours from schedules.schedule where businesses > 0") == [(5,)]
    await world.sound()


async def test_a_business_may_have_all_platforms_in_one_row_or_get_them_one_by_one(world: Placed) -> None:
    header = "team,name,google,facebook,booking"
    rows: list[tuple[object, ...]] = [
        ("a", "One", place(1), "facebook.com/one", "booking.com/one"),
        ("a", "Two", place(2), "", ""),
        ("a", "", place(2), "facebook.com/two", ""),
        *(("b", "", place(n), "", "") for n in range(5)),
        ("a", "", "", "facebook.com/two", "booking.com/two"),
    ]
    taken, ears = await take(world, csv(rows, header))
    assert (taken.placed, taken.known, taken.refused) == (3 + 1 + 1 + 5 + 1, 2, 0) and not ears.unusable
    found = await world.rows(
        "select name, (select count(*) from jsonb_object_keys(identifiers)) from schedules.business where team = 'a' order by 1"
    )
    assert found == [("One", 3), ("Two", 3)]
    await world.sound()


async def test_rows_that_contradict_each_other_are_told(world: Placed) -> None:
    header = "team,google,facebook"
    rows = [
        ("a", place(1), "facebook.com/one"),
        ("a", place(2), "facebook.com/two"),
        ("a", place(1), "facebook.com/two"),
        ("a", place(1), "facebook.com/three"),
    ]
    taken, ears = await take(world, csv(rows, header))
    assert (taken.placed, taken.refused) == (4, 2)
    assert [(row.number, row.field) for row in ears.unusable] == [(2, "identifier"), (3, "facebook")]
    await world.sound()


async def test_json_lines_are_taken_in_too(world: Placed) -> None:
    lines = '{"team": "a", "google": "ChIJ000001"}\n{"team": "a", "platform": "booking", "url": "booking.com/x"}\nnonsense\n[1]\n'
    taken, ears = await take(world, lines, fmt=Format.NDJSON)
    assert (taken.rows, taken.placed, taken.refused) == (4, 2, 2) and len(ears.unusable) == 2
    await world.sound()


async def test_what_was_brought_by_a_file_and_by_hand_is_alike(world: Placed) -> None:
    rows = [
        ("ab"[n % 2], "", "", ("google", "booking")[n % 3 == 0], place(n) if n % 3 else f"booking.com/{n}")
        for n in range(23)
    ]
    await take(world, csv(rows))
    shared_out = await _shape(world)
    await world.tell("delete from schedules.business; delete from schedules.schedule")
    for team, _, _, platform, identifier in rows:
        await world.core.placing.create(str(team), platform, str(identifier), member(str(team)))  # type: ignore[arg-type]
    assert await _shape(world) == shared_out


async def _shape(world: Placed) -> Counter[tuple[object, ...]]:
    return Counter(
        await world.rows(
            """select m.team, m.platform, m.type, m.identifier, s.interval_hours, s.batch_index
            from schedules.mapping m join schedules.schedule s on s.id = m.schedule_id"""
        )
    )
