import asyncio
import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from tests.handlers.asking import Serving, error, many

DOCUMENT = Path(__file__).parents[2] / "client-examples" / "openapi.json"
PAGE = {"Origin": "https://evil.example"}


async def test_a_patch_merges_what_is_given_and_null_clears(serving: Serving, berlin: dict[str, Any]) -> None:
    await serving.ask("POST", "/events", json={**berlin, "description": "loud"})
    answer = await serving.ask("PATCH", "/events/berlin", json={"title": "Opera", "description": None})
    event = await serving.ask("GET", "/events/berlin")

    assert answer.json == {"id": "berlin", "version": event.json["version"]}
    assert answer.headers["ETag"] == event.headers["ETag"] == f'"{event.json["version"]}"'
    assert (event.json["title"], event.json["description"], event.json["emoji"]) == ("Opera", None, "🎵")


async def test_a_stale_version_is_a_conflict_and_changes_nothing(serving: Serving, berlin: dict[str, Any]) -> None:
    old = (await serving.ask("POST", "/events", json=berlin)).json["version"]
    new = (await serving.ask("PATCH", "/events/berlin", json={"title": "Two"}, headers={"If-Match": f'"{old}"'})).json

    for header in (f'"{old}"', f'W/"{old}"', str(old)):
        for method in ("PATCH", "DELETE"):
            answer = await serving.ask(method, "/events/berlin", json={"title": "3"}, headers={"If-Match": header})
            assert error(answer)[:2] == (409, "conflict")
    stale = await serving.ask("PATCH", "/events/berlin", json={"title": "3", "ifVersion": old})
    assert error(stale)[:2] == (409, "conflict")
    upsert = await serving.ask("POST", "/events", json={**berlin, "title": "3", "ifVersion": old})
    assert (upsert.status, upsert.json["rejected"][0]["code"]) == (422, "conflict")
    assert (await serving.ask("GET", "/events/berlin")).json["title"] == "Two"
    assert (await serving.ask("DELETE", f"/events/berlin?ifVersion={new['version']}")).status == 200


async def test_a_patch_never_creates_and_can_not_change_the_id(serving: Serving, berlin: dict[str, Any]) -> None:
    assert error(await serving.ask("PATCH", "/events/berlin", json=berlin))[:2] == (404, "not_found")
    await serving.ask("POST", "/events", json=berlin)
    assert error(await serving.ask("PATCH", "/events/berlin", json={"id": "other"})) == (422, "bad_message", "id")
    assert error(await serving.ask("PATCH", "/events/berlin", json=[berlin]))[:2] == (422, "bad_message")
    assert error(await serving.ask("PATCH", "/events/berlin", json={"start": "soon"}))[2] == "start"
    bad = await serving.ask("PATCH", "/events/berlin", json={"ifVersion": "1"})
    assert error(bad) == (422, "bad_message", "ifVersion")
    assert error(await serving.ask("DELETE", "/events/berlin", headers={"If-Match": "x"}))[2] == "If-Match"


async def test_patches_at_the_same_time_all_count(serving: Serving, berlin: dict[str, Any]) -> None:
    await serving.ask("POST", "/events", json=berlin)
    fields = [{"title": "A"}, {"emoji": "🎸"}, {"description": "D"}, {"timezone": "Europe/Berlin"}]
    answers = await asyncio.gather(*(serving.ask("PATCH", "/events/berlin", json=given) for given in fields))
    event = (await serving.ask("GET", "/events/berlin")).json

    assert {answer.status for answer in answers} == {200}
    assert all(event.items() >= given.items() for given in fields)


async def test_a_deleted_event_is_gone(serving: Serving, berlin: dict[str, Any]) -> None:
    version = (await serving.ask("POST", "/events", json=berlin)).json["version"]
    answer = await serving.ask("DELETE", "/events/berlin")

    assert answer.status == 200
    assert answer.json["id"] == "berlin"
    assert answer.json["version"] > version
    for method in ("GET", "DELETE"):
        assert error(await serving.ask(method, "/events/berlin"))[:2] == (404, "not_found")


async def test_a_private_event_does_not_exist_for_others_and_its_shares_are_told_to_few(
    serving: Serving, berlin: dict[str, Any]
) -> None:
    private = {**berlin, "isPrivate": True, "creatorId": "ada", "sharedWith": ["bob"]}
    await serving.ask("POST", "/events", json=private)
    unknown = (await serving.ask("GET", "/events/nothing", None)).json["error"]

    for role, sub in [(None, None), ("viewer", "eve"), ("producer", "eve")]:
        answer = await serving.ask("GET", "/events/berlin", role, sub=sub)
        assert answer.status == 404
        assert answer.json["error"]["message"].replace("berlin", "nothing") == unknown["message"]
        assert (await serving.ask("GET", "/events", role, sub=sub)).json["events"] == []
        assert (await serving.ask("GET", "/events/export", role, sub=sub)).body == b""
    for method in ("PATCH", "DELETE"):
        answer = await serving.ask(method, "/events/berlin", "producer", sub="eve", json={})
        assert error(answer)[:2] == (404, "not_found")
    assert "sharedWith" not in (await serving.ask("GET", "/events/berlin", "viewer", sub="bob")).json
    assert (await serving.ask("GET", "/events/berlin", "viewer", sub="ada")).json["sharedWith"] == ["bob"]
    assert (await serving.ask("GET", "/events/berlin", "admin")).json["sharedWith"] == ["bob"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["a/b", "a b", "ü", "100%", "a?b", "a#b", "..", "%2F", "export.csv"])
async def test_any_id_has_a_place(shared: Serving, berlin: dict[str, Any], name: str) -> None:
    await shared.ask("POST", "/events", json={**berlin, "id": name})
    url = URL(shared.url("/events/") + quote(name, safe="").replace(".", "%2E"), encoded=True)
    async with shared.client.get(url) as response:
        assert (response.status, (await response.json()).get("id")) == (200, name)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["%00", "%FF", "%ED%B0%80", "a" * 200])
async def test_an_id_that_no_event_can_have_is_not_found(shared: Serving, name: str) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        url = URL(shared.url(f"/events/{name}"), encoded=True)
        headers = shared.headers("admin")
        async with shared.client.request(method, url, headers=headers, json={}) as response:
            assert response.status == 404


async def test_a_list_is_filtered_and_paged_by_its_cursor(serving: Serving, berlin: dict[str, Any]) -> None:
    tokyo = {**berlin, "id": "tokyo", "location": {"latitude": 35.7, "longitude": 139.7}, "title": "Fish market"}
    await serving.ask("POST", "/events", json=[*many(5, berlin), tokyo, {**tokyo, "id": "p", "status": "PENDING"}])

    async def found(query: str) -> list[str]:
        answer = await serving.ask("GET", f"/events?{query}", None)
        assert answer.status == 200, answer.body
        return [event["id"] for event in answer.json["events"]]

    assert await found("bbox=130,30,150,40") == ["p", "tokyo"]
    assert await found("bbox=130,30,-100,40&status=VERIFIED") == ["tokyo"]
    assert await found("text=FISH%20market&status=PENDING,REJECTED") == ["p"]
    assert await found("text=100%25") == []
    assert await found("status=verified&status=PENDING&limit=1000") == [*(f"e{n}" for n in range(5)), "p", "tokyo"]

    pages_, cursor = [], ""
    while True:
        page = (await serving.ask("GET", f"/events?limit=3{cursor}", None)).json
        pages_.append([event["id"] for event in page["events"]])
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert [name for page_ in pages_ for name in page_] == [*(f"e{n}" for n in range(5)), "p", "tokyo"]
    assert max(map(len, pages_)) == 3


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("bbox=1,2,3", "bad_viewport", "bbox"),
        ("bbox=a,b,c,d", "bad_viewport", "bbox"),
        ("bbox=0,10,20,5", "bad_viewport", "bbox"),
        ("bbox=nan,0,1,1", "bad_viewport", "bbox"),
        ("status=OPEN", "bad_message", "status"),
        ("limit=0", "bad_message", "limit"),
        ("limit=1001", "bad_message", "limit"),
        ("limit=x", "bad_message", "limit"),
        ("limit=%C2%B2", "bad_message", "limit"),
        ("cursor=!", "bad_message", "cursor"),
        ("cursor=%00", "bad_message", "cursor"),
        ("text=%00", "bad_message", "text"),
        ("text=" + "x" * 201, "bad_message", "text"),
    ],
)
async def test_a_search_that_makes_no_sense_is_refused_by_name(
    shared: Serving, query: str, code: str, field: str
) -> None:
    assert error(await shared.ask("GET", f"/events?{query}", None)) == (422, code, field)


@pytest.mark.parametrize("fmt", ["ndjson", "geojson", "csv"])
async def test_what_is_exported_can_be_imported_again(serving: Serving, berlin: dict[str, Any], fmt: str) -> None:
    rich = {
        **berlin,
        "id": 'rich, "quoted"\nline',
        "description": "a;b, c\n=1+1",
        "categories": ["a", "b"],
        "end": "2030-05-01T20:00:00Z",
        "timezone": "Europe/Berlin",
        "confidence": 0.25,
        "scanCount": 7,
        "isPrivate": True,
        "creatorId": "ada",
        "sharedWith": ["bob", "eve"],
        "priority": "high",
        "properties": {"deep": [1, {"x": None}]},
    }
    await serving.ask("POST", "/events", json=[rich, *many(2500, berlin)])
    before = (await serving.ask("GET", "/events?limit=1000")).json["events"]
    exported = await serving.ask("GET", f"/events/export?format={fmt}")
    kind = exported.headers["Content-Type"]
    for name in [rich["id"], "e0", "e2499"]:
        await serving.ask("DELETE", f"/events/{quote(name, safe='')}")
    again = await serving.ask("POST", "/events", data=exported.body, headers={"Content-Type": kind})
    after = (await serving.ask("GET", "/events?limit=1000")).json["events"]

    assert again.json == {"accepted": 2501, "rejected": []}
    servers = ("version", "updatedAt")
    assert [{k: v for k, v in e.items() if k not in servers} for e in before] == [
        {k: v for k, v in e.items() if k not in servers} for e in after
    ]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_empty_export_is_still_a_file_of_its_kind(shared: Serving) -> None:
    bodies = {
        fmt: (await shared.ask("GET", f"/events/export?text=no&format={fmt}", None)).body for fmt in ("geojson", "csv")
    }

    assert json.loads(bodies["geojson"]) == {"type": "FeatureCollection", "features": []}
    assert len(list(csv.reader(io.StringIO(bodies["csv"].decode())))) == 1
    assert error(await shared.ask("GET", "/events/export?format=xml", None)) == (422, "bad_message", "format")
