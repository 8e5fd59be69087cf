"""Rules: when to tell somebody about the imports, and what follows from the figures."""

import datetime as dt
import re
from typing import Any

import pytest
from pydantic import SecretStr

from server.batching.imports.figures import REFUSED, RULES, STUCK_TURNS, WATCH, Figures, Pace, suggested, week
from server.batching.imports.provider import CredentialId, _Answer, _refusal
from server.batching.imports.store import Day, Overview, WorkerView
from server.batching.loop import TurnRecord

pytestmark = pytest.mark.pure
RULE = {rule.name: rule.test for rule in RULES}


def turns(*figures: Figures, error: str | None = None) -> dict[str, list[TurnRecord]]:
    records = [
        TurnRecord(WATCH, number, "interval", 0, 0.0, error=error, detail=one.detail)
        for number, one in enumerate(figures, 1)
    ]
    return {WATCH: records}


@pytest.mark.parametrize(
    ("name", "quiet", "told"),
    [
        ("imports-failing", Figures(ended_lately=9, failed_lately=4), Figures(ended_lately=10, failed_lately=5)),
        ("imports-failing", Figures(ended_lately=100, failed_lately=49), Figures(ended_lately=100, failed_lately=50)),
        ("imports-credential-refused", Figures(failed_lately=3), Figures(failed_lately=3, refused_lately=1)),
        ("imports-worker-lost", Figures(workers=1), Figures(workers=1, dead=1)),
    ],
)
def test_a_rule_fires_at_its_bound_and_not_before(name: str, quiet: Figures, told: Figures) -> None:
    assert RULE[name](turns(quiet), 0) is None
    assert RULE[name](turns(quiet, told), 0)
    assert RULE[name](turns(told, quiet), 0) is None, "only the last turn counts"
    assert RULE[name](turns(told, error="PostgreSQL is away"), 0) is None
    assert RULE[name]({}, 0) is None


def test_a_queue_is_stuck_when_jobs_wait_without_a_worker_for_a_while() -> None:
    waits, works, empty = Figures(pending=3), Figures(pending=3, workers=1), Figures()
    stuck = RULE["imports-stuck"]
    assert "3" in str(stuck(turns(*[waits] * STUCK_TURNS), 0))
    assert stuck(turns(*[waits] * (STUCK_TURNS - 1)), 0) is None
    for other in (works, empty):
        assert stuck(turns(*[waits] * (STUCK_TURNS - 1), other), 0) is None
        assert stuck(turns(other, *[waits] * (STUCK_TURNS - 1)), 0) is None


def test_files_that_nobody_can_read_are_told_of_after_a_while_even_when_workers_live() -> None:
    stranded, fine = Figures(pending=3, stranded=2, workers=4), Figures(pending=3, workers=4)
    rule = RULE["imports-stranded"]
    assert "2 imports of files" in str(rule(turns(*[stranded] * STUCK_TURNS), 0))
    assert rule(turns(*[stranded] * (STUCK_TURNS - 1)), 0) is None
    assert rule(turns(*[stranded] * (STUCK_TURNS - 1), fine), 0) is None
    assert rule(turns(*[stranded] * STUCK_TURNS, error="PostgreSQL is away"), 0) is None


def test_credentials_that_were_refused_are_named() -> None:
    told = RULE["imports-credential-refused"](turns(Figures(refused_lately=2, refused="3, 7")), 0)
    assert "(3, 7)" in str(told)


@pytest.mark.parametrize(("status", "refused"), [(401, True), (403, True), (404, False), (400, False)])
def test_what_the_provider_says_of_a_bad_key_is_known_as_that(status: int, refused: bool) -> None:
    error = _refusal(_Answer(status, None, b"{}"), CredentialId(3), "biz_demo", SecretStr("k"), 0)
    assert bool(re.search(REFUSED, error.message)) is refused
    assert re.search(REFUSED, "credential 7 was removed: add one") and not re.search(REFUSED, "no credential")


def test_the_pace_is_of_the_last_minute_and_never_negative() -> None:
    pace = Pace()
    assert (pace.members_per_s, pace.jobs_per_min) == (0.0, 0.0)
    for second, (members, jobs) in enumerate([(0, 0), (100, 1), (300, 1), (0, 2), (50, 2)]):
        pace.add(float(second), Figures(members=members, completed_today=jobs))
    assert pace.members_per_s == pytest.approx(350 / 4)
    assert pace.jobs_per_min == pytest.approx(2 * 60 / 4)
    pace.add(1000.0, Figures(members=50, completed_today=2))
    assert pace.members_per_s == 0.0


def worker(status: str, lanes: int) -> WorkerView:
    return WorkerView(1, "w", status, None, 0, 0, "h", 1, "0", lanes, 0.1)


def day(number: int, jobs: int, seconds: float) -> Day:
    return Day(dt.date(2026, 5, number), jobs, jobs, 0, 10 * jobs, seconds)


def overview(pending: int, *workers: WorkerView, days: tuple[Day, ...] = ()) -> Overview:
    return Overview({"pending": pending}, workers, days)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (overview(0, worker("active", 4), days=(day(1, 5, 60.0),)), 0),
        (overview(100, worker("active", 4), days=(day(1, 5, 60.0),)), 3),
        (overview(100, worker("active", 10), worker("dead", 1), days=(day(1, 5, 60.0),)), 1),
        (overview(1), 1),
    ],
)
def test_so_many_workers_are_suggested_as_clear_the_backlog_in_ten_minutes(state: Overview, expected: int) -> None:
    assert suggested(state) == expected


def test_a_week_weighs_its_days_by_their_jobs() -> None:
    sums: dict[str, Any] = week((day(2, 3, 10.0), day(1, 1, 2.0)))
    assert (sums["totalJobs"], sums["totalMembersProcessed"], sums["avgProcessingSeconds"]) == (4, 40, 8.0)
    assert week(())["avgProcessingSeconds"] == 0.0
