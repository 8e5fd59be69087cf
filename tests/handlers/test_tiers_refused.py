"""What the tiers say no to over HTTP, and the field that it names. Nothing here changes anything."""

from typing import Any

import pytest

from tests.handlers.asking import Serving, error
from tests.handlers.tier_world import post

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/tiers/classify", {"mode": "tier"}, (422, "bad_message", "tier")),
        ("/tiers/classify", {"mode": "all", "tier": "S"}, (422, "bad_message", "tier")),
        ("/tiers/classify", {"mode": "some"}, (422, "bad_message", "mode")),
        ("/tiers/classify", {"person": 999}, (404, "not_found", "id")),
        ("/tiers/generate", {}, (422, "bad_message", "tier")),
        ("/tiers/generate", {"tier": "S", "person": 1}, (422, "bad_message", "tier")),
        ("/tiers/generate", {"tier": "E"}, (422, "bad_message", "tier")),
        ("/tiers/generate", {"tier": "S", "month": "2027-13"}, (422, "bad_message", "month")),
        ("/tiers/generate", {"tier": "S", "month": "0001-01"}, (422, "bad_message", "month")),
        ("/tiers/generate", {"tier": "S", "override": " "}, (422, "bad_message", "override")),
        ("/tiers/generate", {"tier": "S", "resume": True}, (404, "not_found", None)),
        ("/tiers/generate", {"person": 999}, (404, "not_found", "id")),
        ("/tiers/verify", {"month": "May"}, (422, "bad_message", "month")),
        ("/tiers/people/1/decision", {"reason": "so"}, (422, "bad_message", "tier")),
        ("/tiers/people/1/decision", {"tier": "S", "accept": True, "reason": "so"}, (422, "bad_message", "tier")),
        ("/tiers/people/1/decision", {"tier": "S"}, (422, "bad_message", "reason")),
        ("/tiers/people/999/decision", {"tier": "S", "reason": "so"}, (404, "not_found", "id")),
        ("/tiers/runs/999/stop", {}, (404, "not_found", "run")),
        ("/availability/999/book", {"key": "k"}, (404, "not_found", "slot")),
        ("/availability/1/book", {}, (422, "bad_message", "key")),
        ("/availability/999/cancel", {}, (404, "not_found", "slot")),
    ],
)
async def test_a_bad_question_names_its_field(shared: Serving, path: str, body: Any, expected: Any) -> None:
    assert error(await post(shared, path, body)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/celebrities?tier=E", (422, "bad_message", "tier")),
        ("/celebrities?country=Germany", (422, "bad_message", "country")),
        ("/celebrities?minCents=-1", (422, "bad_message", "minCents")),
        ("/celebrities?after=x", (422, "bad_message", "after")),
        ("/celebrities/999", (404, "not_found", "id")),
        ("/celebrities/999/pricing", (404, "not_found", "id")),
        ("/celebrities/999/availability", (404, "not_found", "id")),
        ("/tiers/people?flag=odd", (422, "bad_message", "flag")),
        ("/tiers/people?review=perhaps", (422, "bad_message", "review")),
        ("/tiers/people?sort=age", (422, "bad_message", "sort")),
        ("/tiers/people/999", (404, "not_found", "id")),
        ("/tiers/people/999/calendar", (404, "not_found", "id")),
        ("/tiers/report?month=May", (422, "bad_message", "month")),
        ("/tiers/state?month=2027-00", (422, "bad_message", "month")),
        ("/tiers/verifications?tier=X", (422, "bad_message", "tier")),
        ("/tiers/runs?kind=all", (422, "bad_message", "kind")),
        ("/tiers/runs/999", (404, "not_found", "run")),
        ("/tiers/runs/999/items", (404, "not_found", "run")),
        (f"/tiers/runs/{10**19}", (404, "not_found", "id")),
    ],
)
async def test_a_bad_look_names_its_parameter(shared: Serving, path: str, expected: Any) -> None:
    assert error(await shared.ask("GET", path)) == expected
