"""Phase 1 over rows: everybody gets a tier and what follows from it, again changes nothing, and one who fails stops nobody."""

from __future__ import annotations

import asyncio

import pytest

from server.batching.tiers.classifying import PART
from server.batching.tiers.rules import TIERS
from server.edge.postgres import Database
from server.errors import Refused
from tests.batching.tiers.world import ADMIN, ask, bring, classified, classify, crowd, opened, row, rows_of, tell

EVERYTHING = """
select (select array_agg(c order by id)::text from tiers.celebrities c),
    (select array_agg(s order by celebrity_id)::text from tiers.celebrity_settings s),
    (select array_agg(p order by celebrity_id, meeting_type, duration)::text from tiers.celebrity_pricing p),
    (select array_agg(h order by id)::text from tiers.tier_history h)"""


async def test_everybody_gets_the_tier_of_the_ratings_six_packages_and_a_history(db: Database) -> None:
    async with opened(db) as place:
        run = await classified(place.tiers, crowd(25))
        assert (run.status, run.total, run.done, run.failed, run.unchanged) == ("done", 25, 25, 0, 0)
    rows = await rows_of(
        db, "select c.key, s.* from tiers.celebrity_settings s join tiers.celebrities c on c.id = celebrity_id"
    )
    assert all(one["tier"] == TIERS[int(one["key"][1:]) % 5] and one["verified"] for one in rows)
    assert {
        one["n"] for one in await rows_of(db, "select count(*) n from tiers.celebrity_pricing group by celebrity_id")
    } == {6}
    assert await ask(db, "select count(*) from tiers.tier_history where from_tier is null and source = 'ratings'") == 25


async def test_running_again_changes_no_row_not_even_its_time(db: Database) -> None:
    async with opened(db) as place:
        await classified(
            place.tiers, [*crowd(10), row(50, None), row(51, country="Atlantis"), row(52, country="", legacy=True)]
        )
        before = await rows_of(db, EVERYTHING)
        run = await classify(place.tiers)
        assert (run.done, run.unchanged, run.failed) == (0, 13, 0)
        assert await rows_of(db, EVERYTHING) == before


async def test_new_only_leaves_those_with_a_tier_alone(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, "D")])
        await bring(place.tiers, [row(1, "S"), row(2, "A")])
        run = await classify(place.tiers, "new")
        assert (run.total, run.done) == (1, 1)
        tiers = await rows_of(db, "select tier::text from tiers.celebrity_settings order by celebrity_id")
        assert [one["tier"] for one in tiers] == ["D", "A"]
        assert (await classify(place.tiers)).done == 1
        assert await ask(db, "select to_tier::text from tiers.tier_history where from_tier = 'D'") == "S"


async def test_one_tier_or_one_person_only(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, "D"), row(2, "C"), row(3, "D")])
        await bring(place.tiers, [row(1, "B"), row(2, "B"), row(3, "B")])
        person = await ask(db, "select id from tiers.celebrities where key = 'p000001'")
        assert (await classify(place.tiers, "person", person=person)).done == 1
        assert (await classify(place.tiers, "tier", tier="D")).done == 1
        assert await ask(db, "select count(*) from tiers.celebrity_settings where tier = 'B'") == 2
        with pytest.raises(Refused, match="name a tier or a person"):
            await place.tiers.classify("tier", ADMIN)
        with pytest.raises(Refused, match="no celebrity 999"):
            await place.tiers.classify("person", ADMIN, person=999)


async def test_excluded_people_are_left_out_with_their_reason(db: Database) -> None:
    async with opened(db) as place:
        run = await classified(place.tiers, [row(1), row(2, excluded="deceased")])
        assert (run.total, run.done, run.skipped) == (2, 1, 1)
        assert await place.tiers.reasons(run.id) == [("skipped", "left out: deceased", 1)]
        assert await ask(db, "select count(*) from tiers.celebrity_settings where tier is null") == 1


async def test_one_person_failing_never_stops_the_others(db: Database) -> None:
    async with opened(db, tiers_batch=1) as place:
        await bring(place.tiers, crowd(15))
        await tell(db, "alter table tiers.celebrity_pricing add constraint broken check (celebrity_id <> 7)")
        run = await classify(place.tiers)
        assert (run.status, run.done, run.failed) == ("done", 14, 1)
        (item,) = await place.tiers.items(run.id, "failed")
        assert item.celebrity_id == 7
        assert "broken" in (item.reason or "")
        await tell(db, "alter table tiers.celebrity_pricing drop constraint broken")
        assert (await classify(place.tiers, "new")).done == 1


async def test_comparables_are_found_by_name_and_alias_among_curated_people(db: Database) -> None:
    async with opened(db) as place:
        people = [
            row(1, None, name="Beyonc\u00e9 K.", override="S", aliases="Queen B"),
            row(2, None, name="Someone", comparables="BEYONCE K"),
            row(3, None, name="Another", comparables="queen-b"),
            row(4, None, name="Nobody", comparables="Somebody Else"),
            row(5, "S", name="Merely Rated"),
            row(6, None, name="Beside Rated", comparables="Merely Rated"),
        ]
        await classified(place.tiers, people)
        rows = await rows_of(db, "select tier::text, source from tiers.celebrity_settings order by celebrity_id")
        assert [tuple(one) for one in rows] == [
            *(("S", "override"), ("S", "comparables"), ("S", "comparables")),
            *(("D", "no_evidence"), ("S", "ratings"), ("D", "no_evidence")),
        ]


async def test_a_name_of_two_people_of_different_tiers_is_nobodys(db: Database) -> None:
    async with opened(db) as place:
        people = [row(1, None, name="Twin", override="S"), row(2, None, name="Twin", override="A")]
        await classified(place.tiers, [*people, row(3, None, comparables="Twin")])
        assert (
            await ask(db, "select source from tiers.celebrity_settings order by celebrity_id desc limit 1")
            == "no_evidence"
        )


async def test_no_evidence_and_no_country_are_flagged_for_review(db: Database) -> None:
    async with opened(db) as place:
        await classified(
            place.tiers, [row(1, None), row(2, country="Atlantis"), row(3, country="U.S."), row(4, country="")]
        )
        rows = await rows_of(
            db,
            "select tier::text, needs_review, flags, country, country_source from tiers.celebrity_settings s join tiers.celebrities c"
            " on c.id = celebrity_id order by 1 desc, c.id",
        )
        assert [tuple(one) for one in rows[:1]] == [
            ("D", True, ["no_evidence"], rows[0]["country"], rows[0]["country_source"])
        ]
        assert [tuple(one)[1:] for one in rows[1:]] == [
            (True, ["country"], None, "unknown"),
            (False, [], "US", "alias"),
            (False, [], "US", "default"),
        ]


async def test_two_processes_on_one_run_classify_everybody_once(db: Database) -> None:
    async with opened(db, tiers_batch=2) as one, opened(db, tiers_batch=2) as other:
        await bring(one.tiers, crowd(200))
        first = await one.tiers.classify("all", ADMIN)
        second = await other.tiers.classify("all", ADMIN)
        assert (first.run.id, second.new) == (second.run.id, False)
        runs = await asyncio.gather(one.tiers.complete(first.run.id), other.tiers.complete(first.run.id))
        assert {(run.done, run.unchanged, run.failed) for run in runs} == {(200, 0, 0)}
    assert await ask(db, "select count(*) from tiers.tier_history") == 200


async def test_a_change_of_tier_makes_what_was_verified_stale(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1, "D"), row(2, "C")])
        for tier in ("D", "C", "B"):
            await place.tiers.verify(tier, None, ADMIN)  # type: ignore[arg-type]
        await classified(place.tiers, [row(1, "B")])
        stale = {one.tier: one.stale for one in await place.tiers.verifications()}
        assert stale == {"D": True, "C": False, "B": True}


async def test_a_stopped_run_goes_on_when_it_is_resumed(db: Database) -> None:
    async with opened(db) as place:
        await bring(place.tiers, crowd(3))
        run = (await place.tiers.classify("all", ADMIN)).run
        assert (await place.tiers.stop_run(run.id, ADMIN)).run.status == "stopped"
        assert (await place.tiers.complete(run.id)).done == 0
        with pytest.raises(Refused, match="is stopped"):
            await place.tiers.stop_run(run.id, ADMIN)
        again = await place.tiers.classify("all", ADMIN, resume=True)
        assert again.run.id == run.id
        assert (await place.tiers.complete(run.id)).done == 3
        with pytest.raises(Refused, match="no run"):
            await place.tiers.classify("all", ADMIN, resume=True)


async def test_those_who_fail_in_different_parts_of_a_batch_are_reported_and_the_others_are_classified(
    db: Database,
) -> None:
    bad = (5, PART + 7, 2 * PART + 1)
    async with opened(db) as place:
        await bring(place.tiers, crowd(2 * PART + 20))
        await tell(db, f"alter table tiers.celebrity_pricing add constraint broken check (celebrity_id not in {bad})")
        run = await classify(place.tiers)
        assert (run.status, run.done, run.failed, run.unchanged) == ("done", 2 * PART + 17, 3, 0)
        assert tuple(one.celebrity_id for one in await place.tiers.items(run.id, "failed")) == bad
        await tell(db, "alter table tiers.celebrity_pricing drop constraint broken")
        run = await classify(place.tiers)
        assert (run.done, run.failed, run.unchanged) == (3, 0, 2 * PART + 17)
        assert await ask(db, "select count(*) from tiers.celebrity_pricing") == 6 * (2 * PART + 20)


async def test_packages_are_active_for_the_kinds_that_are_allowed(db: Database) -> None:
    async with opened(db) as place:
        await classified(place.tiers, [row(1), row(2, allow_virtual=False), row(3, allow_physical=False)])
    sql = "select celebrity_id, meeting_type::text from tiers.celebrity_pricing where active order by 1, meeting_type, duration"
    physical, virtual = ["physical"] * 3, ["virtual"] * 3
    expected = (
        [(1, kind) for kind in physical + virtual] + [(2, kind) for kind in physical] + [(3, kind) for kind in virtual]
    )
    assert [tuple(one) for one in await rows_of(db, sql)] == expected


async def test_a_package_that_is_missing_comes_back_and_the_others_stay_as_they_are(db: Database) -> None:
    packages = "select p::text from tiers.celebrity_pricing p where duration <> 30 order by p"
    async with opened(db) as place:
        await classified(place.tiers, [row(1), row(2, allow_virtual=False)])
        whole, before = await rows_of(db, WITHOUT_TIMES), await rows_of(db, packages)
        await tell(db, "delete from tiers.celebrity_pricing where duration = 30")
        assert (await classify(place.tiers)).done == 2
        assert await rows_of(db, packages) == before
        assert await rows_of(db, WITHOUT_TIMES) == whole


WITHOUT_TIMES = """
select celebrity_id, meeting_type::text, duration, price_cents, active from tiers.celebrity_pricing order by 1, 2, 3"""
