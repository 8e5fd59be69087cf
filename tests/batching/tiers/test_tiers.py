"""The facade as others use it: loops that work off runs and months, reviews, reports, what the public may look up."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.batching.ledger import Ledger
from server.batching.panel import Panel
from server.batching.parts import Follow, Parts
from server.batching.tiers import figures, runs
from server.batching.tiers.catalogue import Wanted
from server.batching.tiers.months import month_named, name_of
from server.batching.tiers.reports import warning
from server.batching.tiers.rules import TIERS, Tier
from server.batching.tiers.runs import RunView
from server.batching.tiers.tiers import CLEAN, EXPIRE, LED, RUN, Tiers
from server.batching.tiers.work import SLICE_S, Breath
from server.edge.bus import Bus
from server.edge.clock import SystemClock
from server.edge.postgres import Database
from server.edge.tasks import Tasks
from server.errors import Refused
from server.settings import load
from tests.batching.imports.world import until
from tests.batching.tiers.world import (
    ADMIN,
    FAR,
    PAUL,
    Place,
    ask,
    bring,
    classified,
    classify,
    crowd,
    everything_planned,
    generate,
    opened,
    row,
    rows_of,
    tell,
)
from tests.leading import leading


@asynccontextmanager
async def running(
    db: Database, follow: Follow | None = None, lead: bool = True, **settings: Any
) -> AsyncIterator[Place]:
    """The tiers of a process whose loops run; the bus is driven by hand."""
    clock, tasks = SystemClock(), Tasks()
    ledger = Ledger(db, clock)
    panel = Panel(ledger, clock=clock, tasks=tasks)
    bus = Bus(db, node="test")
    parts = Parts(
        load({}, **{"tiers_monthly": False, **settings}),
        db,
        bus,
        clock,
        panel,
        ledger.record,
        tasks,
    )
    tiers = await Tiers.open(parts, leading(lead), follow)
    panel.start()
    try:
        yield Place(tiers, db, panel, tasks, bus)
    finally:
        await panel.stop()
        await tasks.close()
        await bus.close()


async def is_done(place: Place, run: int) -> bool:
    return (await place.tiers.run(run)).status == "done"


async def test_a_run_that_is_opened_is_worked_off_by_the_loop(db: Database) -> None:
    async with running(db) as place:
        await bring(place.tiers, crowd(30, "D"))
        first = (await place.tiers.classify("all", ADMIN)).run
        await until(lambda: is_done(place, first.id), "classified")
        second = (await place.tiers.generate("D", FAR, ADMIN, override=True)).run
        await until(lambda: is_done(place, second.id), "planned")
        await until(lambda: place.tiers.counts == {"planned": 30, "classified": 30, "failed": 0}, "counted")


async def test_a_run_left_by_a_process_that_died_is_worked_off_by_another(db: Database) -> None:
    async with opened(db) as dead:
        await classified(dead.tiers, crowd(10, "D"))
        run = (await dead.tiers.generate("D", FAR, ADMIN, override=True)).run
    async with running(db) as place:
        place.panel.loop(RUN).wake()
        await until(lambda: is_done(place, run.id), "planned")


def ahead(days: int) -> int:
    day = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=days)
    return 12 * day.year + day.month - 1


async def test_the_month_that_begins_soon_is_planned_and_verified_from_s_to_d(db: Database) -> None:
    async with running(db, tiers_monthly=True, tiers_ahead_days=60, tiers_look_ms=1_000) as place:
        await bring(place.tiers, crowd(25))
        run = (await place.tiers.classify("all", ADMIN)).run
        await until(lambda: is_done(place, run.id), "classified")
        place.panel.loop(figures.MONTHLY).wake()

        async def verified() -> bool:
            return {one.tier for one in await place.tiers.verifications() if one.passed and not one.stale} == set(TIERS)

        await until(verified, "all tiers verified", 60)
        runs = await place.tiers.runs("generate")
        assert [one.tier for one in reversed(runs)] == list(TIERS)
        assert {one.month for one in runs} == {name_of(ahead(60))}
        record = await place.panel.loop(figures.MONTHLY).run_now()
        assert record.detail["action"] == "rest"


async def test_a_tier_is_planned_when_a_run_has_passed_over_all_of_it_or_nobody_is_in_it(db: Database) -> None:
    async def planned() -> set[str]:
        async with db.connection() as connection:
            return set((await runs.month_state(connection, FAR)).planned)

    async with opened(db) as place:
        await classified(place.tiers, [row(1, "S"), row(2, "B"), row(3, "B"), row(4, "D", excluded="left")])
        assert await planned() == {"A", "C", "D"}
        await generate(place.tiers, "S")
        assert await planned() == {"S", "A", "C", "D"}


async def test_the_month_stops_with_an_alert_at_the_first_tier_that_fails(db: Database) -> None:
    async with running(db, tiers_ahead_days=60) as place:
        await bring(place.tiers, crowd(25))
        run = (await place.tiers.classify("all", ADMIN)).run
        await until(lambda: is_done(place, run.id), "classified")
        broken = await ask(db, "select min(celebrity_id) from tiers.celebrity_settings where tier = 'A'")
        await tell(db, "delete from tiers.celebrity_pricing where celebrity_id = $1", broken)
        records: dict[str, list[Any]] = {figures.MONTHLY: []}

        async def stopped() -> bool:
            records[figures.MONTHLY].append(await place.panel.loop(figures.MONTHLY).run_now())
            return records[figures.MONTHLY][-1].detail.get("action") == "stop"

        await until(stopped, "stopped", 60)
        said = figures.RULES[0].test(records, 0)
        assert said is not None
        assert "tier A has failed" in said
        assert {one.tier for one in await place.tiers.runs("generate")} == {"S", "A"}
        await place.tiers.complete((await place.tiers.classify("all", ADMIN)).run.id)
        await generate(place.tiers, "A", ahead(60), override=False)
        assert (await place.tiers.verify("A", ahead(60), ADMIN))[0].passed
        assert (await place.panel.loop(figures.MONTHLY).run_now()).detail["tier"] == "B"


async def test_only_the_leader_plans_months_and_cleans(db: Database) -> None:
    async with running(db, lead=False) as place:
        for name in LED:
            with pytest.raises(Refused, match="only on the leader"):
                await place.panel.loop(name).run_now()


async def test_slots_whose_time_has_come_expire_and_booked_ones_stay(db: Database) -> None:
    async with running(db) as place:
        await classified(place.tiers, crowd(3, "D"))
        await generate(place.tiers)
        slots = [
            one["id"]
            for one in await rows_of(db, "select id from tiers.availability where celebrity_id = 1 order by id")
        ]
        await place.tiers.book(slots[0], "k", PAUL)
        past = """
        update tiers.availability a set starts_at = now() - n * interval '1 hour', ends_at = now() - n * interval '1
            hour' + duration * interval '1 min'
        from (select id, row_number() over (order by id) as n from tiers.availability where celebrity_id = 1) o where o.id = a.id"""
        await tell(db, past)
        assert (await place.panel.loop(EXPIRE).run_now()).done == len(slots) - 1
        assert await ask(db, "select status from tiers.availability where id = $1", slots[0]) == "booked"
        assert await ask(db, "select count(*) from tiers.availability where status = 'expired'") == len(slots) - 1
        assert (await place.panel.loop(EXPIRE).run_now()).done == 0
        await tell(db, past.replace("celebrity_id = 1", "celebrity_id = 2 limit 1"))
        assert (await place.panel.loop(EXPIRE).run_now()).done == 1


async def test_what_is_over_or_old_is_cleaned_away_and_what_is_needed_stays(db: Database) -> None:
    async with running(db) as place:
        await classified(place.tiers, crowd(3, "D"))
        await generate(place.tiers)
        before = await everything_planned(db)
        assert (await place.panel.loop(CLEAN).run_now()).done == 0
        assert await everything_planned(db) == before
        await tell(
            db,
            """update tiers.city_cooldown set last_visit = last_visit - 3000, until = (last_visit - 3000 +
                make_interval(months => months))::date""",
        )
        await tell(
            db,
            """update tiers.availability set starts_at = starts_at - interval '900 days', ends_at = ends_at -
                interval '900 days', status = 'expired'""",
        )
        await tell(db, "update tiers.rotations set starts_on = starts_on - 903, ends_on = ends_on - 903")
        await tell(
            db,
            "update tiers.runs set finished_at = finished_at - interval '900 days', month = month - interval '30 months'",
        )
        await tell(db, "update tiers.verifications set at = at - interval '900 days'")
        await place.panel.loop(CLEAN).run_now()
        counts = """select (select count(*) from tiers.city_cooldown), (select count(*) from tiers.availability),
            (select count(*) from tiers.runs), (select count(*) from tiers.run_items), (select count(distinct
            celebrity_id) from tiers.rotations), (select count(*) from tiers.rotations)"""
        assert tuple((await rows_of(db, counts))[0]) == (0, 0, 0, 0, 3, 3)


async def test_followers_are_told_how_far_a_run_is_and_that_it_has_ended(db: Database) -> None:
    heard: list[dict[str, object]] = []

    def hear(topic: str, message: dict[str, object]) -> bool:
        assert topic == "tiers"
        heard.append(message)
        return [one["status"] for one in heard].count("done") != 1  # No room for the end: it is told again.

    async with running(db, Follow(lambda: ["tiers"], hear)) as place:
        await place.bus.step()
        await bring(place.tiers, crowd(40, "D"))
        run = (await place.tiers.classify("all", ADMIN)).run

        async def ended() -> bool:
            await place.bus.step()
            return [one["status"] for one in heard].count("done") == 2

        await until(ended, "told of the end again")
    last = heard[-1]
    assert (last["type"], last["topic"], last["run"], last["kind"]) == ("progress", "tiers", run.id, "classify")
    assert (last["total"], last["taken"], last["done"], last["percent"], last["etaMs"]) == (40, 40, 40, 100.0, None)


async def test_a_command_is_told_how_far_its_run_is_and_that_it_has_ended(db: Database) -> None:
    async with opened(db, tiers_batch=1) as place:
        await classified(place.tiers, crowd(60, "D"))
        heard: list[RunView] = []
        run = (await place.tiers.generate("D", FAR, ADMIN, override=True)).run
        await place.tiers.complete(run.id, heard.append)
        assert (heard[-1].status, heard[-1].done) == ("done", 60)
        assert [one.done for one in heard] == sorted(one.done for one in heard)
        assert len(heard) > 1


class Ticking(SystemClock):
    """A millisecond passes whenever somebody looks; sleeps are counted."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.rests = 0

    def monotonic(self) -> float:
        self.now_s += 0.001
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.rests += 1


@pytest.mark.pure
async def test_planning_lets_the_event_loop_go_on_after_each_slice() -> None:
    clock = Ticking()
    breathe = Breath(clock)
    for _ in range(100):
        await breathe()
    assert 100 / (SLICE_S * 1000 + 2) <= clock.rests <= 100 / (SLICE_S * 1000 - 1)


# Reviews, history, reports.


async def flagged(place: Place) -> list[int]:
    return [one.id for one in await place.tiers.review_queue()]


async def test_a_decision_sets_the_tier_with_its_reason_and_leaves_a_trail(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, None), row(2, "C"), row(3, None, country="Atlantis")])
        assert await flagged(place) == [1, 3]
        entry = await place.tiers.review(1, "A", "known in Japan", ADMIN)
        assert await flagged(place) == [3]
        (now, first) = await place.tiers.history(1)
        assert (now.from_tier, now.to_tier, now.source, now.who) == ("D", "A", "override", "root")
        assert now.reason.endswith("known in Japan")
        assert (first.from_tier, first.to_tier) == (None, "D")
        audit = (
            await rows_of(db, "select action, target, before::text, after::text from ops.audit where id = $1", entry)
        )[0]
        assert tuple(audit)[:2] == ("tiers review", "celebrity 1")
        assert '"tier": "D"' in audit["before"]
        assert '"tier": "A"' in audit["after"]
        assert (await place.tiers.verify(None, FAR, ADMIN))[0].rules["price_range"] == 0


async def test_a_decision_survives_the_next_import_and_the_next_classification(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, None, override="B")])
        await place.tiers.review(1, "A", "grown", ADMIN)
        await classified(place.tiers, [row(1, "S", override="C")])
        assert (await place.tiers.celebrity(1)).tier == "A"
        assert (await classify(place.tiers)).done == 0


async def test_a_tier_can_be_kept_and_its_flags_accepted_until_new_ones_come(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, None)])
        await place.tiers.review(1, None, "nobody knows them", ADMIN)
        assert await flagged(place) == []
        assert (await place.tiers.celebrity(1)).tier == "D"
        assert (await classify(place.tiers)).done == 0
        await classified(place.tiers, [row(1, None, country="Atlantis")])
        (one,) = await place.tiers.review_queue()
        assert list(one.flags) == ["no_evidence", "country"]


async def test_a_decision_needs_a_person_and_a_reason(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1)])
        with pytest.raises(Refused, match="no celebrity 9"):
            await place.tiers.review(9, "A", "because", ADMIN)
        for reason in ("", "  ", "x" * 501):
            with pytest.raises(Refused, match="reason of 1 to 500"):
                await place.tiers.review(1, "A", reason, ADMIN)


async def test_the_report_has_a_line_for_each_tier_and_counts_who_has_nothing(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [*crowd(20), row(50, None), row(51, excluded="hidden")])
        await generate(place.tiers, "S")
        slots = await ask(db, "select count(*) from tiers.availability")
        await tell(
            db, "delete from tiers.availability where celebrity_id = (select min(celebrity_id) from tiers.availability)"
        )
        left = await ask(db, "select count(*) from tiers.availability")
        await bring(place.tiers, [row(60)])
        report = await place.tiers.report(FAR)
        assert (report.missing, report.no_evidence, report.needs_review, report.excluded) == (1, 1, 1, 1)
        assert report.flags == {"no_evidence": 1}
        for lines in (report.distribution, report.pricing, report.coverage):
            assert [one.tier for one in lines] == list(TIERS)
        shares = {one.tier: one for one in report.distribution}
        assert (shares["S"].people, shares["D"].people) == (4, 5)
        assert (shares["S"].min_slots or 0) >= 2
        assert shares["S"].warning is not None
        assert (report.pricing[0].priced_people, report.pricing[0].packages, report.pricing[0].active_packages) == (
            4,
            24,
            24,
        )
        top = report.coverage[0]
        assert (top.people, top.with_slots, top.slots) == (4, 3, left)
        assert slots > left
        assert top.avg_slots_per_person == pytest.approx(left / 4)
        assert 56 <= (top.avg_rotation_days or 0) <= 84
        assert (report.coverage[4].slots, report.coverage[4].avg_slots_per_person) == (0, 0)


async def test_the_report_of_nobody_is_zeros(db: Database) -> None:
    async with opened(db) as place:
        report = await place.tiers.report()
        assert [one.people for one in report.distribution] == [0] * 5
        assert [one.warning for one in report.distribution] == [None] * 5


@pytest.mark.pure
def test_only_shares_far_outside_are_warned_of() -> None:
    usual: dict[Tier, int] = {"S": 30, "A": 350, "B": 750, "C": 2000, "D": 6500}
    assert [warning(tier, usual) for tier in TIERS] == [None] * 5
    assert "expected are" in (warning("S", {**usual, "S": 3_000}) or "")
    assert warning("D", {**usual, "D": 100}) is not None


# For the public.


async def test_people_are_paged_by_id_and_filtered(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [*crowd(30), row(40, "D", country="DE", name="Zo\u00eb Quill")])

        async def ids(**wanted: Any) -> list[int]:
            return [one.id for one in await place.tiers.celebrities(Wanted(**wanted))]

        everybody = await ids()
        assert everybody == sorted(everybody)
        assert len(everybody) == 31
        assert await ids(limit=10) + await ids(after=everybody[9], limit=500) == everybody
        assert {one.tier for one in await place.tiers.celebrities(Wanted(tiers=("S", "B")))} == {"S", "B"}
        assert {one.country for one in await place.tiers.celebrities(Wanted(country="DE"))} == {"DE"}
        assert await ids(search=" QUILL ") == [everybody[-1]]
        assert await ids(search="nobody") == []
        dear = await place.tiers.celebrities(Wanted(price_from=100_000_00))
        assert {"S"} <= {one.tier for one in dear} <= {"S", "A"}
        cheap = await place.tiers.celebrities(Wanted(price_to=100_00, price_from=100_00))
        assert all(one.from_cents == 100_00 for one in cheap)
        assert await ids(price_from=10**12) == []
        one = await place.tiers.celebrity(everybody[0])
        prices = [package.price_cents for package in await place.tiers.pricing(one.id)]
        assert (len(prices), min(prices), max(prices)) == (6, one.from_cents, one.to_cents)


async def test_a_package_that_is_not_active_does_not_exist_for_the_public(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, allow_physical=False)])
        assert {one.meeting_type for one in await place.tiers.pricing(1)} == {"virtual"}
        with pytest.raises(Refused, match="no celebrity 2"):
            await place.tiers.pricing(2)


# Figures.


async def test_the_figures_and_the_rules_that_follow_from_them(db: Database) -> None:
    async with running(db) as place:
        await classified(place.tiers, crowd(5))
        await bring(place.tiers, [row(9)])
        await place.tiers.verify("S", FAR, ADMIN)
        await tell(db, "update tiers.runs set failed = 3")
        stuck = (await place.tiers.classify("new", ADMIN)).run
        await tell(
            db,
            "update tiers.runs set status = 'running', finished_at = null, progress_at = now() - interval '1 hour' where id = $1",
            stuck.id,
        )
        async with db.transaction() as connection:
            made = await figures.read(connection)
        assert (made.people, made.missing, made.failing, made.failed_lately) == (6, 1, 1, 3)
        assert (made.running, made.stuck) == (1, 1)
        gauges: dict[str, Callable[[], float]] = {}
        place.tiers.figures = made
        place.tiers.measure(
            lambda name, _, value: gauges.__setitem__(name, value),
            lambda name, _, value: gauges.__setitem__(name, value),
        )
        assert gauges["tiers_missing"]() == 1.0
        assert "tiers_people_planned" in gauges


async def test_a_month_by_its_number_or_the_one_that_it_is(db: Database) -> None:
    async with opened(db) as place:
        assert place.tiers.month() == ahead(0)
        assert place.tiers.month(month_named("2027-03")) == 12 * 2027 + 2
