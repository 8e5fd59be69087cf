"""Rules: what the doctor finds of schedules that are not well."""

from pathlib import Path
from typing import Any

import pytest

from server.doctor import Finding, examine, healthy
from tests.doubles.apify import Act, Apify

SECRET = "what the provider sends with it"


async def look(data_dir: Path, answers: dict[str, Any] | None, environ: dict[str, str]) -> list[Finding]:
    async def ask(path: str) -> dict[str, object] | None:
        return (answers or {}).get(path)

    given = {"DATA_DIR": str(data_dir), "HTTP_PORT": "0", "WS_PORT": "0", **environ}
    return [finding for finding in await examine(given, ask) if finding.area == "schedules"]


def ours(double: Apify, **more: str) -> dict[str, str]:
    return {"APIFY_URL": double.url, "APIFY_TOKEN": double.token, **more}


async def test_without_a_token_there_is_one_note(tmp_path: Path) -> None:
    (found,) = await look(tmp_path, None, {})
    assert found.state == "note" and "APIFY_TOKEN" in found.next_step


async def test_all_is_well_when_the_provider_answers_and_tells_us(tmp_path: Path) -> None:
    async with Apify({}) as double:
        public = {"PUBLIC_URL": "https://maps.example", "APIFY_WEBHOOK_SECRET": SECRET}
        found = await look(tmp_path, None, ours(double, **public))
    assert [finding.state for finding in found] == ["ok", "ok", "ok"], found
    assert "double" in found[0].text and "https://maps.example" in found[1].text


async def test_a_token_that_is_not_good_and_a_provider_that_is_away_are_problems(tmp_path: Path) -> None:
    async with Apify({}) as double:
        found = await look(tmp_path, None, {**ours(double), "APIFY_TOKEN": "apify_api_wrong"})
        assert found[0].state == "problem" and "APIFY_TOKEN" in found[0].next_step
        assert "apify_api_wrong" not in str(found)
        double.always["me"] = Act(status=503)
        found = await look(tmp_path, None, ours(double))
        assert found[0].state == "problem" and "APIFY_URL" in found[0].next_step
        assert not healthy(found)
    found = await look(tmp_path, None, {"APIFY_URL": "http://127.0.0.1:1", "APIFY_TOKEN": "t"})
    assert found[0].state == "problem"
    found = await look(tmp_path, None, {"APIFY_URL": "http://provider.example", "APIFY_TOKEN": "t"})
    assert found[0].state == "problem" and "https" in found[0].text


async def test_polling_alone_is_a_note_and_a_missing_actor_a_problem(tmp_path: Path) -> None:
    async with Apify({}) as double:
        found = await look(tmp_path, None, ours(double, SCHEDULES_BOOKING_REVIEWS_ACTOR=" "))
    assert (found[1].state, "PUBLIC_URL" in found[1].text) == ("note", True)
    assert (found[2].state, "SCHEDULES_BOOKING_REVIEWS_ACTOR" in found[2].text) == ("problem", True)


@pytest.mark.parametrize(("hours", "state"), [([6, 12, 24], "ok"), ([6, 48, 72], "note")])
async def test_intervals_beyond_cron_are_named_with_the_providers_clock(
    tmp_path: Path, hours: list[int], state: str
) -> None:
    lines = [{"hours": one, "businesses": 1} for one in hours] + [{"hours": 168, "businesses": 0}]
    async with Apify({}) as double:
        answers = {"/readyz": {"ready": True}, "/admin/schedules/lines": {"lines": lines}}
        found = await look(tmp_path, answers, ours(double, SCHEDULES_CLOCK="provider"))
    assert found[3].state == state
    assert state == "ok" or ("48, 72 h" in found[3].text and "168" not in found[3].text)


@pytest.mark.parametrize(("status", "state"), [("ok", "ok"), ("warning", "note"), ("critical", "problem")])
async def test_what_the_running_server_says_is_passed_on(tmp_path: Path, status: str, state: str) -> None:
    health = {"status": status, "businesses": 7, "retries": {"waiting": 12}}
    async with Apify({}) as double:
        found = await look(tmp_path, {"/readyz": {"ready": True}, "/admin/health": health}, ours(double))
    assert (found[-1].state, "12 waiting" in found[-1].text) == (state, True)
