import asyncio
import gzip
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from yarl import URL

from server.edge.embedded import EmbeddedPostgres
from server.handlers.bulk import REJECTED_LISTED
from server.handlers.ports import STREAMS_AT_ONCE
from tests.conftest import FAST, short_folder
from tests.handlers.asking import NDJSON, Serving, Start, error, ids, lines, many, until
from tests.handlers.conftest import served

DOCUMENT = Path(__file__).parents[2] / "client-examples" / "openapi.json"
PAGE = {"Origin": "https://evil.example"}


async def test_one_event_goes_in_and_its_version_comes_out(serving: Serving, berlin: dict[str, Any]) -> None:
    answer = await serving.ask("POST", "/events", json=berlin)

    assert answer.status == 200
    assert answer.json == {"id": "berlin", "version": answer.json["version"], "accepted": 1, "rejected": []}
    assert (await serving.ask("GET", "/events/berlin")).json["version"] == answer.json["version"]


async def test_of_many_the_good_rows_go_in_and_the_bad_are_named(serving: Serving, berlin: dict[str, Any]) -> None:
    answer = await serving.ask("POST", "/events", json=[7, berlin, {"id": "nowhere"}, {**berlin, "id": "two"}])

    assert (answer.status, answer.json["accepted"]) == (200, 2)
    assert [(r["row"], r.get("id"), r["field"]) for r in answer.json["rejected"]] == [
        (0, None, None),
        (2, "nowhere", "location"),
    ]
    assert all(set(r) >= {"row", "field", "reason"} for r in answer.json["rejected"])
    assert await ids(serving) == {"berlin", "two"}


async def test_when_all_rows_are_refused_the_status_says_so(serving: Serving) -> None:
    one = await serving.ask("POST", "/events", json={"id": "x"})
    two = await serving.ask("POST", "/events", json=[{"id": "x"}, 7])

    assert (one.status, one.json["accepted"], one.json["rejected"][0]["row"]) == (422, 0, 0)
    assert (two.status, two.json["accepted"], len(two.json["rejected"])) == (422, 0, 2)
    assert one.json["error"]["field"] == "location"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[]", "application/json"),
        (b"", "application/x-ndjson"),
        (b"\n \n", "application/x-ndjson"),
        (b'{"type": "FeatureCollection", "features": []}', "application/geo+json"),
        (b"id,start\n", "text/csv"),
    ],
)
async def test_no_rows_are_no_mistake(shared: Serving, body: bytes, kind: str) -> None:
    answer = await shared.ask("POST", "/events", data=body, headers={"Content-Type": kind})

    assert (answer.status, answer.json) == (200, {"accepted": 0, "rejected": []})


async def test_geojson_csv_and_ndjson_come_in_by_type_or_by_word(serving: Serving) -> None:
    point = {"type": "Point", "coordinates": [13.4, 52.5, 30]}
    feature = {"type": "Feature", "id": "f1", "geometry": point, "properties": {"start": 1, "depth": 3}}
    collection = {"type": "FeatureCollection", "features": [{**feature, "id": "f2"}]}
    table = b"id,latitude,longitude,start,title\nc1,52.5,13.4,2030-01-01T00:00:00Z,One\n"

    bodies: list[tuple[bytes, dict[str, Any]]] = [
        (orjson.dumps(feature), {"headers": {"Content-Type": "application/geo+json"}}),
        (orjson.dumps(collection), {"headers": {"Content-Type": "application/json; charset=utf-8"}}),
        (table, {"headers": {"Content-Type": "text/csv"}}),
        (lines([{**feature, "id": "f3"}]), {"params": {"format": "ndjson"}}),
    ]
    for body, how in bodies:
        answer = await serving.ask("POST", "/events", data=body, **how)
        assert (answer.status, answer.json["accepted"]) == (200, 1), answer.body

    assert await ids(serving) == {"f1", "f2", "f3", "c1"}
    assert (await serving.ask("GET", "/events/f1")).json["properties"] == {"depth": 3}


async def test_a_foreign_file_is_mapped_fixed_and_shifted_by_the_query(serving: Serving) -> None:
    rows = [
        {"key": 7, "when": "2020-01-01T00:00:00Z", "at": [1, 2], "felt": 3},
        {"key": 8, "when": "2020-01-02T00:00:00Z", "at": [1, 2], "felt": None},
    ]
    query = [("map", "id=key"), ("map", "start=when"), ("map", "location=at"), ("map", "rsvpCount=felt")]
    params = [*query, ("set", "status=PENDING"), ("shift", "when")]
    answer = await serving.ask("POST", "/events", data=lines(rows), headers=NDJSON, params=params)
    seven, eight = [(await serving.ask("GET", f"/events/{name}")).json for name in "78"]

    assert answer.json == {"accepted": 2, "rejected": []}
    assert (seven["rsvpCount"], seven["status"]) == (3, "PENDING")
    assert seven["start"] < eight["start"]
    assert eight["start"][:4] != "2020"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("query", ["map=nonsense", "map=what=x", "format=xml"])
async def test_a_query_that_makes_no_sense_is_refused_before_a_row_is_read(shared: Serving, query: str) -> None:
    answer = await shared.ask("POST", f"/events?{query}", data=b"", headers=NDJSON)

    assert answer.status in (400, 422)
    assert error(answer)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"\xff", "application/json"),
        (b"[" * 5000, "application/json"),
        (b"{}", "text/plain"),
        (b"a=b", "application/x-www-form-urlencoded"),
    ],
)
async def test_what_is_no_json_or_says_it_is_something_else_is_bad_json(
    shared: Serving, body: bytes, kind: str
) -> None:
    for method, path in [("POST", "/events"), ("POST", "/popularity"), ("PATCH", "/config"), ("PATCH", "/events/x")]:
        answer = await shared.ask(method, path, data=body, headers={"Content-Type": kind})
        assert error(answer)[:2] == (400, "bad_json"), (method, path)


async def test_a_stream_of_any_length_goes_in_slice_by_slice(start: Start, berlin: dict[str, Any]) -> None:
    serving = await start(http_body_bytes=20_000)
    rows = many(3500, berlin)
    rows[1234] = {**rows[1234], "start": "soon"}

    async def source() -> AsyncIterator[bytes]:
        text = lines(rows)
        for at in range(0, len(text), 10_000):
            yield text[at : at + 10_000]

    answer = await serving.ask("POST", "/events", data=source(), headers=NDJSON)

    assert (answer.status, answer.json["accepted"]) == (200, 3499)
    assert [(r["row"], r["id"], r["field"]) for r in answer.json["rejected"]] == [(1234, "e1234", "start")]


async def test_a_trickle_is_committed_as_it_comes(serving: Serving, berlin: dict[str, Any]) -> None:
    more = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield lines([berlin])
        await more.wait()
        yield lines([{**berlin, "id": "late"}])

    asking = asyncio.ensure_future(serving.ask("POST", "/events", data=source(), headers=NDJSON))

    async def first_is_in() -> bool:
        return "berlin" in await ids(serving)

    await until(first_is_in)
    assert not asking.done()
    more.set()

    assert (await asking).json["accepted"] == 2


async def test_a_row_that_is_too_long_is_that_rows_error(start: Start, berlin: dict[str, Any]) -> None:
    serving = await start(row_bytes=1024)
    body = lines([{**berlin, "title": "x" * 2000}, {**berlin, "id": "short"}])
    answer = await serving.ask("POST", "/events", data=body, headers=NDJSON)

    assert (answer.status, answer.json["accepted"]) == (200, 1)
    assert (answer.json["rejected"][0]["row"], answer.json["rejected"][0]["code"]) == (0, "too_large")


async def test_a_list_of_refusals_is_bounded_and_their_number_is_told(serving: Serving) -> None:
    answer = await serving.ask("POST", "/events", data=b"7\n" * (REJECTED_LISTED + 5), headers=NDJSON)

    assert answer.status == 422
    assert len(answer.json["rejected"]) == REJECTED_LISTED
    assert answer.json["rejectedTotal"] == REJECTED_LISTED + 5


@pytest.mark.parametrize("length_known", [True, False])
async def test_a_body_above_the_limit_is_too_large_whether_it_says_so_or_not(start: Start, length_known: bool) -> None:
    serving = await start(http_body_bytes=2000)

    async def source() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    for method, path in [("POST", "/events"), ("POST", "/popularity"), ("PATCH", "/events/x")]:
        body = b" " * 3000 if length_known else source()
        answer = await serving.ask(method, path, data=body, headers={"Content-Type": "application/json"})
        assert error(answer)[:2] == (413, "too_large")
        assert answer.json["error"]["limit"] == 2000


async def test_a_compressed_body_counts_as_what_it_unpacks_to(start: Start, berlin: dict[str, Any]) -> None:
    serving = await start(http_body_bytes=100_000)
    packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    good = await serving.ask("POST", "/events", data=gzip.compress(orjson.dumps(berlin)), headers=packed)
    bomb = await serving.ask("POST", "/events", data=gzip.compress(b" " * 10_000_000), headers=packed)
    broken = await serving.ask("POST", "/events", data=b"no gzip at all", headers=packed)

    assert good.status == 200
    assert error(bomb)[:2] == (413, "too_large")
    assert error(broken)[:2] == (400, "bad_json")


async def test_counters_are_set_and_moved_one_many_or_in_a_stream(serving: Serving, berlin: dict[str, Any]) -> None:
    await serving.ask("POST", "/events", json=[berlin, {**berlin, "id": "two"}])
    one = await serving.ask("POST", "/popularity", json={"eventId": "berlin", "scanCount": 5})
    several = [{"eventId": "berlin", "delta": {"scanCount": -9, "saveCount": 2}}, {"eventId": "no", "scanCount": 1}]
    two = await serving.ask("POST", "/popularity", json=several)
    three = await serving.ask("POST", "/popularity", data=lines([{"eventId": "two", "rsvpCount": 1}]), headers=NDJSON)
    event = (await serving.ask("GET", "/events/berlin")).json

    assert (one.json["id"], one.json["accepted"]) == ("berlin", 1)
    assert (two.json["accepted"], two.json["rejected"][0]["field"]) == (1, "eventId")
    assert three.json["accepted"] == 1
    assert (event["scanCount"], event["saveCount"]) == (0, 2)


async def test_a_repeated_update_id_counts_once(serving: Serving, berlin: dict[str, Any]) -> None:
    await serving.ask("POST", "/events", json=berlin)
    update = {"eventId": "berlin", "delta": {"rsvpCount": 1}, "updateId": "u1"}
    first = await serving.ask("POST", "/popularity", json=update)
    again = await serving.ask("POST", "/popularity", json=update)

    assert first.json == again.json
    assert (await serving.ask("GET", "/events/berlin")).json["rsvpCount"] == 1


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("update", [{}, {"eventId": "x"}, {"eventId": "x", "scanCount": -1}, 7])
async def test_an_update_that_says_nothing_sensible_is_refused(shared: Serving, update: Any) -> None:
    assert (await shared.ask("POST", "/popularity", json=update)).status == 422


async def test_a_producer_may_not_touch_what_is_anothers(serving: Serving, berlin: dict[str, Any]) -> None:
    await serving.ask("POST", "/events", "producer", sub="ada", json={**berlin, "creatorId": "ada"})
    upsert = await serving.ask("POST", "/events", "producer", sub="eve", json=berlin)
    patch = await serving.ask("PATCH", "/events/berlin", "producer", sub="eve", json={"title": "Mine"})
    delete = await serving.ask("DELETE", "/events/berlin", "producer", sub="eve")

    assert (upsert.status, upsert.json["rejected"][0]["code"]) == (422, "forbidden")
    assert error(patch)[:2] == error(delete)[:2] == (403, "forbidden")


async def test_too_many_streams_at_once_are_told_to_come_back(serving: Serving, berlin: dict[str, Any]) -> None:
    end = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield lines([berlin])
        await end.wait()

    asking = {
        asyncio.ensure_future(serving.ask("POST", "/events", data=source(), headers=NDJSON))
        for _ in range(STREAMS_AT_ONCE + 1)
    }
    done, open_ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    refused = (done.pop()).result()
    short = await serving.ask("POST", "/events", json=berlin)
    end.set()

    assert not done
    assert error(refused)[:2] == (429, "too_many")
    assert refused.headers["Retry-After"] == "1"
    assert short.status == 200
    assert {answer.status for answer in await asyncio.gather(*open_)} == {200}


async def test_before_the_first_row_a_lost_database_is_503_and_afterwards_the_answer_says_what_went_in(
    berlin: dict[str, Any], tmp_path: Path
) -> None:
    lost = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield lines(many(3, berlin))
        await lost.wait()
        yield lines(many(2, berlin, "late"))

    with own_postgres() as postgres:
        async with served(postgres.start_now(), tmp_path) as serving:

            async def first_are_in() -> bool:
                return len(await ids(serving)) == 3

            asking = asyncio.ensure_future(serving.ask("POST", "/events", data=source(), headers=NDJSON))
            await until(first_are_in)
            postgres.stop_now()
            lost.set()
            answer = await asking
            early = await serving.ask("POST", "/events", data=lines([berlin]), headers=NDJSON)
            read = await serving.ask("GET", "/events/e0")
            stats = await serving.ask("GET", "/stats")
            postgres.start_now()

            async def writes_again() -> bool:
                return (await serving.ask("POST", "/events", json=berlin)).status == 200

            await until(writes_again)

    assert (answer.status, answer.json["accepted"], answer.json["error"]["code"]) == (200, 3, "unavailable")
    assert answer.json["unwritten"][0][0] == 3
    assert error(early)[:2] == error(read)[:2] == (503, "unavailable")
    assert int(early.headers["Retry-After"]) >= 1
    assert stats.status == 200


@contextmanager
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """One that a test may stop."""
    folder = short_folder()
    postgres = EmbeddedPostgres(folder, settings=FAST)
    try:
        yield postgres
    finally:
        postgres.stop_now()
        shutil.rmtree(folder, ignore_errors=True)


async def test_when_the_asker_goes_away_in_mid_stream_what_came_stays_and_the_place_is_free_again(
    serving: Serving, berlin: dict[str, Any]
) -> None:
    row = lines([berlin])

    async def is_in() -> bool:
        return "berlin" in await ids(serving)

    async def all_are_free() -> bool:
        end = asyncio.Event()
        asking = [asyncio.ensure_future(_stream(serving, row, end)) for _ in range(STREAMS_AT_ONCE)]
        await asyncio.wait(asking, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
        end.set()
        return {await one for one in asking} == {200}

    address = URL(serving.url("/"))
    _, writer = await asyncio.open_connection(address.host, address.port)
    token = serving.headers("admin")["Authorization"]
    head = f"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: application/x-ndjson\r\n"
    writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(row), row))
    await until(is_in)
    writer.transport.abort()
    await until(all_are_free)


async def _stream(serving: Serving, row: bytes, end: asyncio.Event) -> int:
    async def source() -> AsyncIterator[bytes]:
        yield row
        await end.wait()

    return (await serving.ask("POST", "/events", data=source(), headers=NDJSON)).status
