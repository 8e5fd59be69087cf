from pathlib import Path
from typing import Any

import pytest

from server.handlers import pages
from server.handlers.http import ROUTES
from tests.handlers.asking import Serving, Start, error, many

DOCUMENT = Path(__file__).parents[2] / "client-examples" / "openapi.json"
PAGE = {"Origin": "https://evil.example"}


@pytest.mark.asyncio(loop_scope="module")
async def test_unknown_paths_and_wrong_methods_are_told_in_json(shared: Serving) -> None:
    unknown = await shared.ask("GET", "/nowhere", None)
    wrong = await shared.ask("PUT", "/events", None)

    assert error(unknown)[:2] == (404, "not_found")
    assert error(wrong)[0] == 405
    assert set(wrong.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["token", "access_token", "jwt"])
async def test_a_token_in_the_url_is_refused_even_where_none_is_needed(shared: Serving, name: str) -> None:
    token = shared.headers("admin")["Authorization"].removeprefix("Bearer ")
    for path in ("/stats", "/events", "/"):
        answer = await shared.ask("GET", f"{path}?{name}={token}", None)
        assert error(answer)[:2] == (401, "unauthorized")
        assert "Authorization: Bearer" in answer.json["error"]["message"]
        assert token not in answer.body.decode()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer a.b.c", "admin"])
async def test_a_token_that_is_not_good_is_never_taken_for_none(shared: Serving, header: str) -> None:
    answer = await shared.ask("GET", "/stats", None, headers={"Authorization": header})

    assert error(answer)[:2] == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_word_bearer_may_be_written_in_any_case(shared: Serving) -> None:
    token = shared.headers("admin")["Authorization"].removeprefix("Bearer ")

    assert (await shared.ask("GET", "/loops", None, headers={"Authorization": f"bearer  {token}"})).status == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["/", "/site/batchcast.js", "/stats", "/nowhere", "/events/export", "/metrics"])
async def test_every_answer_carries_the_security_headers(shared: Serving, path: str) -> None:
    headers = (await shared.ask("GET", path, None, headers={"Host": "maps.example:8080"})).headers
    port = shared.ws_port
    policy = headers["Content-Security-Policy"].split("; ")

    assert f"connect-src 'self' ws://maps.example:{port} wss://maps.example:{port}" in policy
    assert {"default-src 'self'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert {"base-uri 'none'", "form-action 'self'", "img-src 'self' data:"} <= set(policy)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert "aiohttp" not in headers["Server"]


@pytest.mark.parametrize("host", ["a;script-src *", "[::1]:8080", "é", "a b", "", "x" * 300])
def test_a_host_header_writes_no_policy_of_its_own(host: str) -> None:
    assert pages._sockets(host, 8081) == "ws: wss:"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_foreign_page_may_look_but_not_touch_and_is_not_shown_how_to_read(shared: Serving) -> None:
    look = await shared.ask("GET", "/stats", None, headers=PAGE)
    touch = await shared.ask("POST", "/force-batch", headers=PAGE)
    ask = await shared.ask("OPTIONS", "/events", None, headers={**PAGE, "Access-Control-Request-Method": "POST"})

    assert look.status == 200
    assert error(touch)[:2] == error(ask)[:2] == (403, "forbidden")
    assert not any("Access-Control-Allow-Origin" in answer.headers for answer in (look, touch, ask))


@pytest.mark.parametrize(
    ("allowed", "origin", "told"),
    [
        ("https://app.example", "https://app.example", "https://app.example"),
        ("*", "https://evil.example", "*"),
        ("", "http://localhost:3000", "http://localhost:3000"),
    ],
)
async def test_a_page_that_may_is_told_so(start: Start, allowed: str, origin: str, told: str) -> None:
    serving = await start(allowed_origins=allowed)
    page = {"Origin": origin}
    ask = await serving.ask("OPTIONS", "/events/x", None, headers={**page, "Access-Control-Request-Method": "PATCH"})
    force = await serving.ask("POST", "/force-batch", headers=page)
    unknown = await serving.ask("GET", "/nowhere", headers=page)

    assert (ask.status, ask.body) == (204, b"")
    assert "PATCH" in ask.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in ask.headers["Access-Control-Allow-Headers"]
    assert force.status == 200
    for answer in (ask, force, unknown):
        assert answer.headers["Access-Control-Allow-Origin"] == told
        assert "Origin" in answer.headers["Vary"]


async def test_long_json_is_compressed_for_those_who_take_it_and_short_is_not(
    serving: Serving, berlin: dict[str, Any]
) -> None:
    await serving.ask("POST", "/events", json=many(20, berlin))

    async def coding(path: str, accept: str) -> str | None:
        answer = await serving.ask("GET", path, None, headers={"Accept-Encoding": accept})
        assert answer.status == 200
        return answer.headers.get("Content-Encoding")

    assert await coding("/events", "gzip, deflate") == "gzip"
    assert await coding("/events", "deflate, gzip;q=0") is None
    assert await coding("/events", "identity") is None
    assert await coding("/healthz", "gzip") is None
    assert await coding("/events/export", "gzip") == "gzip"
    assert await coding("/", "gzip, br") == "gzip"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", [route.path for route in ROUTES if route.method == "GET" and "{" not in route.path])
async def test_head_is_get_without_a_body(shared: Serving, path: str) -> None:
    get = await shared.ask("GET", path)
    head = await shared.ask("HEAD", path)
    after = await shared.ask("GET", "/healthz")

    assert (head.status, head.body, after.status) == (get.status, b"", 200)
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


async def test_a_bug_costs_its_request_and_tells_nothing_of_the_inside(serving: Serving) -> None:
    del serving.app.feed.desk
    answer = await serving.ask("GET", "/stats", None)

    assert error(answer)[:2] == (500, "internal")
    assert "desk" not in answer.body.decode()
    assert (await serving.ask("GET", "/healthz", None)).status == 200
