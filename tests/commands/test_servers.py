"""What the doctor and `stats` say of several servers over one database."""

from pathlib import Path
from typing import Any

import pytest

from server.commands.operating import _print_nodes
from tests.commands.test_doctor import look

READY = {"/readyz": {"ready": True}}


def node(name: str, **more: Any) -> dict[str, Any]:
    told = {"registeredUsers": 3, "totalUsersUpdated": 40, "lagMs": 2, "leader": False, "seenAt": 1_790_000_000_000}
    return {"node": name, **told, **more}


async def test_the_doctor_names_the_leader_who_is_late_and_that_nobody_leads(tmp_path: Path) -> None:
    leader = node("b", leader=True)
    found = (await look(tmp_path, {**READY, "/stats": {"nodes": [node("a"), leader]}}))["servers"]
    assert (found.state, found.text) == ("ok", "2 over this database, b leads")
    found = (await look(tmp_path, {**READY, "/stats": {"nodes": [node("a", lagMs=60_000), leader]}}))["servers"]
    assert (found.state, "a by 60000 ms" in found.text) == ("note", True)
    found = (await look(tmp_path, {**READY, "/stats": {"nodes": [node("a")]}}))["servers"]
    assert (found.state, "none of which leads" in found.text) == ("note", True)


async def test_a_server_that_is_told_to_be_alone_over_a_shared_database_is_a_note(tmp_path: Path, dsn: str) -> None:
    assert "servers" not in await look(tmp_path, {**READY, "/stats": {}})
    found = await look(tmp_path, {**READY, "/stats": {}}, DATABASE_URL=dsn, CLUSTER="off")
    assert found["servers"].state == "note"


def test_stats_list_the_servers_when_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    _print_nodes({"nodes": [node("a"), node("b", leader=True)]})
    printed = capsys.readouterr().out
    assert [line.split()[:4] for line in printed.splitlines()[1:]] == [["a", "no", "3", "40"], ["b", "yes", "3", "40"]]
    _print_nodes({"nodes": [node("a")]})
    _print_nodes({})
    assert capsys.readouterr().out == ""
