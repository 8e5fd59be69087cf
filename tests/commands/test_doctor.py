"""Rules: what the doctor finds in installations that are not well."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from server.doctor import Finding, examine, healthy


async def silent(path: str) -> dict[str, object] | None:
    return None


async def look(data_dir: Path, answers: dict[str, Any] | None = None, **environ: str) -> dict[str, Finding]:
    async def ask(path: str) -> dict[str, object] | None:
        return (answers or {}).get(path)

    findings = await examine({"DATA_DIR": str(data_dir), **environ}, ask)
    return {finding.area: finding for finding in findings}


async def test_wrong_settings_are_the_only_finding(tmp_path: Path) -> None:
    found = await look(tmp_path, BATCH_INTERVAL_MS="1")
    assert list(found) == ["settings"]
    assert "from 100" in found["settings"].text


async def test_a_slip_is_a_note(tmp_path: Path) -> None:
    found = await look(tmp_path, LOG_FORMATS="json")
    assert (found["settings"].state, "LOG_FORMAT?" in found["settings"].text) == ("note", True)


async def test_a_port_that_is_taken_is_a_problem_with_its_next_step(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        findings = await examine({"DATA_DIR": str(tmp_path), "HTTP_PORT": port, "WS_PORT": "0"}, silent)
    problems = [finding for finding in findings if finding.state == "problem"]
    assert [finding.area for finding in problems] == ["ports"]
    assert "HTTP_PORT" in problems[0].next_step
    assert not healthy(findings)


async def test_a_database_of_another_version_or_out_of_reach_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9\n")
    found = await look(tmp_path)
    assert found["PostgreSQL"].state == "problem"
    assert "batchcast upgrade" in found["PostgreSQL"].next_step
    found = await look(tmp_path, DATABASE_URL="postgresql://nobody:secret@127.0.0.1:1/none")
    assert found["PostgreSQL"].state == "problem"
    assert "secret" not in found["PostgreSQL"].text


async def test_a_given_database_is_asked_for_its_migrations(tmp_path: Path, dsn: str) -> None:
    found = await look(tmp_path, DATABASE_URL=dsn)
    assert (found["PostgreSQL"].state, found["migrations"].state) == ("ok", "ok")
    assert "applied" in found["migrations"].text


async def test_keys_that_others_can_read_or_that_are_missing_are_problems(tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text("x")
    os.chmod(tmp_path / "admin.token", 0o644)
    assert "chmod 600" in (await look(tmp_path))["keys"].next_step
    exposed = await look(tmp_path, HOST="0.0.0.0")
    assert (exposed["keys"].state, "JWT_SECRET" in exposed["keys"].next_step) == ("problem", True)
    assert (await look(tmp_path, JWT_SECRET="short"))["keys"].state == "problem"
    assert (await look(tmp_path, JWT_SECRET="x" * 40))["keys"].state == "ok"


async def test_a_proxy_that_is_not_trusted_and_too_few_open_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"PUBLIC_URL": "https://maps.example", "JWT_SECRET": "x" * 40}
    found = (await look(tmp_path, **given))["proxies"]
    assert (found.state, "TRUSTED_PROXIES" in found.next_step) == ("problem", True)
    assert (await look(tmp_path, **given, TRUSTED_PROXIES="127.0.0.1"))["proxies"].state == "ok"
    assert (await look(tmp_path))["proxies"].state == "ok"
    open_to_others = (await look(tmp_path, TRUSTED_PROXIES="127.0.0.1"))["keys"]
    assert (open_to_others.state, "TRUSTED_PROXIES" in open_to_others.text) == ("problem", True)
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 4096))
    found = (await look(tmp_path))["files"]
    assert (found.state, "ulimit -n 20512" in found.next_step) == ("note", True)
    assert (await look(tmp_path, MAX_CONNECTIONS="500"))["files"].state == "ok"


async def test_sick_loops_and_overrides_of_a_running_server_are_named(tmp_path: Path) -> None:
    loops: list[dict[str, Any]] = [
        {"name": "scores", "health": "late"},
        {"name": "drift", "health": "paused", "paused": True},
    ]
    answers = {
        "/readyz": {"status": "ok"},
        "/loops": {"loops": loops},
        "/config": {"batchIntervalMs": 5000, "sources": {"batchIntervalMs": "runtime"}},
    }
    found = await look(tmp_path, answers)
    assert (found["loops"].state, found["loops"].text) == ("problem", "scores is late")
    assert "batchIntervalMs=5000" in found["overrides"].text
    assert "ports" not in found
    answers["/loops"] = {"loops": [{**loops[0], "health": "ok"}, loops[1]]}
    assert (await look(tmp_path, answers))["loops"].state == "ok"
