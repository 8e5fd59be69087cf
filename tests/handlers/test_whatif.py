"""POST /what-if over HTTP: who may ask, what it answers, what it refuses."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs are installed
import pytest

from server.handlers import http
from server.handlers.ports import Places
from tests.handlers.asking import Serving, error


def schema_of(name: str) -> dict[str, Any]:
    document: Any = http.openapi_document()
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


async def test_an_admin_is_told_what_another_setting_costs_and_nothing_changes(
    serving: Serving, berlin: dict[str, Any]
) -> None:
    await serving.ask("POST", "/events", json=berlin)
    await serving.ask("POST", "/popularity", json={"eventId": "berlin", "scanCount": 5})
    before = (await serving.ask("GET", "/stats")).json
    wish = {"intervalMs": 60_000, "threshold": 0.5, "maxEvents": 3, "weights": {"popularity": 0.7}, "spacingKm": 2.0}
    answer = await serving.ask("POST", "/what-if", json=wish)
    assert answer.status == 200
    jsonschema.Draft202012Validator(schema_of("WhatIf")).validate(answer.json)
    present, asked = answer.json["present"]["settings"], answer.json["asked"]["settings"]
    assert (present["intervalMs"], present["maxEvents"], present["weights"]["popularity"]) == (900_000, None, 0.3)
    assert {name: asked[name] for name in wish if name != "weights"} == {
        n: v for n, v in wish.items() if n != "weights"
    }
    assert asked["weights"] == {"time": 0.25, "distance": 0.2, "popularity": 0.7, "recency": 0.15, "confidence": 0.1}
    assert answer.json["estimatedFrom"]["waiting"] == answer.json["estimatedFrom"]["waitingTaken"] == 1
    after = (await serving.ask("GET", "/stats")).json
    same = ("pendingUpdates", "batchesProcessed", "totalUsersUpdated", "config")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


async def test_only_admins_may_ask(serving: Serving) -> None:
    assert error(await serving.ask("POST", "/what-if", None, json={}))[:2] == (401, "unauthorized")
    assert error(await serving.ask("POST", "/what-if", "producer", json={}))[:2] == (403, "forbidden")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"intervalMs": 99}, "intervalMs"),
        ({"intervalMs": 86_400_001}, "intervalMs"),
        ({"threshold": 1.5}, "threshold"),
        ({"maxEvents": 0}, "maxEvents"),
        ({"maxEvents": 501}, "maxEvents"),
        ({"weights": {"time": -0.1}}, "weights.time"),
        ({"weights": {"time": "1"}}, "weights.time"),
        ({"spacingKm": -1}, "spacingKm"),
        ({"sample": 2001}, "sample"),
        ({"seed": -1}, "seed"),
    ],
)
async def test_a_setting_out_of_bounds_is_refused_by_name(shared: Serving, wish: dict[str, Any], field: str) -> None:
    assert error(await shared.ask("POST", "/what-if", json=wish)) == (422, "bad_message", field)


async def test_a_second_question_at_once_is_one_too_many() -> None:
    places = Places(1, "what-if")
    with places, pytest.raises(Exception, match="1 what-if at once"), places:
        pass
