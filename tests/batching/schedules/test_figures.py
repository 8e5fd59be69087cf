"""Figures of the schedules over a real database, and the rules that tell somebody: pure."""

from __future__ import annotations

import pytest

from server.batching.loop import Occasion, TurnRecord
from server.batching.schedules.figures import RETRY, RULES, WATCH, Watch
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from tests.batching.schedules.running import batch, crowd, follow, place, stage, tell, told
from tests.doubles.apify import Act
from tests.doubles.apify.reviews import World

NOW = 1_700_000_000_000
MINUTE = 60_000


def said(name: str, now_ms: int = NOW, *, retry_at_ms: int | None = NOW, **detail: float | str) -> str | None:
    watch = TurnRecord(WATCH, 1, "interval", now_ms, 0.1, detail=detail)
    retries = [] if retry_at_ms is None else [TurnRecord(RETRY, 1, "interval", retry_at_ms, 0.1)]
    [rule] = [rule for rule in RULES if rule.name == name]
    return rule.test({WATCH: [watch], RETRY: retries}, now_ms)


@pytest.mark.pure
@pytest.mark.parametrize(
    ("name", "figure", "least"),
    [
        ("schedules-full", "full_lines", 1),
        ("schedules-retry-queue", "retries_waiting", 11),
        ("schedules-failed", "retries_failed", 11),
        ("schedules-webhooks-slow", "slowest_webhook_s", 30.1),
    ],
)
def test_a_rule_fires_above_its_bound_and_not_at_it(name: str, figure: str, least: float) -> None:
    assert said(name, **{figure: least})
    assert said(name, **{figure: least - 1}) is None
    assert said(name) is None


@pytest.mark.pure
def test_waiting_and_running_retries_are_one_queue() -> None:
    assert said("schedules-retry-queue", retries_waiting=6, retries_running=5)


@pytest.mark.pure
def test_a_silent_retry_loop_is_told_where_it_has_to_run() -> None:
    long, bound = 60 * MINUTE, {"silent_ms": 10 * MINUTE}
    assert said("schedules-retry-silent", retry_at_ms=NOW - 11 * MINUTE, leading_ms=long, **bound)
    assert said("schedules-retry-silent", retry_at_ms=None, leading_ms=long, **bound)
    assert said("schedules-retry-silent", retry_at_ms=NOW - 9 * MINUTE, leading_ms=long, **bound) is None
    assert said("schedules-retry-silent", retry_at_ms=NOW - 11 * MINUTE, leading_ms=MINUTE, **bound) is None
    assert said("schedules-retry-silent", retry_at_ms=NOW - 11 * MINUTE) is None


@pytest.mark.pure
def test_starts_that_wait_for_long_are_told_with_what_is_in_their_way() -> None:
    assert "the token" in (said("schedules-stuck", oldest_intent_s=1000, trouble="the token") or "")
    assert said("schedules-stuck", oldest_intent_s=1000) is None
    assert said("schedules-stuck", oldest_intent_s=10, trouble="the token") is None


@pytest.mark.pure
def test_a_watch_that_failed_says_nothing() -> None:
    failed = TurnRecord(WATCH, 1, "interval", NOW, 0.1, error="down", detail={"retries_failed": 99})
    assert all(rule.test({WATCH: [failed]}, NOW) is None for rule in RULES)


def watch_of(db: Database, most: int = 100) -> Watch:
    return Watch(db, SystemClock(), lambda: True, batches_most=most, retry_ms=300_000)


async def test_the_figures_are_what_the_tables_say(db: Database) -> None:
    async with told(db, world=World(missing={place(1)})) as (node, _):
        for n in range(3):
            schedule = await batch(db, index=n)
            await follow(db, schedule, place(n))
            await node.runs.trigger(schedule, "k")
        node.double.script("start", Act(), Act(), Act(status=429))
        await node.every("dispatch")
        await node.double.settle()
        await node.every("process")
        await tell(db, "update schedules.webhook_delivery set received_at = received_at - interval '40 s'")
        watch = watch_of(db)
        detail = (await watch.turn(Occasion("forced", 1, NOW))).detail
        figures = watch.figures
        assert (figures.intended, figures.unknown, figures.unprocessed, figures.webhooks_waiting) == (1, 0, 0, 0)
        assert (figures.retries_waiting, figures.retries_failed, figures.full_lines) == (1, 0, 0)
        assert figures.slowest_webhook_s > 30
        assert "429" in (figures.trouble or "")
        assert detail["leading_ms"] == 0 and detail["silent_ms"] == 600_000


async def test_a_line_is_full_when_it_has_all_the_batches_that_it_may_have(db: Database) -> None:
    schedule = await batch(db)
    await tell(db, "update schedules.schedule set capacity = 2")
    await crowd(db, schedule, [place(1), place(2)])
    for most, full in ((1, 1), (2, 0)):
        watch = watch_of(db, most)
        await watch.turn(Occasion("forced", 1, NOW))
        assert watch.figures.full_lines == full


async def test_the_numbers_are_those_of_the_last_look(db: Database) -> None:
    watch = watch_of(db)
    numbers = {}
    watch.measure(lambda name, meaning, read: numbers.update({name: read}))
    assert numbers["schedules_retries_waiting"]() == 0
    async with stage(db) as node:
        schedule = await batch(db)
        [business] = await follow(db, schedule, place(1))
        await node.runs.revive(business)
        await watch.turn(Occasion("forced", 1, NOW))
    assert numbers["schedules_retries_waiting"]() == 1
