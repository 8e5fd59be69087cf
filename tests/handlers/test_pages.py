from pathlib import Path

import pytest
from yarl import URL

from server.handlers import pages
from tests.handlers.asking import Serving

DOCUMENT = Path(__file__).parents[2] / "client-examples" / "openapi.json"
CLIENT = Path(__file__).parents[2] / "client-examples" / "batchcast.js"
PAGE = {"Origin": "https://evil.example"}


@pytest.mark.asyncio(loop_scope="module")
async def test_the_map_knows_the_port_of_the_websocket(shared: Serving) -> None:
    answer = await shared.ask("GET", "/", None)
    port = shared.ws_port

    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert f'content="{port}"'.encode() in answer.body
    assert b"{{" not in answer.body


@pytest.mark.asyncio(loop_scope="module")
async def test_every_file_of_the_pages_is_served_with_its_type_and_is_asked_for_once(shared: Serving) -> None:
    assert {"batchcast.js", "style.css", "leaflet/leaflet.js", "leaflet/images/layers.png"} <= set(pages.files())
    for name, file in pages.files().items():
        answer = await shared.ask("GET", f"/site/{name}", None)
        assert (answer.status, answer.headers["Content-Type"]) == (200, file.content_type), name
        again = await shared.ask("GET", f"/site/{name}", None, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")
        if not name.endswith(".html"):
            assert answer.body == file.body


def test_the_client_of_the_pages_is_the_one_to_take_away() -> None:
    assert pages.files()["batchcast.js"].body == CLIENT.read_bytes()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "path",
    [
        "/site/",
        "/site/../http.py",
        "/site/%2e%2e/http.py",
        "/site/..%2fhttp.py",
        "/site//etc/passwd",
        "/site/%2Fetc%2Fpasswd",
        "/site/leaflet/../../__init__.py",
        "/site/leaflet/leaflet.js%00",
        "/site/leaflet/leaflet.js.map",
        "/site/.",
        "/site/..\\http.py",
    ],
)
async def test_no_path_leads_out_of_the_pages(shared: Serving, path: str) -> None:
    async with shared.client.get(URL(shared.url("") + path, encoded=True)) as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "not_found"
