"""The tiers over HTTP: whole servers, from a file of people to a booking."""

from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs are installed
import orjson
import pytest_asyncio
from websockets.asyncio.client import connect

from server.handlers import http
from tests.handlers.asking import Serving, Start, error, until
from tests.handlers.tier_world import (
    ADA,
    CSV,
    MONTH,
    TIERS,
    Place,
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

DOCS = Path(__file__).parents[2] / "docs" / "tiers.md"


@pytest_asyncio.fixture
async def place(start: Start) -> Place:
    """Starts a server that plans only when it is told to."""

    async def begin(**chosen: Any) -> Serving:
        return await start(**{"tiers_monthly": False, **chosen})

    return begin


async def test_people_are_imported_classified_planned_verified_and_booked(place: Place) -> None:
    serving = await place()
    report = await import_people(serving, everybody())
    assert (report["rows"], report["created"], report["rejected"]) == (15, 15, 0)
    assert (await audited(serving, report["auditId"]))["action"] == "tiers import"
    run = await ran(serving, "/tiers/classify")
    assert (run["kind"], run["scope"], run["total"], run["done"], run["percent"]) == ("classify", "all", 15, 15, 100.0)
    again = await ran(serving, "/tiers/classify")
    assert (again["done"], again["unchanged"]) == (0, 15)

    await planned(serving, *TIERS)
    answer = await post(serving, "/tiers/verify", {"month": MONTH})
    assert answer.json["passed"], answer.json
    assert [one["tier"] for one in answer.json["verifications"]] == [None, *TIERS]
    state = (await serving.ask("GET", f"/tiers/state?month={MONTH}")).json
    assert state["next"]["action"] == "done"
    assert all(row["verified"] and row["open"] and row["people"] == 3 for row in state["tiers"])
    report = (await serving.ask("GET", f"/tiers/report?month={MONTH}")).json
    assert [row["tier"] for row in report["availability"]] == list(TIERS)
    assert all(row["withSlots"] == row["people"] == 3 and row["slots"] >= 3 for row in report["availability"])

    people = (await serving.ask("GET", "/celebrities?tier=D", None)).json["celebrities"]
    (first, *_) = slots = await slots_of(serving, people[0]["id"])
    booked = await serving.ask("POST", f"/availability/{first['id']}/book", **ADA, headers={"Idempotency-Key": "k"})
    assert booked.status == 200, booked.body
    assert booked.json["new"] and booked.json["booking"]["priceCents"] == first["priceCents"]
    assert first["id"] not in [slot["id"] for slot in await slots_of(serving, people[0]["id"])]
    mine = await slots_of(serving, people[0]["id"], **ADA)
    assert len(mine) == len(slots) and [slot["id"] for slot in mine if slot["status"] == "booked"] == [first["id"]]


async def test_bad_rows_are_reported_by_line_field_and_reason_and_the_good_ones_go_in(place: Place) -> None:
    serving = await place()
    text = b"name,country,affluence\nAda,DE,A\n,DE,A\nBob,DE,Z\nEve,FR,B\n"
    answer = await serving.ask("POST", "/tiers/people", data=text, headers=CSV)
    assert answer.status == 200
    assert [(row["line"], row["field"]) for row in answer.json["errors"]] == [(3, "name"), (4, "affluence")]
    assert (answer.json["created"], answer.json["rejected"]) == (2, 2)
    again = await serving.ask("POST", "/tiers/people", data=text, headers=CSV)
    assert (again.json["created"], again.json["updated"], again.json["unchanged"]) == (0, 0, 2)
    none = await serving.ask("POST", "/tiers/people", data=b"name\n,\n", headers=CSV)
    assert none.status == 422 and none.json["rejected"] == 1 and none.json["error"]["code"] == "bad_message"
    other = await serving.ask("POST", "/tiers/people", data=b"{}", headers={"Content-Type": "application/json"})
    assert error(other)[:2] == (400, "bad_json")


async def test_a_shut_gate_says_what_opens_it_and_is_passed_with_a_reason_only(place: Place) -> None:
    serving = await place()
    await import_people(serving, everybody(1))
    answer = await post(serving, "/tiers/generate", {"tier": "S", "month": MONTH})
    assert error(answer)[:2] == (409, "conflict") and "classify" in answer.json["error"]["message"]
    state = (await serving.ask("GET", f"/tiers/state?month={MONTH}")).json
    assert (state["next"]["action"], state["people"]["missingTier"], state["foundation"]["open"]) == (
        "classify",
        5,
        False,
    )
    await ran(serving, "/tiers/classify", mode="new-only")
    answer = await post(serving, "/tiers/generate", {"tier": "A", "month": MONTH})
    assert error(answer) == (409, "conflict", "gate") and "tiers verify --tier S" in answer.json["error"]["message"]
    state = (await serving.ask("GET", f"/tiers/state?month={MONTH}")).json
    assert [row["open"] for row in state["tiers"]] == [True, False, False, False, False]
    assert (state["next"]["action"], state["next"]["tier"]) == ("generate", "S")
    answer = await post(serving, "/tiers/generate", {"tier": "A", "month": MONTH, "override": "the show is tonight"})
    assert answer.status == 200 and answer.json["run"]["override"]
    row = await audited(serving, answer.json["auditId"])
    assert row["action"] == "tiers generate" and "the show is tonight" in row["after"]


async def test_who_follows_the_tiers_hears_how_far_a_run_is_and_the_end_last(place: Place) -> None:
    serving = await place()
    await import_people(serving, everybody(20))
    async with connect(serving.app.ws_url, additional_headers=serving.headers("admin")) as socket:
        await socket.send(orjson.dumps({"type": "subscribe", "topic": "tiers"}).decode())
        assert orjson.loads(await socket.recv())["type"] == "subscribed"
        run = await ran(serving, "/tiers/classify")
        heard: dict[str, Any] = {"status": "running"}
        while heard["status"] == "running":
            heard = orjson.loads(await socket.recv())
            assert (heard["type"], heard["topic"], heard["run"]) == ("progress", "tiers", run["id"])
    assert (heard["status"], heard["percent"], heard["taken"], heard["total"]) == ("done", 100.0, 100, 100)


async def test_a_run_is_looked_at_person_by_person_and_a_month_is_planned_anew_around_bookings(place: Place) -> None:
    serving = await place()
    ids = await classified(serving, [rated("S", 0), rated("S", 1), rated("S", 2, allow_physical=False)])
    await planned(serving, "S")
    (run,) = (await serving.ask("GET", "/tiers/runs?kind=generate")).json["runs"]
    items: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = (await serving.ask("GET", f"/tiers/runs/{run['id']}/items?limit=2&after={after}")).json
        items += page["items"]
        after = page["next"]
    assert [(item["key"], item["status"]) for item in items] == [("S0", "done"), ("S1", "done"), ("S2", "done")]
    assert sum(item["physical"] + item["virtual"] for item in items) == run["slots"]
    assert items[2]["physical"] == 0
    first = (await slots_of(serving, ids["S0"]))[0]
    await serving.ask("POST", f"/availability/{first['id']}/book", **ADA, json={"key": "k"})
    again = await ran(serving, "/tiers/generate", person=ids["S0"], month=MONTH)
    assert again["done"] == 0, "what is planned is not planned twice"
    anew = await ran(serving, "/tiers/generate", person=ids["S0"], month=MONTH, replace=True)
    assert (anew["scope"], anew["replace"], anew["failed"]) == ("person", True, 0)
    assert first["id"] in [slot["id"] for slot in await slots_of(serving, ids["S0"], **ADA)]
    state = (await serving.ask("GET", f"/tiers/state?month={MONTH}")).json
    assert state["tiers"][0]["run"]["id"] == run["id"], "a run of one person is none of the tier"
    assert state["tiers"][0]["verification"]["stale"] and not state["tiers"][0]["verified"]
    stopped = await serving.ask("POST", f"/tiers/runs/{run['id']}/stop")
    assert error(stopped)[:2] == (409, "conflict")


async def test_a_verification_that_fails_names_person_and_rule_and_shuts_the_next_gate(place: Place) -> None:
    serving = await place()
    ids = await classified(serving, everybody(1))
    await ran(serving, "/tiers/generate", tier="S", month=MONTH)
    database = serving.app._database
    assert database is not None
    async with database.transaction() as connection:
        await connection.execute("update tiers.availability set price_cents = price_cents + 1")
    answer = await post(serving, "/tiers/verify", {"tier": "S", "month": MONTH})
    (found,) = answer.json["verifications"]
    assert not answer.json["passed"] and found["rules"]["slot_price"] == found["violations"] > 0
    assert {(row["person"], row["rule"]) for row in found["examples"]} == {(ids["S0"], "slot_price")}
    state = (await serving.ask("GET", f"/tiers/state?month={MONTH}")).json
    assert (state["next"]["action"], state["tiers"][1]["open"]) == ("look", False)
    assert error(await post(serving, "/tiers/generate", {"tier": "A", "month": MONTH}))[:2] == (409, "conflict")
    listed = (await serving.ask("GET", f"/tiers/verifications?tier=S&month={MONTH}")).json["verifications"]
    assert listed == [found]
    assert (await serving.ask("GET", "/tiers/verifications?tier=A")).json == {"verifications": [], "next": None}


async def test_a_month_that_was_verified_before_it_was_planned_is_planned_next(place: Place) -> None:
    serving = await place()
    await classified(serving, everybody(1))
    answer = await post(serving, "/tiers/verify", {"month": MONTH})
    assert [one["passed"] for one in answer.json["verifications"]] == [True, *[False] * 5]
    state = (await serving.ask("GET", f"/tiers/state?month={MONTH}")).json
    assert (state["next"]["action"], state["next"]["tier"]) == ("generate", "S")
    await planned(serving, *TIERS)
    assert (await serving.ask("GET", f"/tiers/state?month={MONTH}")).json["next"]["action"] == "done"


async def test_figures_and_alerts_tell_of_people_without_a_tier_and_of_failures(place: Place) -> None:
    serving = await place()
    await import_people(serving, everybody(1))
    await serving.app.panel.run("tiers-watch")
    text = (await serving.ask("GET", "/metrics")).body.decode()
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("batchcast_tiers_"))
    assert (numbers["batchcast_tiers_people"], numbers["batchcast_tiers_missing"]) == ("5.0", "5.0")
    loops = {loop["name"] for loop in (await serving.ask("GET", "/loops")).json["loops"]}
    assert {"tiers-run", "tiers-monthly", "tiers-expire", "tiers-clean", "tiers-watch"} <= loops


async def test_with_the_monthly_generation_off_nothing_is_planned_before_somebody_says_so(place: Place) -> None:
    serving = await place()
    await classified(serving, everybody(1))

    async def led() -> bool:
        return "tiers-expire" in {record.loop for record in serving.app.ledger.recent("tiers-expire")}

    await until(led)
    assert serving.app.panel.state("tiers-monthly").turns == 0
    runs = (await serving.ask("GET", "/tiers/runs")).json["runs"]
    assert [run["kind"] for run in runs] == ["classify"]


async def test_the_month_is_planned_by_itself_and_stops_with_an_alert_at_what_fails(place: Place) -> None:
    serving = await place(tiers_monthly=True, tiers_ahead_days=40, tiers_look_ms=1_000)
    await classified(serving, everybody(1))

    async def through() -> bool:
        turns = serving.app.ledger.recent("tiers-monthly")
        if not turns or turns[-1].detail.get("action") != "rest":
            return False  # It rests also while nobody is classified yet.
        month = turns[-1].detail["month"]
        state = (await serving.ask("GET", f"/tiers/state?month={month}")).json
        return bool(state["monthly"]) and all(row["verified"] for row in state["tiers"])

    await until(through)
    month = serving.app.ledger.recent("tiers-monthly")[-1].detail["month"]
    database = serving.app._database
    assert database is not None
    async with database.transaction() as connection:
        await connection.execute("update tiers.availability set price_cents = price_cents + 1")
        await connection.execute("update tiers.verifications set stale = true where tier in ('A', 'B')")

    async def stopped() -> bool:
        return (await serving.app.panel.run("tiers-monthly")).detail.get("action") == "stop"

    await until(stopped)
    await serving.app.panel.run("alerts")
    alerts = {alert["rule"]: alert["message"] for alert in (await serving.ask("GET", "/alerts")).json["alerts"]}
    assert "tier A" in alerts["tiers-month-stopped"]
    state = (await serving.ask("GET", f"/tiers/state?month={month}")).json
    assert state["tiers"][2]["verification"]["stale"], "what comes after the failure is not verified"


async def test_answers_fit_their_schemas(place: Place) -> None:
    serving = await place()
    ids = await classified(serving, [*everybody(1), rated("D", 9, affluence="S", aliases=["Nine"], net_worth=1000)])
    await planned(serving, "S", "A", "B", "C", "D")
    slot = (await slots_of(serving, ids["D0"]))[0]["id"]
    document: Any = http.openapi_document()
    decision = {"tier": "C", "reason": "known better"}
    asked: list[tuple[str, str, str, Any]] = [
        ("POST", "/availability/{id}/book", f"/availability/{slot}/book", {"key": "k"}),
        ("GET", "/tiers/people/{id}/calendar", f"/tiers/people/{ids['D0']}/calendar?month={MONTH}", None),
        ("POST", "/availability/{id}/cancel", f"/availability/{slot}/cancel", {}),
        ("POST", "/tiers/people/{id}/decision", f"/tiers/people/{ids['D9']}/decision", decision),
        ("GET", "/tiers/people", "/tiers/people?sort=name", None),
        ("GET", "/tiers/people/{id}", f"/tiers/people/{ids['D9']}", None),
        ("GET", "/tiers/state", f"/tiers/state?month={MONTH}", None),
        ("GET", "/tiers/report", f"/tiers/report?month={MONTH}", None),
        ("POST", "/tiers/verify", "/tiers/verify", {"month": MONTH}),
        ("GET", "/tiers/verifications", "/tiers/verifications", None),
        ("POST", "/tiers/classify", "/tiers/classify", {}),
        ("POST", "/tiers/generate", "/tiers/generate", {"tier": "S", "month": MONTH}),
        ("GET", "/tiers/runs", "/tiers/runs", None),
        ("GET", "/tiers/runs/{id}", "/tiers/runs/2", None),
        ("GET", "/tiers/runs/{id}/items", "/tiers/runs/2/items", None),
        ("GET", "/celebrities", "/celebrities", None),
        ("GET", "/celebrities/{id}", f"/celebrities/{ids['S0']}", None),
        ("GET", "/celebrities/{id}/pricing", f"/celebrities/{ids['S0']}/pricing", None),
        ("GET", "/celebrities/{id}/availability", f"/celebrities/{ids['S0']}/availability?from={MONTH}-01", None),
    ]
    for method, path, url, body in asked:
        answer = await serving.ask(method, url, **({} if body is None else {"json": body}))
        assert answer.status == 200, (url, answer.body)
        schema = document["paths"][path][method.lower()]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json)


async def test_the_queries_of_the_documentation_run_as_written(place: Place) -> None:
    serving = await place()
    await classified(serving, everybody(2))
    await planned(serving, "S")
    text = DOCS.read_text().partition("```sql\n")[2].partition("```")[0]
    queries = [query for query in text.split(";") if query.strip()]
    assert len(queries) == 9
    database = serving.app._database
    assert database is not None
    async with database.transaction() as connection:
        await connection.execute("set local search_path to tiers")
        found = [await connection.fetch(query) for query in queries]
    assert found[0][0]["missing_tier"] == 0
    for rows in found[1:4]:
        assert [row["tier"] for row in rows] == list(TIERS)
    assert [row["total_packages"] for row in found[2]] == [12] * 5
    assert [row["celebs_with_availability"] for row in found[3]] == [2, 0, 0, 0, 0]
    people = (await serving.ask("GET", "/celebrities?tier=S")).json["celebrities"]
    slots = [slot for person in people for slot in await slots_of(serving, person["id"])]
    assert found[4][0]["count"] == found[3][0]["total_slots"] >= len(slots) > 0
    assert 56 <= found[4][0]["rotation_days"] <= 84
    assert found[5] == [] and found[6] == [] and found[7][0]["passed"]
    assert {row["action"] for row in found[8]} == {"tiers import", "tiers classify", "tiers generate"}
