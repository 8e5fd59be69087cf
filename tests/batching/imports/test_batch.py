"""The member import over a real queue: pages, dedupe, resuming, what ends a job and what brings it back."""

from collections.abc import Sequence

import pytest

from server.batching.imports import claims
from server.batching.imports.batch import MemberImport
from server.batching.imports.plan import Done, Job, Ladder, Lost, Onward
from server.batching.imports.queue import Terms
from server.core.member import AuthFailed, Member, Page, Retryable, Source, Unusable
from server.edge.bus import Bus
from server.edge.clock import SystemClock, VirtualClock
from server.edge.postgres import Database
from tests.batching.imports.world import (
    Members,
    ask,
    claim,
    job,
    member,
    put,
    statuses,
    until,
    worker,
    working,
)


def importing(db: Database, source: Source, clock: SystemClock | VirtualClock | None = None) -> MemberImport:
    async def opened(job: Job) -> Source:
        return source

    return MemberImport(db, Bus(db, node="test"), clock or SystemClock(), opened)


async def ended(db: Database) -> bool:
    return not set(await statuses(db)) & {"pending", "scheduled", "processing"}


async def test_a_list_is_imported_page_by_page_with_each_address_once(db: Database) -> None:
    (only,) = await put(db, audience_id=1)
    people = [member(n) for n in range(45)] + [member(3, email=" M3@EXAMPLE.com"), member(99, email=None)]
    source = Members(people)
    async with working(db, importing(db, source).step):
        await until(lambda: ended(db))
    row = await job(db, only)
    assert (row["status"], row["pages"], row["seen"], row["imported"]) == ("completed", 5, 47, 45)
    assert (row["without_email"], row["total"]) == (1, 47)
    assert await ask(db, "select count(*) from imports.contacts") == 45
    assert await ask(db, "select total_members_processed from imports.batch_processing_stats") == 47
    assert source.pages == [None, "10", "20", "30", "40"]


async def test_all_that_is_known_of_a_member_is_stored(db: Database) -> None:
    await put(db, audience_id=7)
    known = Member("id7", "A@b.c", "Ann", "ann", 1_700_000_000_000, "active", "+49", '{"tier":"gold"}')
    async with working(db, importing(db, Members([known])).step):
        await until(lambda: ended(db))
    async with db.connection() as connection:
        row = await connection.fetchrow("select * from imports.contacts")
    assert (row["audience_id"], row["email"], row["external_id"], row["name"]) == (7, "a@b.c", "id7", "Ann")
    assert (row["username"], row["phone"], row["status"]) == ("ann", "+49", "active")
    assert (row["joined_ms"], row["extra"]) == (1_700_000_000_000, '{"tier": "gold"}')


@pytest.mark.parametrize("error", [AuthFailed("the key was refused (401)"), Unusable("no such account")])
async def test_a_refused_key_or_an_unknown_account_ends_the_job_and_says_why(db: Database, error: Unusable) -> None:
    (only,) = await put(db)

    class Refusing:
        async def page(self, cursor: str | None) -> Page:
            raise error

    async with working(db, importing(db, Refusing()).step):
        await until(lambda: ended(db))
    row = await job(db, only)
    assert (row["status"], row["error"], row["retry_count"]) == ("failed", error.message, 0)


async def test_a_source_that_cannot_be_opened_ends_the_job_and_says_why(db: Database) -> None:
    (only,) = await put(db)

    async def opened(job: Job) -> Source:
        raise Unusable("the credential was removed")

    async with working(db, MemberImport(db, Bus(db, node="t"), SystemClock(), opened).step):
        await until(lambda: ended(db))
    assert (await job(db, only))["error"] == "the credential was removed"


class Stumbling(Members):
    """Fails once before each page."""

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__(members)
        self.failed: set[str | None] = set()

    async def page(self, cursor: str | None) -> Page:
        if cursor not in self.failed:
            self.failed.add(cursor)
            raise Retryable("the provider is busy (429)", 0.01)
        return await super().page(cursor)


async def test_what_can_pass_by_itself_brings_the_job_back_to_the_page_it_was_at(db: Database) -> None:
    (only,) = await put(db, max_retries=1, audience_id=1)
    source = Stumbling([member(n) for n in range(30)])
    terms = Terms(lease_s=2, poll_ms=100, ladder=Ladder(0.01, 0.01))
    async with working(db, importing(db, source).step, terms):
        await until(lambda: ended(db))
    row = await job(db, only)
    assert (row["status"], row["seen"], row["imported"]) == ("completed", 30, 30)
    assert source.pages == [None, "10", "20"]


async def test_when_all_members_lack_an_address_the_job_says_that_the_scope_is_missing(db: Database) -> None:
    (only,) = await put(db)
    async with working(db, importing(db, Members([member(n, email=None) for n in range(12)])).step):
        await until(lambda: ended(db))
    row = await job(db, only)
    assert row["status"] == "failed"
    assert "scope" in row["error"]
    assert row["cursor"] is None


async def test_after_a_crash_between_two_pages_the_next_worker_goes_on_from_the_last_page(db: Database) -> None:
    (only,) = await put(db, audience_id=1)
    source = Members([member(n) for n in range(30)])
    work = importing(db, source)
    async with db.connection() as connection:
        (held,) = await claim(connection, await worker(connection, 0.0))
    after = await work.step(held)
    assert isinstance(after, Onward)
    async with working(db, importing(db, source).step):
        await until(lambda: ended(db))
    row = await job(db, only)
    assert (row["status"], row["seen"], row["imported"], row["lease"]) == ("completed", 30, 30, 2)
    assert source.pages == [None, "10", "20"]


async def test_after_a_crash_behind_the_last_page_nothing_is_fetched_or_counted_again(db: Database) -> None:
    (only,) = await put(db, audience_id=1)
    source = Members([member(n) for n in range(5)])
    async with db.connection() as connection:
        (held,) = await claim(connection, await worker(connection, 0.0))
    assert await importing(db, source).step(held) == Done(5)
    async with working(db, importing(db, source).step):
        await until(lambda: ended(db))
    row = await job(db, only)
    assert (row["status"], row["seen"], row["imported"]) == ("completed", 5, 5)
    assert source.pages == [None]


async def test_a_page_of_a_job_that_is_not_ours_any_more_is_thrown_away(db: Database) -> None:
    await put(db)
    async with db.connection() as connection:
        number = await worker(connection)
        (held,) = await claim(connection, number)
        await claims.leave(connection, number, 0, 0)
    assert await importing(db, Members([member(1)])).step(held) == Lost()
    assert await ask(db, "select count(*) from imports.contacts") == 0


async def test_progress_is_told_at_most_twice_a_second_and_always_with_the_page_it_tells_of(db: Database) -> None:
    await put(db)
    clock = VirtualClock()
    work = importing(db, Members([member(n) for n in range(60)]), clock)
    async with db.connection() as connection:
        (held,) = await claim(connection, await worker(connection))
    told = []
    for pause_s in (0, 0.1, 0.3, 0.2, 0.4):
        await clock.advance(pause_s)
        verdict = await work.step(held)
        assert isinstance(verdict, Onward)
        held = verdict.job
        told.append(await ask(db, "select count(*) from ops.outbox where topic = 'imports'"))
    assert told == [1, 1, 1, 2, 2]


async def test_two_jobs_that_fill_one_list_at_the_same_time_store_each_address_once(db: Database) -> None:
    await put(db, 2, audience_id=1)
    people = [member(n) for n in range(200)]
    async with working(db, importing(db, Members(list(reversed(people)))).step):
        await until(lambda: ended(db))
    assert await ask(db, "select count(*) from imports.contacts") == 200
    assert await ask(db, "select sum(imported) from imports.batch_processing_queue") == 200
    assert await ask(db, "select max(retry_count) from imports.batch_processing_queue") == 0
