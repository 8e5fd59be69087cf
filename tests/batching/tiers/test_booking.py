"""Booking: one winner, the same answer to the same key, a price that stays, and words for whoever came too late."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import asyncpg
import pytest

from server.batching.tiers.booking import SlotView
from server.batching.tiers.store import reading
from server.core.identity import ANONYMOUS, Identity
from server.edge.postgres import Database
from server.errors import Code, Refused
from tests.batching.imports.world import until
from tests.batching.tiers.world import (
    ADMIN,
    EVE,
    FAR,
    PAUL,
    Place,
    ask,
    bring,
    classified,
    classify,
    crowd,
    generate,
    opened,
    row,
    rows_of,
    tell,
)

LONG = dt.timedelta(days=400)


@pytest.fixture
async def place(db: Database) -> AsyncIterator[Place]:
    """Three people of tier D with a month."""
    async with opened(db) as made:
        await classified(made.tiers, crowd(3, "D"))
        await generate(made.tiers)
        yield made


async def seen(place: Place, person: int = 1, who: Identity = ANONYMOUS) -> list[SlotView]:
    now = dt.datetime.now(dt.UTC)
    return await place.tiers.availability(person, now - LONG, now + LONG, who)


async def refused(place: Place, slot: int, words: str, key: str = "k", who: Identity = PAUL) -> Refused:
    with pytest.raises(Refused, match=words) as error:
        await place.tiers.book(slot, key, who)
    return error.value


async def test_a_booked_slot_is_the_bookers_and_nobody_elses(place: Place) -> None:
    slot = (await seen(place))[0]
    booking = await place.tiers.book(slot.id, "k", PAUL)
    assert booking.new
    assert (booking.slot.status, booking.slot.booked_by, booking.slot.key) == ("booked", "paul", "k")
    assert slot.id not in [one.id for one in await seen(place)]
    assert slot.id not in [one.id for one in await seen(place, who=EVE)]
    assert [one.status for one in await seen(place, who=PAUL) if one.id == slot.id] == ["booked"]


async def test_the_same_key_again_answers_with_the_same_booking(place: Place) -> None:
    one, other, *_ = await seen(place)
    first = await place.tiers.book(one.id, "k", PAUL)
    again = await place.tiers.book(one.id, "k", PAUL)
    assert (again.new, again.slot) == (False, first.slot)
    error = await refused(place, other.id, "was used to book the slot")
    assert (error.code, error.field) == (Code.CONFLICT, "key")
    assert (await place.tiers.book(other.id, "k", EVE)).new


async def test_of_fifty_who_book_at_once_one_wins(place: Place) -> None:
    slot = (await seen(place))[0]

    async def attempt(number: int) -> str:
        try:
            booking = await place.tiers.book(slot.id, f"k{number}", Identity(f"user {number}"))
        except Refused as error:
            return error.message
        assert booking.new
        return "won"

    answers = await asyncio.gather(*(attempt(number) for number in range(50)))
    assert answers.count("won") == 1
    assert {one for one in answers if one != "won"} == {
        f"the slot {slot.id} was booked by somebody else; choose another one"
    }
    assert await ask(place.db, "select count(*) from tiers.availability where status = 'booked'") == 1


async def test_one_request_sent_twenty_times_at_once_books_once(place: Place) -> None:
    slot = (await seen(place))[0]
    answers = await asyncio.gather(*(place.tiers.book(slot.id, "k", PAUL) for _ in range(20)))
    assert sum(one.new for one in answers) == 1
    assert {one.slot.id for one in answers} == {slot.id}


async def test_one_key_for_two_slots_at_once_books_one_of_them(place: Place) -> None:
    slots = (await seen(place))[:6]

    async def attempt(slot: SlotView) -> str:
        try:
            return "won" if (await place.tiers.book(slot.id, "k", PAUL)).new else "again"
        except Refused as error:
            return error.field or ""

    answers = await asyncio.gather(*(attempt(slot) for slot in slots))
    assert sorted(answers) == ["key"] * 5 + ["won"]


async def test_the_price_stays_what_it_was_when_it_was_booked(place: Place) -> None:
    slot = (await seen(place))[0]
    await place.tiers.book(slot.id, "k", PAUL)
    await tell(place.db, "update tiers.celebrity_pricing set price_cents = price_cents + 100")
    await generate(place.tiers, replace=True)
    kept = next(one for one in await seen(place, who=PAUL) if one.id == slot.id)
    assert kept.price_cents == slot.price_cents
    assert [one.passed for one in await place.tiers.verify("D", FAR, ADMIN)] == [
        True
    ]  # What is on offer costs more now.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "starts_at = now() - interval '1 hour', ends_at = now() - interval '1 hour' + duration * interval '1 min'",
            "is over",
        ),
        ("status = 'expired'", "is over"),
        (
            "starts_at = now() + interval '2 days', ends_at = now() + interval '2 days' + duration * interval '1 min'",
            "begins too soon",
        ),
        ("status = 'booked', booked_by = 'x', booking_key = 'y', booked_at = now()", "somebody else"),
    ],
)
async def test_what_cannot_be_booked_is_refused_in_words(place: Place, change: str, words: str) -> None:
    slot = (await seen(place))[0]
    await tell(place.db, f"update tiers.availability set {change} where id = $1", slot.id)
    error = await refused(place, slot.id, words)
    assert (error.code, error.field) == (Code.CONFLICT, "slot")
    assert slot.id not in [one.id for one in await seen(place, who=PAUL)]


async def test_lead_times_are_those_of_the_kind(place: Place) -> None:
    for kind, days in (("physical", 7), ("virtual", 3)):
        slot = await ask(place.db, "select id from tiers.availability where meeting_type::text = $1 limit 1", kind)
        for hours, words in ((-1, f"{days} days ahead"), (1, None)):
            at = dt.datetime.now(dt.UTC) + dt.timedelta(days=days, hours=hours)
            await tell(
                place.db,
                "update tiers.availability set starts_at = $2, ends_at = $2::timestamptz + duration * interval '1 min' where id = $1",
                slot,
                at,
            )
            if words is not None:
                await refused(place, slot, words)
            else:
                assert (await place.tiers.book(slot, kind, PAUL)).new


async def test_slots_that_are_not_there_are_refused_as_such(place: Place) -> None:
    assert (await refused(place, 10**9, "no slot")).code == Code.NOT_FOUND
    slot = (await seen(place))[0]
    await tell(place.db, "update tiers.celebrities set excluded = 'hidden' where id = 1")
    assert (await refused(place, slot.id, "no slot")).code == Code.NOT_FOUND
    with pytest.raises(Refused, match="no celebrity"):
        await seen(place)


async def test_a_booking_needs_a_name_and_a_key(place: Place) -> None:
    assert (await refused(place, 1, "token", who=ANONYMOUS)).code == Code.UNAUTHORIZED
    for key in ("", "k" * 201, "a\0b"):
        assert (await refused(place, 1, "key of 1 to 200", key=key)).field == "key"


async def test_a_cancelled_booking_is_on_offer_again_and_its_key_books_nothing_anew(place: Place) -> None:
    slot = (await seen(place))[0]
    await place.tiers.book(slot.id, "k", PAUL)
    gone = await place.tiers.cancel(slot.id, PAUL)
    assert (gone.slot.status, gone.audit_id) == ("cancelled", None)
    again = [one for one in await seen(place) if one.starts_at == slot.starts_at]
    assert [(one.status, one.price_cents, one.city_id) for one in again] == [
        ("available", slot.price_cents, slot.city_id)
    ]
    late = await place.tiers.book(slot.id, "k", PAUL)
    assert (late.new, late.slot.status) == (False, "cancelled")
    assert (await place.tiers.book(again[0].id, "k2", EVE)).new
    assert [one.passed for one in await place.tiers.verify("D", FAR, ADMIN)] == [True]


async def test_only_who_booked_or_an_admin_cancels(place: Place) -> None:
    slot = (await seen(place))[0]
    await place.tiers.book(slot.id, "k", PAUL)
    for who in (EVE, Identity("x")):
        with pytest.raises(Refused, match="no slot"):
            await place.tiers.cancel(slot.id, who)
    with pytest.raises(Refused, match="token"):
        await place.tiers.cancel(slot.id, ANONYMOUS)
    gone = await place.tiers.cancel(slot.id, ADMIN)
    entry = await rows_of(
        place.db, "select who, action, target, before::text from ops.audit where id = $1", gone.audit_id
    )
    assert tuple(entry[0]) == ("root", "tiers cancel", f"slot {slot.id}", '"paul"')
    with pytest.raises(Refused, match="only a booking"):
        await place.tiers.cancel(slot.id, PAUL)


async def test_what_has_begun_is_cancelled_no_more(place: Place) -> None:
    slot = (await seen(place))[0]
    await place.tiers.book(slot.id, "k", PAUL)
    await tell(
        place.db,
        "update tiers.availability set starts_at = now(), ends_at = now() + duration * interval '1 min' where id = $1",
        slot.id,
    )
    with pytest.raises(Refused, match="has begun"):
        await place.tiers.cancel(slot.id, PAUL)


async def test_a_cancelled_visit_that_is_sold_no_more_leaves_its_rotation(place: Place) -> None:
    slot = next(one for one in await seen(place) if one.meeting_type == "physical")
    await place.tiers.book(slot.id, "k", PAUL)
    await classified(place.tiers, [row(0, allow_physical=False)])
    await place.tiers.cancel(slot.id, PAUL)
    same = "select count(*) from tiers.availability where starts_at = $1 and status = 'available'"
    assert await ask(place.db, same, slot.starts_at) == 0
    await generate(place.tiers, replace=True)
    assert [one.passed for one in await place.tiers.verify("D", FAR, ADMIN)] == [True]


async def test_cancelling_twenty_times_at_once_reopens_once(place: Place) -> None:
    slot = (await seen(place))[0]
    await place.tiers.book(slot.id, "k", PAUL)
    answers = await asyncio.gather(*(place.tiers.cancel(slot.id, PAUL) for _ in range(20)), return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in answers) == 1
    assert len([one for one in await seen(place) if one.starts_at == slot.starts_at]) == 1


async def test_the_public_can_change_nothing_but_its_own_booking(place: Place) -> None:
    slot = (await seen(place))[0]
    forbidden = [
        "update tiers.availability set price_cents = 1",
        "update tiers.availability set starts_at = now()",
        "delete from tiers.availability",
        "insert into tiers.availability (celebrity_id) values (1)",
        "update tiers.celebrity_pricing set price_cents = 1",
        "update tiers.celebrities set name = 'x'",
        "select net_worth_cents from tiers.celebrities",
        "select reason from tiers.celebrity_settings",
        "select * from tiers.runs",
        "select * from tiers.verifications",
        "select before from ops.audit",
        f"update tiers.availability set status = 'booked', booked_by = 'eve', booking_key = 'k', booked_at = now() where id = {slot.id}",
        f"update tiers.availability set status = 'expired' where id = {slot.id}",
    ]
    for sql in forbidden:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with reading(place.db, "paul") as connection:
                await connection.execute(sql)
    await place.tiers.book(slot.id, "k", PAUL)
    async with reading(place.db, "eve") as connection:
        assert (
            await connection.execute(
                "update tiers.availability set status = 'booked', booked_by = 'eve'  where booked_by = 'paul'"
            )
            == "UPDATE 0"
        )
        assert await connection.fetchval("select count(*) from tiers.availability where booked_by is not null") == 0


async def test_the_public_sees_neither_who_is_left_out_nor_who_has_no_tier(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1), row(2)])
        await tell(db, "update tiers.celebrities set excluded = 'hidden' where id = 1")
        await classify(place.tiers)
        await bring(place.tiers, [row(3)])
        async with reading(db, None) as connection:
            rows = await connection.fetch(
                "select c.id from tiers.celebrities c join tiers.celebrity_settings s on s.celebrity_id = c.id"
            )
        assert [one["id"] for one in rows] == [2]


async def test_the_database_itself_refuses_two_slots_at_once(place: Place) -> None:
    sql = """insert into tiers.availability (celebrity_id, meeting_type, duration, starts_at, ends_at, local_date, price_cents)
        select celebrity_id, 'virtual', 15, ends_at - interval '15 minutes', ends_at, local_date, 1 from tiers.availability limit 1"""
    with pytest.raises(asyncpg.ExclusionViolationError):
        await tell(place.db, sql)
    await tell(place.db, "update tiers.availability set status = 'expired'")
    await tell(place.db, sql)


SLOT = """insert into tiers.availability (celebrity_id, meeting_type, duration, starts_at, ends_at, local_date, price_cents)
    select 2, 'virtual'::tiers.meeting, {minutes}, at, at + interval '{minutes} minutes', at::date, 1
    from (select timestamptz '2100-01-01 10:00Z' + interval '{shift} minutes' as at) t"""


@pytest.mark.parametrize(
    ("shift", "minutes", "apart"),
    [
        (-60, 60, True),
        (-45, 60, False),
        (-15, 15, True),
        (0, 15, False),
        (15, 15, False),
        (30, 15, True),
        (30, 60, True),
    ],
)
async def test_slots_may_touch_and_not_overlap(place: Place, shift: int, minutes: int, apart: bool) -> None:
    await tell(place.db, SLOT.format(shift=0, minutes=30))
    if apart:
        await tell(place.db, SLOT.format(shift=shift, minutes=minutes))
    else:
        with pytest.raises(asyncpg.ExclusionViolationError) as error:
            await tell(place.db, SLOT.format(shift=shift, minutes=minutes))
        assert error.value.constraint_name == "availability_apart"


async def test_two_slots_of_one_statement_may_not_overlap_either(place: Place) -> None:
    sql = SLOT.format(shift=0, minutes=30) + " union all " + SLOT.format(shift=15, minutes=30).partition(")")[2]
    with pytest.raises(asyncpg.ExclusionViolationError):
        await tell(place.db, sql)


async def test_a_slot_neither_moves_onto_another_nor_comes_back_under_one(place: Place) -> None:
    await tell(place.db, SLOT.format(shift=0, minutes=30))
    await tell(place.db, SLOT.format(shift=60, minutes=30))
    with pytest.raises(asyncpg.ExclusionViolationError):
        await tell(
            place.db,
            """update tiers.availability set starts_at = '2100-01-01 10:15Z', ends_at = '2100-01-01 10:45Z'
                where starts_at = '2100-01-01 11:00Z'""",
        )
    await tell(place.db, "update tiers.availability set status = 'expired' where starts_at = '2100-01-01 10:00Z'")
    await tell(place.db, SLOT.format(shift=15, minutes=15))
    with pytest.raises(asyncpg.ExclusionViolationError):
        await tell(place.db, "update tiers.availability set status = 'available' where starts_at = '2100-01-01 10:00Z'")


async def test_of_two_transactions_that_add_overlapping_slots_the_later_one_sees_the_other(place: Place) -> None:
    async with place.db.connection() as one, place.db.connection() as other:
        first = one.transaction()
        await first.start()
        await one.execute(SLOT.format(shift=0, minutes=30))
        second = asyncio.create_task(other.execute(SLOT.format(shift=15, minutes=30)))
        await until(lambda: ask(place.db, WAITING, other.get_server_pid()))
        await first.commit()
        with pytest.raises(asyncpg.ExclusionViolationError):
            await second
    assert await ask(place.db, "select count(*) from tiers.availability where starts_at >= '2100-01-01'") == 1


WAITING = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
