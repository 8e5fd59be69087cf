"""What the provider tells us: let in by a secret alone, kept once, answered at once, never believed."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from server.batching.schedules.hooks import HEADER, PATH
from server.core.identity import ROLES
from tests.doubles.apify import Apify
from tests.doubles.apify.reviews import World
from tests.handlers.asking import Answer, Serving, Start, error
from tests.handlers.scheduling import SECRET, URLS, Desk, settings, world

TOLD = {
    "eventType": "ACTOR.RUN.SUCCEEDED",
    "eventData": {"actorId": "a", "actorRunId": "run1"},
    "resource": {"id": "run1", "status": "SUCCEEDED", "defaultDatasetId": "forged"},
}


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[tuple[World, Apify]]:
    places, double = world()
    async with double:
        yield places, double


@pytest_asyncio.fixture
async def told(start: Start, provider: tuple[World, Apify]) -> Serving:
    """A server that is told of ends, and asks for nothing by itself."""
    still = {"schedules_dispatch_ms": 3_600_000, "schedules_poll_ms": 3_600_000, "schedules_process_ms": 3_600_000}
    return await start(**settings(provider[1], **still))


async def tell(serving: Serving, body: Any = TOLD, secret: str | None = SECRET, **options: Any) -> Answer:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"Content-Type": "application/json", **({} if secret is None else {HEADER: secret})}
    return await serving.ask("POST", PATH, None, data=data, headers=headers, **options)


async def test_who_has_the_secret_is_let_in_and_told_twice_is_kept_once(told: Serving) -> None:
    first, second = await tell(told), await tell(told)
    assert (first.status, first.json) == (200, {"received": True, "new": True})
    assert (second.status, second.json) == (200, {"received": True, "new": False})
    other = await tell(told, {**TOLD, "eventType": "ACTOR.RUN.FAILED"})
    assert other.json["new"]


@pytest.mark.parametrize("secret", [None, "", SECRET[:-1], SECRET + "x", SECRET.upper(), "ü" * 20])
async def test_whoever_has_not_is_refused_before_the_body_is_read(told: Serving, secret: str | None) -> None:
    assert error(await tell(told, b"{", secret and secret.encode().decode("latin-1")))[:2] == (401, "unauthorized")
    huge = b"x" * (told.app.settings.schedules_webhook_bytes + 1)
    assert error(await tell(told, huge, secret and secret.encode().decode("latin-1")))[:2] == (401, "unauthorized")
    assert (await Desk(told).get("/admin/health"))["webhooksWaiting"] == 0


@pytest.mark.parametrize("role", ROLES)
async def test_without_a_secret_of_ours_nobody_is_let_in_whatever_its_token(start: Start, role: str) -> None:
    serving = await start()
    headers = {**serving.headers(None if role == "anonymous" else role), HEADER: ""}
    answer = await serving.ask("POST", PATH, None, json=TOLD, headers=headers)
    assert error(answer)[:2] == (403, "forbidden")
    assert "APIFY_WEBHOOK_SECRET" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", (400, "bad_json", None)),
        ({"eventType": "ACTOR.RUN.SUCCEEDED"}, (422, "bad_message", "eventData")),
        (
            {"eventType": "ACTOR.RUN.SUCCEEDED", "eventData": {"actorRunId": "x" * 300}},
            (422, "bad_message", "eventData"),
        ),
    ],
)
async def test_what_is_no_webhook_is_refused(told: Serving, body: Any, expected: tuple[int, str, str | None]) -> None:
    assert error(await tell(told, body)) == expected


async def test_events_of_no_interest_are_taken_and_forgotten(told: Serving) -> None:
    bodies: list[Any] = [
        {"eventType": "TEST"},
        {"eventType": "ACTOR.RUN.CREATED", "eventData": {"actorRunId": "r"}},
        [],
    ]
    for body in bodies:
        assert (await tell(told, body)).json == {"received": True, "new": False}
    assert (await Desk(told).get("/admin/health"))["webhooksWaiting"] == 0


async def test_a_body_has_a_bound(start: Start, provider: tuple[World, Apify]) -> None:
    serving = await start(**settings(provider[1], schedules_webhook_bytes=2048))
    assert (await tell(serving, {**TOLD, "more": "x" * 1000})).status == 200
    assert error(await tell(serving, {**TOLD, "more": "x" * 3000}))[:2] == (413, "too_large")


async def test_a_forged_body_brings_nothing_that_the_provider_does_not_say(
    told: Serving, provider: tuple[World, Apify]
) -> None:
    """The secret has leaked, say: a run that there is not, and one that has not ended."""
    desk, double = Desk(told), provider[1]
    profile = await desk.follow("acme", "google", URLS["google"])
    run = (await desk.good("POST", f"/admin/schedules/{profile['placements'][0]['scheduleId']}/trigger"))["runId"]
    double.held = True
    await desk.turn("dispatch")
    (ours,) = double.runs
    forged = {**TOLD, "eventData": {"actorRunId": ours.id}, "resource": {"id": ours.id, "status": "SUCCEEDED"}}
    assert (await tell(told, forged)).status == 200
    assert (await tell(told)).status == 200
    await desk.turn("process")
    (seen,) = (await desk.get("/admin/runs"))["runs"]
    assert (seen["id"], seen["state"], seen["items"]) == (run, "running", 0)
    double.finish(ours)
    assert (await desk.ended(run))["state"] == "succeeded"
