"""People of the tiers as those see them who run the server: list, review queue, evidence, decision, calendar."""

from typing import Any

import pytest_asyncio

from tests.handlers.asking import Serving, Start, error
from tests.handlers.tier_world import MONTH, audited, classified, planned, post, rated

UNCLEAR = {"global_recognition": "S", "affluence": "D"}


@pytest_asyncio.fixture
async def serving(start: Start) -> Serving:
    """A server that plans only when it is told to."""
    return await start(tiers_monthly=False)


async def listed(serving: Serving, query: str) -> list[str]:
    answer = await serving.ask("GET", f"/tiers/people?{query}")
    assert answer.status == 200, answer.body
    return [row["key"] for row in answer.json["people"]]


async def test_people_are_filtered_searched_sorted_and_paged(serving: Serving) -> None:
    people = [rated("A", 1), rated("B", 2, country="FR"), rated("C", 3, **UNCLEAR), {"key": "none", "name": "Zoe 100%"}]
    await classified(serving, [*people, rated("S", 4, excluded="deceased")])
    assert await listed(serving, "tier=B") == ["B2"]
    assert await listed(serving, "country=fr") == ["B2"]
    assert await listed(serving, "review=true&sort=name") == ["C3", "none"]
    assert await listed(serving, "flag=no_evidence") == ["none"]
    assert await listed(serving, "search=100%25") == ["none"] and await listed(serving, "search=_ZZ") == []
    assert await listed(serving, "search=%25") == ["none"], "no pattern, but the character"
    assert await listed(serving, "search=person&excluded=false") == ["A1", "B2", "C3"]
    assert await listed(serving, "excluded=true") == ["S4"]
    for sort in ("id", "name", "tier"):
        seen: list[str] = []
        after: int | None = None
        while after is not None or not seen:
            params = {"sort": sort, "limit": 2} | ({"after": after} if after else {})
            page = (await serving.ask("GET", "/tiers/people", params=params)).json
            seen += [row["key"] for row in page["people"]]
            after = page["next"]
        assert seen == await listed(serving, f"sort={sort}") and len(set(seen)) == 5, sort
    assert (await listed(serving, "sort=tier"))[0] == "A1"


async def test_a_person_shows_why_it_has_its_tier(serving: Serving) -> None:
    known = {"aliases": ["Cee"], "net_worth": "1500000.50", "comparables": "A Person 1=A; Unknown", "timezone": ""}
    ids = await classified(serving, [rated("A", 1), rated("C", 3, **known)])
    file = (await serving.ask("GET", f"/tiers/people/{ids['C3']}")).json
    assert (file["tier"], file["source"], file["country"], file["countrySource"]) == ("A", "comparables", "DE", "given")
    assert file["comparables"] == [{"name": "A Person 1", "tier": "A"}, {"name": "Unknown", "tier": None}]
    assert (file["aliases"], file["netWorthCents"], file["timezone"]) == (["Cee"], 150_000_050, "Europe/Berlin")
    assert file["ratings"]["careerLegacy"] == "C" and len(file["ratings"]) == 5
    assert len(file["packages"]) == 6 and len({place["country"] for place in file["pool"]} & {"DE"}) == 0
    assert [(row["from"], row["to"], row["who"]) for row in file["history"]] == [(None, "A", "a admin")]


async def test_a_decision_takes_a_reason_counts_at_once_and_stays(serving: Serving) -> None:
    ids = await classified(serving, [rated("C", 3, **UNCLEAR), {"key": "none", "name": "Zoe"}])
    path = f"/tiers/people/{ids['C3']}/decision"
    answer = await post(serving, path, {"tier": "B", "reason": "seen on every stage"})
    assert answer.status == 200, answer.body
    row = answer.json["person"]
    assert (row["tier"], row["needsReview"]) == ("B", False) and "seen on every stage" in row["reason"]
    entry = await audited(serving, answer.json["auditId"])
    assert (entry["who"], entry["action"], entry["target"]) == ("a admin", "tiers review", f"celebrity {ids['C3']}")
    file = (await serving.ask("GET", f"/tiers/people/{ids['C3']}")).json
    assert file["override"] == {"tier": "B", "reason": "seen on every stage", "reviewed": True}
    history = file["history"]
    assert [(one["from"], one["to"]) for one in history] == [(row_from, row_to) for row_from, row_to in _moves(history)]
    assert history[0]["to"] == "B"
    kept = await post(serving, f"/tiers/people/{ids['none']}/decision", {"accept": True, "reason": "nobody knows her"})
    assert (kept.json["person"]["tier"], kept.json["person"]["needsReview"]) == ("D", False)
    assert await listed(serving, "review=true") == []
    await classified(serving, [])
    assert await listed(serving, "review=true") == [] and await listed(serving, "tier=B") == ["C3"]


def _moves(history: list[dict[str, Any]]) -> list[tuple[str | None, str]]:
    """Each change begins where the one before it ended."""
    tiers = [one["to"] for one in reversed(history)]
    return list(zip([None, *tiers], tiers, strict=False))[::-1]


async def test_a_calendar_has_slots_of_every_status_rotations_and_cooldowns(serving: Serving) -> None:
    ids = await classified(serving, [rated("S", 0), rated("A", 0), rated("A", 1)])
    await planned(serving, "S", "A")
    path = f"/tiers/people/{ids['A0']}/calendar?month={MONTH}"
    calendar = (await serving.ask("GET", path)).json
    slot = calendar["slots"][0]
    booked = await post(serving, f"/availability/{slot['id']}/book", {"key": "k"}, role="viewer", sub="ada")
    assert booked.status == 200, booked.body
    assert (await post(serving, f"/availability/{slot['id']}/cancel", {}, role="viewer", sub="ada")).status == 200
    again = (await serving.ask("GET", path)).json
    assert len(again["slots"]) == len(calendar["slots"]) + 1
    (gone,) = (one for one in again["slots"] if one["status"] == "cancelled")
    assert (gone["id"], gone["bookedBy"]) == (slot["id"], "ada") and gone["bookedAtMs"] <= gone["cancelledAtMs"]
    assert all(one["localDate"].startswith(MONTH) for one in again["slots"])
    physical = [one for one in calendar["slots"] if one["meetingType"] == "physical"]
    assert physical and {one["city"]["city"] for one in physical} <= {
        place["city"] for stay in calendar["rotations"] for place in stay["cities"]
    }
    assert {one["city"]["city"] for one in physical} <= {one["city"] for one in calendar["cooldowns"]}
    assert (calendar["timezone"], calendar["item"]["status"]) == ("Europe/Berlin", "done")
    assert error(await serving.ask("GET", f"/tiers/people/{ids['A0']}/calendar?month=x"))[2] == "month"
