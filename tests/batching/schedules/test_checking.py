"""Validate finds what is broken, names it, and is content otherwise."""

from __future__ import annotations

import pytest
import pytest_asyncio

from server.batching.schedules import checking
from server.edge.postgres import Database
from tests.batching.schedules.placed import ADMIN, Placed


@pytest_asyncio.fixture
async def world(db: Database) -> Placed:
    world = Placed(db)
    await world.core.intervals.set_tier("a", "enterprise", ADMIN)
    await world.follow(range(4), "a")
    await world.follow([1], "b")
    await world.follow([1], "b", "booking")
    return world


async def test_a_sound_system_passes_every_check_by_name(world: Placed) -> None:
    report = await world.core.checking.validate()
    assert report.ok
    assert [check.name for check in report.checks] == [*checking.CHECKS, "forms"]
    assert all(check.meaning and check.failed == 0 and check.examples == () for check in report.checks)


# What breaks it, which checks find that, and words of the first example.
BREAKAGES = {
    "a mapping is missing": (
        """delete from schedules.mapping
        where type = 'reviews' and team = 'a' and identifier like '%1'""",
        {"coverage"},
        "has no reviews mapping on google",
    ),
    "a profile is gone": (
        """update schedules.business set identifiers = '{"booking": "x"}' where team = 'a'""",
        {"coverage", "orphans", "identifiers"},
        "",
    ),
    "a retry without its mapping": (
        """alter table schedules.retry drop constraint retry_business_id_platform_type_fkey;
        insert into schedules.retry (team, business_id, platform, type) values ('a', 999, 'google', 'reviews')""",
        {"orphans"},
        "retry 1 of business 999",
    ),
    "a line without batch 0": (
        "update schedules.schedule set batch_index = 5 where interval_hours = 24",
        {"orphans"},
        "no batch 0",
    ),
    "a count is wrong": (
        "update schedules.schedule set businesses = businesses - 1 where id = 1",
        {"counts"},
        "counts",
    ),
    "a batch is too full": (
        "update schedules.schedule set capacity = 1 where interval_hours = 6",
        {"capacity"},
        "its capacity is 1",
    ),
    "a team is wrong": (
        """alter table schedules.mapping drop constraint mapping_business_id_team_fkey;
        update schedules.mapping set team = 'c' where team = 'b' and platform = 'booking'""",
        {"isolation", "orphans"},
        "",
    ),
    "a review is another's": (
        """insert into schedules.review (team, business_id, platform, review_id, hash, fetched_at)
        select 'b', min(id), 'google', 'r', '', now() from schedules.business where team = 'a'""",
        {"isolation"},
        "carries the team b, the business is of a",
    ),
    "a table lies open": (
        "alter table schedules.review disable row level security",
        {"isolation"},
        "review has no row-level security",
    ),
    "an active batch is empty": (
        """insert into schedules.schedule (platform, type, interval_hours, batch_index, offset_minutes, capacity, next_run_at)
        select platform, type, interval_hours, 7, offset_minutes, 9, next_run_at + interval '1 day'
        from schedules.schedule where id = 1""",
        {"active"},
        "is active and empty",
    ),
    "an identifier is another": (
        """update schedules.mapping set identifier = 'ChIJother'
        where team = 'b' and platform = 'google'""",
        {"identifiers"},
        "asks for ChIJother",
    ),
    "an identifier is not normalised": (
        """update schedules.mapping set identifier = 'http://WWW.booking.com/x/' where platform = 'booking';
        update schedules.business set identifiers = identifiers || '{"booking": "http://WWW.booking.com/x/"}'
        where identifiers ? 'booking'""",
        {"forms"},
        "is not how booking names one",
    ),
    "a tier was changed by hand": (
        "update schedules.team set tier = 'professional' where team = 'b'",
        {"intervals"},
        "should be every",
    ),
    "an interval has run out": (
        """insert into schedules.custom_interval (team, platform, type, interval_hours, set_by, expires_at)
        values ('a', 'google', 'reviews', 6, 'x', '2000-01-01');
        insert into schedules.custom_interval (team, platform, type, interval_hours, set_by)
        values ('a', 'google', 'overview', 9, 'x')""",
        {"intervals"},
        "should be every 9 h",
    ),
    "a slot is off the grid": (
        """update schedules.schedule set next_run_at = next_run_at + interval '1 minute'
        where id = 1""",
        {"slots"},
        "not a slot",
    ),
    "dispatch stands still": (
        """update schedules.schedule set next_run_at = next_run_at - interval '72 days'
        where id = 1""",
        {"slots"},
        "should have run at",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
async def test_what_is_broken_is_found_and_named(world: Placed, name: str) -> None:
    sql, found, words = BREAKAGES[name]
    await world.tell(sql)
    report = await world.core.checking.validate()
    failing = {check.name: check for check in report.checks if not check.ok}
    assert set(failing) == found and not report.ok
    assert any(words in example for check in failing.values() for example in check.examples)
    assert all(len(check.examples) == min(check.failed, checking.EXAMPLES) for check in failing.values())


async def test_of_many_failures_the_first_are_named_and_all_counted(
    world: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "PAGE", 2)
    await world.follow(range(100, 112), "b")
    await world.tell("update schedules.mapping set identifier = identifier || ' ' where team = 'b'")
    report = await world.core.checking.validate()
    failing = {check.name: (check.failed, len(check.examples)) for check in report.checks if not check.ok}
    assert failing == {"identifiers": (28, 10), "forms": (14, 10)}
