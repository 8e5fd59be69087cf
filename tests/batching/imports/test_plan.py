"""What is decided about jobs: endings, members, where to stop, progress, how much to claim. Pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batching.imports.plan import (
    Again,
    Done,
    Failed,
    Job,
    Ladder,
    Released,
    advanced,
    checked_priority,
    folded,
    following,
    harvest,
    progress,
    rescued,
    settled,
    tier_of,
    verdict_at_end,
    wanted,
    workers_suggested,
)
from server.core.identity import Identity
from server.core.member import BadRow, Member, Page
from server.errors import Refused

pytestmark = pytest.mark.pure

LADDER = Ladder(first_s=5, cap_s=60)
emails = st.one_of(st.none(), st.sampled_from(["a@x", " A@X ", "b@x", "ß@x", "SS@x", "", "  "]), st.text(max_size=8))
members = st.lists(st.builds(Member, external_id=st.text(max_size=3), email=emails), max_size=30)


@pytest.mark.parametrize(("failures", "least", "most"), [(0, 2.5, 5), (1, 5, 10), (5, 30, 60)])
def test_a_failure_waits_longer_each_time_within_the_jitters_spread(failures: int, least: float, most: float) -> None:
    for jitter in (0.0, 0.5, 0.999):
        row = settled(Job(1, 2, retry_count=failures, max_retries=9), Again("away"), LADDER, jitter)
        assert (row.status, row.failures) == ("scheduled", failures + 1)
        assert row.delay_s is not None and least <= row.delay_s <= most


def test_the_other_sides_wait_counts_when_it_is_longer() -> None:
    row = settled(Job(1, 1), Again("away", 100.0), LADDER, 0.0)
    assert row.delay_s == 100
    assert settled(Job(1, 1), Again("away", 1.0), LADDER, 0.0).delay_s == 5


@given(st.integers(0, 10), st.integers(0, 10))
def test_after_max_retries_it_has_failed(retries: int, most: int) -> None:
    row = settled(Job(1, 1, retry_count=retries, max_retries=most), Again("away"), LADDER, 0.0)
    assert row.status == ("failed" if retries >= most else "scheduled")
    assert row.failures <= max(retries, most)


def test_what_is_done_released_or_failed_for_good_costs_no_retry() -> None:
    job = Job(1, 3, retry_count=2)
    rows = [settled(job, ending, LADDER, 0.0) for ending in (Done(), Released(), Failed("no", afresh=True))]
    assert [(row.status, row.failures, row.lease) for row in rows] == [
        ("completed", 2, 3),
        ("pending", 2, 3),
        ("failed", 2, 3),
    ]
    assert rows[2].afresh


def test_the_first_crash_brings_a_job_back_at_once_later_ones_apart() -> None:
    first = rescued(Job(1, 1, max_retries=2), LADDER, 0.0)
    second = rescued(Job(1, 2, retry_count=1, max_retries=2), LADDER, 0.0)
    last = rescued(Job(1, 3, retry_count=2, max_retries=2), LADDER, 0.0)
    assert (first.status, first.delay_s, first.failures) == ("pending", None, 1)
    assert (second.status, second.delay_s, second.failures) == ("scheduled", 10, 2)
    assert last.status == "failed"


def test_errors_are_cut() -> None:
    assert len(settled(Job(1, 1), Failed("x" * 5000), LADDER, 0.0).error or "") == 1000


@given(members)
def test_a_harvest_has_each_folded_address_once_in_order_and_counts_who_has_none(found: list[Member]) -> None:
    gathered = harvest(found)
    keys = [email for email, _ in gathered.contacts]
    expected = {folded(one.email) for one in found} - {None}
    assert keys == sorted(expected)  # type: ignore[type-var]  # None was taken out
    assert gathered.seen == len(found)
    assert gathered.without_email == sum(folded(one.email) is None for one in found)


def test_addresses_are_told_apart_trimmed_and_case_folded_and_the_first_member_counts() -> None:
    one, two = Member("1", " Ann@Example.COM"), Member("2", "ann@example.com ")
    assert harvest([one, two]).contacts == (("ann@example.com", one),)


@pytest.mark.parametrize("email", [None, "", "   ", "x" * 400])
def test_an_address_that_cannot_be_stored_is_none(email: str | None) -> None:
    assert folded(email) is None


@pytest.mark.parametrize(
    ("page", "cursor"),
    [
        (Page((Member("1"),), "b", True), "b"),
        (Page((Member("1"),), "b", False), None),
        (Page((Member("1"),), None, True), None),
        (Page((Member("1"),), "", True), None),
        (Page((Member("1"),), "a", True), None),
        (Page((), "b", True), None),
        (Page((), "b", True, rejected=(BadRow(0, None, "no"),)), "b"),
    ],
)
def test_it_stops_without_a_next_page_without_a_cursor_with_the_same_cursor_and_at_an_empty_page(
    page: Page, cursor: str | None
) -> None:
    assert following(page, "a") == cursor


@given(st.lists(members, max_size=6))
def test_counts_add_up_over_pages(pages: list[list[Member]]) -> None:
    job = Job(1, 1)
    for number, found in enumerate(pages):
        page = Page(tuple(found), f"c{number}", True, rejected=(BadRow(number, None, "no"),))
        job = advanced(job, page, harvest(found))
    assert (job.pages, job.seen, job.rejected) == (len(pages), sum(map(len, pages)), len(pages))


def test_the_last_page_leaves_the_cursor_where_it_is_and_says_so() -> None:
    job = advanced(
        Job(1, 1, cursor="a", seen=5, retry_count=2), Page((Member("1"),), None, False), harvest([Member("1")])
    )
    assert (job.cursor, job.drained, job.seen, job.retry_count) == ("a", True, 6, 0)


def test_a_job_whose_members_all_lack_an_address_says_that_the_scope_is_missing() -> None:
    ending = verdict_at_end(Job(1, 1, seen=7, without_email=7))
    assert isinstance(ending, Failed)
    assert "scope" in ending.error and "7 members" in ending.error and ending.afresh
    assert verdict_at_end(Job(1, 1, seen=7, without_email=6)) == Done(7)
    assert verdict_at_end(Job(1, 1)) == Done()


def test_progress_has_percent_rate_and_time_left() -> None:
    assert progress("processing", 250, 1000, 10.0).percent == 25
    assert progress("processing", 250, 1000, 10.0).members_per_s == 25
    assert progress("processing", 250, 1000, 10.0).eta_s == 30
    assert progress("processing", 2000, 1000, 10.0).percent == 99.9
    assert progress("completed", 900, 1000, 10.0).percent == 100
    assert progress("pending", 0, None, None).percent is None
    assert progress("processing", 10, None, 1.0).eta_s is None


@given(st.integers(0, 64), st.integers(0, 500), st.floats(0, 1e6), st.integers(1, 500))
def test_it_claims_for_idle_lanes_and_ahead_of_them_but_within_bounds(
    idle: int, waiting: int, rate: float, most: int
) -> None:
    count = wanted(idle, waiting, rate, most)
    assert 0 <= count <= max(idle, most)
    assert count + waiting <= max(idle, most, waiting)
    if waiting == 0:
        assert count >= idle


def test_long_jobs_are_not_claimed_ahead() -> None:
    assert wanted(0, 0, 0.0, 100) == 0
    assert wanted(2, 0, 0.0, 100) == 2


def test_the_backlog_suggests_workers() -> None:
    assert workers_suggested(0, 10, 4, 60) == 0
    assert workers_suggested(1000, 10, 4, 600) == 5
    assert workers_suggested(1, 0.001, 4, 600) == 1


def test_priorities_are_checked_and_the_high_ones_are_for_admins() -> None:
    paul, root = Identity("paul"), Identity("root", frozenset(["admin"]))
    assert [tier_of(checked_priority(p, root)) for p in (9, 5, 0)] == [0, 4, 9]
    assert checked_priority(5, paul) == 5
    for bad, who, code in ((6, paul, "forbidden"), (10, root, "bad_message"), (-1, root, "bad_message")):
        with pytest.raises(Refused) as refused:
            checked_priority(bad, who)
        assert (refused.value.code, refused.value.field) == (code, "priority")
