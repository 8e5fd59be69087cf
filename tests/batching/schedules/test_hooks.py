"""Webhooks: who may send them, that each counts once, and that nothing is believed that the provider does not say itself."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from server.batching.schedules import hooks
from server.batching.schedules.hooks import Delivery, parse, verify
from server.edge.postgres import Database
from server.errors import Code, Refused
from tests.batching.schedules.running import (
    SECRET,
    ask,
    batch,
    crowd,
    expected,
    follow,
    place,
    reviews,
    rows,
    stage,
    states,
    tell,
    told,
    until,
)
from tests.doubles.apify import Act, Outcome, Sending
from tests.doubles.apify.reviews import World


def body(event: str = "ACTOR.RUN.SUCCEEDED", run: Any = "run1", **more: Any) -> bytes:
    return orjson.dumps({"eventType": event, "eventData": {"actorRunId": run}, **more})


@pytest.mark.pure
def test_only_who_knows_the_secret_is_let_in_and_nobody_while_there_is_none() -> None:
    verify(SECRET, SECRET.get_secret_value())
    for given_ in ("", None, "wrong", SECRET.get_secret_value() + "x", "ümlaut"):
        with pytest.raises(Refused) as caught:
            verify(SECRET, given_)
        assert caught.value.code == Code.UNAUTHORIZED
        assert SECRET.get_secret_value() not in caught.value.message
    for none in (None, SecretStr("")):
        with pytest.raises(Refused, match="APIFY_WEBHOOK_SECRET"):
            verify(none, "")


@pytest.mark.pure
@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        (body(note="n"), Delivery("run1", "ACTOR.RUN.SUCCEEDED", "n")),
        (body(run=None, resource={"id": "run2"}), Delivery("run2", "ACTOR.RUN.SUCCEEDED")),
        (body("ACTOR.RUN.CREATED"), None),
        (body("TEST"), None),
        (b"[]", None),
        (b"7", None),
    ],
)
def test_a_body_names_a_run_or_is_of_no_interest(given_: bytes, wanted: Delivery | None) -> None:
    assert parse(given_) == wanted


@pytest.mark.pure
@pytest.mark.parametrize(
    "given_", [b"{", b"", body(run=None), body(run=""), body(run="x" * 201), body(run="a\0b"), body(run=7)]
)
def test_a_body_that_names_none_is_refused(given_: bytes) -> None:
    with pytest.raises(Refused):
        parse(given_)


@pytest.mark.pure
def test_a_body_above_the_bound_is_refused_unread() -> None:
    with pytest.raises(Refused) as caught:
        parse(b" " * (hooks.BODY_MOST + 1))
    assert (caught.value.code, caught.value.limit) == (Code.TOO_LARGE, hooks.BODY_MOST)


NAMES = st.sampled_from(["eventType", "eventData", "resource", "actorRunId", "id", "note"])
LEAVES = st.none() | st.text(max_size=5) | st.integers(-9, 9) | st.just("ACTOR.RUN.FAILED")
JSON = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner) | st.lists(inner, max_size=3), max_leaves=8)


@pytest.mark.pure
@given(st.binary(max_size=100) | JSON.map(orjson.dumps))
def test_whatever_comes_is_read_or_refused(given_: bytes) -> None:
    with suppress(Refused):
        parse(given_)


# With the provider.


async def test_a_webhook_ends_the_run_without_a_poll(db: Database) -> None:
    world = World(reviews=4)
    async with told(db, world=world) as (node, door):
        schedule = await batch(db)
        [business] = await follow(db, schedule, place(1))
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await node.double.settle()
        assert door.answers == [200]
        await node.every("process")
        assert await reviews(db) == expected(world, "google", place(1), [("ada", business)])
        assert node.double.asked.count("runs") == 0


async def test_copies_and_repetitions_of_a_webhook_are_one(db: Database) -> None:
    async with told(db) as (node, door):
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        node.double.sending = Sending(times=4)
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await node.double.settle()
        assert sorted(door.answers) == [200, 208, 208, 208]
        await node.every("process")
        await node.double.sender.send(node.double.runs[0], Sending())
        await node.every("process")
        assert await ask(db, "select count(*) from schedules.webhook_delivery") == 1
        assert (
            await ask(
                db, "select items || ' ' || (select sum(edits) from schedules.review) from schedules.provider_run"
            )
            == "5 0"
        )


async def test_a_webhook_that_comes_before_the_answer_to_the_start_finds_its_run(db: Database) -> None:
    async with told(db) as (node, door):
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        node.double.script("start", Act(hook_first=True, delay_s=0.3))
        await node.runs.trigger(schedule, "k")
        starting = asyncio.ensure_future(node.every("dispatch"))
        await until(lambda: door.answers, "the webhook has come")
        await node.every("process")
        assert await states(db) == {"succeeded": 1}, "adopted by its note while the start is under way"
        await starting
        await node.settle()
        assert (len(node.double.runs), await states(db)) == (1, {"succeeded": 1})
        assert await ask(db, "select items from schedules.provider_run") == 5


async def test_a_webhook_of_a_start_that_seemed_lost_adopts_its_run(db: Database) -> None:
    async with told(db) as (node, _):
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        node.double.script("start", Act(status=500, done=True))
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await node.double.settle()
        assert await states(db) == {"unknown": 1}
        await node.every("process")
        assert await states(db) == {"succeeded": 1}
        await node.settle()
        assert len(node.double.runs) == 1


async def test_a_run_whose_webhook_never_comes_is_polled(db: Database) -> None:
    async with told(db) as (node, door):
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        node.double.sending = Sending(never=True)
        await node.run_once(schedule)
        assert (door.answers, await states(db)) == ([], {"succeeded": 1})


async def test_a_webhook_after_the_poll_changes_nothing(db: Database) -> None:
    async with told(db) as (node, _):
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        node.double.sending = Sending(never=True)
        await node.run_once(schedule)
        await node.double.sender.send(node.double.runs[0], Sending())
        before = await rows(db, "select items, page, processed_at from schedules.provider_run")
        await node.every("process")
        assert await rows(db, "select items, page, processed_at from schedules.provider_run") == before
        assert await ask(db, "select count(*) from schedules.webhook_delivery where processed_at is null") == 0


async def test_a_server_that_was_away_is_told_again(db: Database) -> None:
    async with told(db) as (node, door):
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        runs, door.runs = door.runs, None  # Whoever asks gets 500.
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await until(lambda: len(node.double.sender.told) >= 2)
        door.runs = runs
        await node.double.settle()
        await node.every("process")
        assert await states(db) == {"succeeded": 1}


async def test_a_webhook_is_not_believed_before_the_provider_says_the_same(db: Database) -> None:
    async with told(db, held=True) as (node, _):
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        [run] = node.double.runs
        await node.runs.receive(SECRET.get_secret_value(), body("ACTOR.RUN.FAILED", run.id))
        turn = await node.turn("process")
        assert (turn.deferred, await states(db)) == (1, {"running": 1})
        node.double.finish(run)
        await node.double.settle()
        await node.every("process")
        assert (await states(db), await states(db, "retry")) == ({"succeeded": 1}, {})


async def test_a_webhook_whose_run_cannot_be_asked_about_holds_up_no_other(db: Database) -> None:
    async with told(db) as (node, _):
        for n in range(2):
            schedule = await batch(db, index=n)
            await follow(db, schedule, place(n))
            await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await node.double.settle()
        await tell(db, "update schedules.webhook_delivery set received_at = now() - interval '1 day'")
        node.double.script("run", Act(status=500))
        turn = await node.turn("process")
        assert (turn.deferred, await states(db)) == (1, {"running": 1, "succeeded": 1})
        await node.every("process")
        assert await states(db) == {"succeeded": 2}


async def test_runs_that_are_none_of_ours_are_let_go_after_a_while(db: Database) -> None:
    async with told(db) as (node, _):
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        run = node.double.platform.start("compass/crawler-google-places", {"placeIds": [place(9)]}, {}, [])
        node.double.platform.finish(run)
        for run_id in ("nobody", run.id):
            await node.runs.receive(SECRET.get_secret_value(), body(run=run_id, note=f"triggered:{schedule}:k"))
        await node.every("process")
        waiting = "select count(*) from schedules.webhook_delivery where processed_at is null"
        assert await ask(db, waiting) == 2
        await tell(db, "update schedules.webhook_delivery set received_at = now() - interval '1 hour'")
        await node.every("process")
        assert await ask(db, waiting) == 0
        assert await states(db) == {}


async def test_a_note_does_not_make_a_strangers_run_ours(db: Database) -> None:
    async with told(db) as (node, _):
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        node.double.script("start", Act(status=500))
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        run = node.double.platform.start("compass/google-maps-reviews-scraper", {"placeIds": [place(9)]}, {}, [])
        node.double.platform.finish(run)
        await node.runs.receive(SECRET.get_secret_value(), body(run=run.id, note=f"triggered:{schedule}:k"))
        await node.every("process")
        assert await states(db) == {"unknown": 1}


async def test_a_run_that_failed_and_was_resurrected_is_attributed_after_all_and_its_retries_resolve(
    db: Database,
) -> None:
    world = World(reviews=4)
    async with told(db, world=world) as (node, _):
        schedule = await batch(db)
        ids = await crowd(db, schedule, [place(1), place(2)])
        node.double.platform.outcomes.append(Outcome("FAILED"))
        await node.run_once(schedule)
        assert await states(db, "retry") == {"waiting": 2}
        [run] = node.double.runs
        run.finished = None
        node.double.finish(run, Outcome("SUCCEEDED"))
        await node.double.settle()
        await node.every("process")
        assert (await states(db), await states(db, "retry")) == ({"succeeded": 1}, {"resolved": 2})
        assert await reviews(db) == set().union(
            *(expected(world, "google", place(n + 1), [("ada", business)]) for n, business in enumerate(ids))
        )
        await node.double.sender.send(run, Sending(), "ACTOR.RUN.FAILED")  # Out of order: the older one comes last.
        await node.every("process")
        assert (await states(db), await states(db, "retry")) == ({"succeeded": 1}, {"resolved": 2})


async def test_a_start_made_again_asks_for_a_webhook_again(db: Database) -> None:
    async with told(db) as (node, door):
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        node.double.script("start", Act(status=429))
        await node.runs.trigger(schedule, "k")
        await node.every("dispatch")
        await node.let_poll()
        await node.every("dispatch")
        await node.double.settle()
        assert door.answers == [200]


async def test_without_a_public_address_no_webhook_is_asked_for(db: Database) -> None:
    async with stage(db) as node:
        schedule = await batch(db)
        await follow(db, schedule, place(1))
        await node.run_once(schedule)
        assert (node.runs.provider.told, node.double.runs[0].webhooks) == (False, [])
