import json
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema  # type: ignore[import-untyped]  # no stubs are installed

from server.errors import Code
from server.handlers import http, openapi
from server.handlers.http import ROUTES
from tests.handlers.asking import Serving

DOCUMENT = Path(__file__).parents[2] / "client-examples" / "openapi.json"
PAGE = {"Origin": "https://evil.example"}


def test_the_published_document_is_the_one_served() -> None:
    assert DOCUMENT.read_bytes() == openapi.document_bytes(ROUTES), (
        "client-examples/openapi.json is stale: make generate"
    )


def test_every_reference_in_the_document_leads_somewhere() -> None:
    document = http.openapi_document()
    schemas = document["components"]["schemas"]  # type: ignore[index]  # a dict, as the document has it
    used = {part.split('"')[0] for part in json.dumps(document).split('"#/components/schemas/')[1:]}

    assert used <= set(schemas)
    assert set(schemas) <= used, "a schema that nothing uses"


def test_every_operation_has_an_id_of_its_own() -> None:
    paths = http.openapi_document()["paths"]
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]  # type: ignore[attr-defined]  # a dict, as the document has it

    assert len(ids) == len(set(ids)), sorted(name for name in set(ids) if ids.count(name) > 1)


async def test_answers_fit_their_schemas(serving: Serving, berlin: dict[str, Any]) -> None:
    document = http.openapi_document()
    asked: list[tuple[str, str, str, Any]] = [
        ("POST", "/events", "/events", {**berlin, "id": "17", "sharedWith": ["x"]}),
        ("POST", "/events", "/events", [{"id": "x"}, 7]),
        ("POST", "/popularity", "/popularity", {"eventId": "17", "scanCount": 1}),
        ("POST", "/popularity", "/popularity", {"eventId": "17", "scanCount": -1}),
        ("GET", "/events", "/events", None),
        ("GET", "/events/{id}", "/events/17", None),
        ("GET", "/events/{id}", "/events/18", None),
        ("PATCH", "/events/{id}", "/events/17", {"title": "T"}),
        ("POST", "/force-batch", "/force-batch", None),
        ("GET", "/loops", "/loops", None),
        ("GET", "/loops/{name}", "/loops/scores", None),
        ("POST", "/loops/{name}/run", "/loops/scores/run", None),
        ("POST", "/loops/{name}/pause", "/loops/drift/pause", None),
        ("PATCH", "/config", "/config", {"maxBatchSize": 5}),
        ("PATCH", "/config", "/config", {"maxBatchSize": 0}),
        ("GET", "/config", "/config", None),
        ("DELETE", "/config/{name}", "/config/maxBatchSize", None),
        ("GET", "/alerts", "/alerts", None),
        ("GET", "/stats", "/stats", None),
        ("GET", "/readyz", "/readyz", None),
        ("GET", "/healthz", "/healthz", None),
        ("DELETE", "/events/{id}", "/events/17", None),
    ]
    for method, path, url, body in asked:
        answer = await serving.ask(method, url, **({} if body is None else {"json": body}))
        operation = document["paths"][path][method.lower()]  # type: ignore[index]  # a dict, as the document has it
        schema = operation["responses"][str(answer.status)]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json)


def test_every_code_of_the_table_is_in_the_document() -> None:
    schemas = http.openapi_document()["components"]["schemas"]  # type: ignore[index]  # a dict, as the document has it

    assert schemas["Code"]["enum"] == [str(code) for code in Code]


async def test_a_refused_body_does_not_stop_the_next_request_on_the_connection(serving: Serving) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for _ in range(3):
            async with session.post(serving.url("/events"), data=b"x" * 1_000_000) as response:
                assert response.status == 401
            async with session.get(serving.url("/healthz")) as response:
                assert response.status == 200
