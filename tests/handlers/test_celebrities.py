"""The booking side: who can be booked, at what price, when; one winner, keys, cancelling."""

import asyncio
from typing import Any

import pytest_asyncio

from server.batching.tiers.rules import RULES
from tests.handlers.asking import Serving, Start, error
from tests.handlers.tier_world import (
    ADA,
    BOB,
    MONTH,
    TIERS,
    audited,
    classified,
    everybody,
    import_people,
    planned,
    post,
    ran,
    rated,
    slots_of,
)


@pytest_asyncio.fixture
async def serving(start: Start) -> Serving:
    """A server that plans only when it is told to."""
    return await start(tiers_monthly=False)


async def found(serving: Serving, query: str) -> list[str]:
    answer = await serving.ask("GET", f"/celebrities?{query}", None)
    assert answer.status == 200, answer.body
    return [row["key"] for row in answer.json["celebrities"]]


async def test_people_are_found_by_tier_country_price_and_name_page_by_page_as_soon_as_they_have_a_tier(
    serving: Serving,
) -> None:
    more = [rated("B", 9, country="FR"), rated("S", 9, excluded="hidden")]
    await import_people(serving, [*everybody(2), *more])
    assert await found(serving, "") == []
    await ran(serving, "/tiers/classify")
    assert await found(serving, "tier=S") == ["S0", "S1"], "who is left out is not there"
    assert await found(serving, "tier=D,S") == ["D0", "D1", "S0", "S1"], "by id, which the import gives by key"
    assert await found(serving, "country=FR") == ["B9"]
    assert await found(serving, "search=b%20person%201") == ["B1"]
    assert await found(serving, "minCents=5000001&tier=A,B") == ["A0", "A1"]
    cheap = await found(serving, "maxCents=99999")
    assert cheap and {key[0] for key in cheap} == {"D"}
    seen: list[str] = []
    after: int | None = 0
    while after is not None:
        page = (await serving.ask("GET", f"/celebrities?limit=2&after={after}", None)).json
        seen += [row["key"] for row in page["celebrities"]]
        after = page["next"]
    assert seen == await found(serving, "limit=500") and len(seen) == 11
    for row in (await serving.ask("GET", "/celebrities?limit=500", None)).json["celebrities"]:
        low, high = RULES[row["tier"]].price_cents
        assert low <= row["fromCents"] <= row["toCents"] <= high
        packages = (await serving.ask("GET", f"/celebrities/{row['id']}/pricing", None)).json["packages"]
        assert len(packages) == 6 and min(one["priceCents"] for one in packages) == row["fromCents"]
        assert "reason" not in row and "netWorthCents" not in row


async def test_a_type_that_is_not_allowed_is_not_offered(serving: Serving) -> None:
    ids = await classified(serving, [rated("D", 0, allow_physical=False)])
    packages = (await serving.ask("GET", f"/celebrities/{ids['D0']}/pricing", None)).json["packages"]
    assert {one["meetingType"] for one in packages} == {"virtual"}


async def test_availability_is_asked_for_by_dates_times_or_milliseconds(serving: Serving) -> None:
    ids = await classified(serving, everybody(1))
    await planned(serving, *TIERS)
    path = f"/celebrities/{ids['D0']}/availability"
    slots = await slots_of(serving, ids["D0"])
    assert slots == sorted(slots, key=lambda slot: slot["startsAtMs"])
    seen: list[dict[str, Any]] = []
    begin: str | int | None = f"{MONTH}-01"
    while begin is not None:
        page = (await serving.ask("GET", f"{path}?from={begin}&to={MONTH}-28&limit=2", None)).json
        seen += page["slots"]
        begin = page["next"]
    assert seen == slots
    first = slots[0]["startsAtMs"]
    only = (await serving.ask("GET", f"{path}?from={first}&to={first + 1}", None)).json["slots"]
    assert only == slots[:1]
    rest = (await serving.ask("GET", f"{path}?from={MONTH}-01T00:00:00Z&to={MONTH}-28T00:00:00%2B00:00", None)).json
    assert rest["slots"] == slots and rest["timezone"] == "Europe/Berlin"
    for query, field in (("from=x", "from"), ("from=2027-01-02&to=2027-01-01", "to"), ("to=2099-01-01", "to")):
        assert error(await serving.ask("GET", f"{path}?{query}", None)) == (422, "bad_message", field)


async def test_of_fifty_who_want_one_slot_one_has_it_and_keys_are_kept(serving: Serving) -> None:
    ids = await classified(serving, everybody(1))
    await planned(serving, *TIERS)
    first, second, *_ = await slots_of(serving, ids["D0"])
    path = f"/availability/{first['id']}/book"
    asked = [serving.ask("POST", path, "viewer", sub=f"u{n}", headers={"Idempotency-Key": "k"}) for n in range(50)]
    answers = await asyncio.gather(*asked)
    (winner,) = (n for n, answer in enumerate(answers) if answer.status == 200)
    losers = [answer for n, answer in enumerate(answers) if n != winner]
    assert {error(answer) for answer in losers} == {(409, "conflict", "slot")}
    assert "somebody else" in losers[0].json["error"]["message"]
    again = await post(serving, path, {"key": "k"}, role="viewer", sub=f"u{winner}")
    assert (again.status, again.json["new"], again.json["booking"]["id"]) == (200, False, first["id"])
    other = f"/availability/{second['id']}/book"
    assert error(await post(serving, other, {"key": "k"}, role="viewer", sub=f"u{winner}")) == (409, "conflict", "key")
    both = await serving.ask("POST", other, **ADA, json={"key": "a"}, headers={"Idempotency-Key": "b"})
    assert error(both) == (422, "bad_message", "key")
    assert error(await post(serving, other, {"key": "k"}, role=None))[:2] == (401, "unauthorized")


async def test_the_price_is_frozen_and_a_booking_is_its_bookers_to_cancel_or_an_admins(serving: Serving) -> None:
    ids = await classified(serving, everybody(1))
    await planned(serving, *TIERS)
    slot = (await slots_of(serving, ids["D0"]))[0]
    path = f"/availability/{slot['id']}"
    assert (await post(serving, f"{path}/book", {"key": "k"}, **ADA)).status == 200
    assert (await ran(serving, "/tiers/classify", person=ids["D0"]))["failed"] == 0
    await post(serving, f"/tiers/people/{ids['D0']}/decision", {"tier": "C", "reason": "risen"})
    mine = next(one for one in await slots_of(serving, ids["D0"], **ADA) if one["status"] == "booked")
    assert mine["priceCents"] == slot["priceCents"]
    assert error(await serving.ask("POST", f"{path}/cancel", **BOB)) == (404, "not_found", "slot")
    gone = await serving.ask("POST", f"{path}/cancel", "admin")
    assert gone.json["booking"]["status"] == "cancelled"
    assert (await audited(serving, gone.json["auditId"]))["action"] == "tiers cancel"
    assert error(await serving.ask("POST", f"{path}/cancel", **ADA))[:2] == (409, "conflict")
    late = await post(serving, f"{path}/book", {"key": "k"}, **ADA)
    assert (late.status, late.json["new"], late.json["booking"]["status"]) == (200, False, "cancelled")
