"""Rules: what the doctor finds of tracking that is not well."""

from pathlib import Path
from typing import Any

import pytest

from server.doctor import Finding, examine

TOKEN = {"APIFY_TOKEN": "t", "APIFY_URL": "http://127.0.0.1:1"}


async def look(data_dir: Path, health: dict[str, Any] | None, environ: dict[str, str]) -> list[Finding]:
    answers: dict[str, Any] = {} if health is None else {"/readyz": {"ready": True}, "/tracking/health": health}

    async def ask(path: str) -> dict[str, object] | None:
        return answers.get(path)

    given = {"DATA_DIR": str(data_dir), "HTTP_PORT": "0", "WS_PORT": "0", **environ}
    return [finding for finding in await examine(given, ask) if finding.area == "tracking"]


def health(**more: Any) -> dict[str, Any]:
    quota = {"percent": 12.5, "projectedPercent": more.pop("projected", 40.0)}
    return {"status": "HEALTHY", "successRate": 97.5, "processed": 600, "quota": quota, **more}


async def test_without_a_token_there_is_one_note(tmp_path: Path) -> None:
    (found,) = await look(tmp_path, health(), {})
    assert found.state == "note" and "APIFY_TOKEN" in found.next_step


async def test_what_is_set_is_told_and_a_platform_without_an_actor_is_a_note(tmp_path: Path) -> None:
    (found,) = await look(tmp_path, None, {**TOKEN, "TRACKING_PRESET": "50-every-2h"})
    assert found.state == "ok" and "50 clips every 120 min" in found.text and "100000 calls a month" in found.text
    (found,) = await look(tmp_path, None, {**TOKEN, "TRACKING_X_ACTORS": "[]", "TRACKING_PLAN": "free"})
    assert (found.state, found.next_step) == ("note", "set TRACKING_X_ACTORS") and "5000 calls" in found.text


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (health(), "ok"),
        (health(status="NO_DATA", successRate=None), "ok"),
        (health(status="DEGRADED", successRate=88), "note"),
        (health(status="STALE"), "note"),
        (health(status="UNHEALTHY", successRate=12.0), "problem"),
        (health(projected=100.0), "ok"),
        (health(projected=100.1), "note"),
    ],
)
async def test_what_the_running_server_says_is_passed_on(tmp_path: Path, said: dict[str, Any], state: str) -> None:
    found = await look(tmp_path, said, TOKEN)
    assert [one.state for one in found] == ["ok", state]
    assert said["status"] in found[1].text and "12.5 % of the month's calls used" in found[1].text
    assert (found[1].next_step == "") == (state == "ok")
