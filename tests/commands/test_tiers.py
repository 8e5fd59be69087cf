"""`batchcast tiers` against a running server: from a file of people to a verified month, with its exit codes."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from server.batching.loop import Occasion, Turn
from server.commands.showing_tiers import Casting, months
from server.edge.attached import attached
from tests.commands.conftest import Command
from tests.handlers.tier_world import MONTH, TIERS, everybody, month_ahead, rated
from tests.pages.site import Site


@pytest.fixture(scope="module")
def casting() -> Iterator[Site]:
    """The server."""
    site = Site(settings={"TIERS_MONTHLY": "false"})
    try:
        site.start()
        yield site
    finally:
        site.remove()


@pytest.fixture
def batchcast(command: Command, casting: Site, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`batchcast` on the machine of that server."""
    monkeypatch.setenv("BATCHCAST_URL", casting.url)
    monkeypatch.setenv("DATA_DIR", str(casting.data_dir))
    return command


def file_of(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "people.ndjson"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_month_is_planned_tier_by_tier_behind_its_gates(batchcast: Command, tmp_path: Path) -> None:
    said = batchcast("tiers", "import", file_of(tmp_path, *everybody(2)))
    assert (said.code, "10 created" in said.out) == (0, True), said
    shut = batchcast("tiers", "generate", "--tier", "S", "--month", MONTH)
    assert (shut.code, "classify" in shut.err) == (2, True), shut
    said = batchcast("tiers", "classify", "--new-only")
    assert (said.code, "done: 10 done" in said.out) == (0, True), said
    assert "10 unchanged" in batchcast("tiers", "classify").out
    shut = batchcast("tiers", "generate", "--tier", "A", "--month", MONTH)
    assert (shut.code, "tiers verify --tier S" in shut.err) == (2, True), shut
    for tier in TIERS:
        said = batchcast("tiers", "generate", "--tier", tier.lower(), "--month", MONTH)
        assert (said.code, "2 done" in said.out) == (0, True), said
        said = batchcast("tiers", "verify", "--tier", tier, "--month", MONTH)
        assert (said.code, f"tier {tier} {MONTH}: passed" in said.out) == (0, True), said
    whole = batchcast("tiers", "verify", "--month", MONTH)
    assert (whole.code, whole.out.count("passed")) == (0, 6), whole
    assert f"planned and verified for {MONTH}" in batchcast("tiers", "state", "--month", MONTH).out
    report = batchcast("tiers", "report", "--month", MONTH)
    assert report.code == 0 and "flagged for review: 0" in report.out
    rows = batchcast("tiers", "report", "--month", MONTH, "--json").json["availability"]
    assert [row["withSlots"] for row in rows] == [2] * 5
    assert "generate tier D" in batchcast("tiers", "runs").out
    assert batchcast("tiers", "stop", 1).code == 2, "it has ended"


def test_bad_rows_are_listed_and_end_the_import_with_1(batchcast: Command, tmp_path: Path) -> None:
    path = file_of(tmp_path, rated("D", 50), rated("D", 51, affluence="Z"))
    said = batchcast("tiers", "import", path)
    assert (said.code, "1 rejected" in said.out, "affluence" in said.out) == (1, True, True), said
    report = batchcast("tiers", "import", path, "--json")
    assert (report.code, report.json["unchanged"], report.json["errors"][0]["line"]) == (1, 1, 2)
    path.write_text('{"name": 7}\n')
    path.write_text("[]\n")
    assert batchcast("tiers", "import", path).code == 1, "all of them"
    odd = tmp_path / "people.txt"
    odd.write_text("name\n")
    assert [batchcast("tiers", "import", one).code for one in (odd, tmp_path / "none.csv")] == [2, 2]


def test_who_is_flagged_is_reviewed_with_a_reason(batchcast: Command, tmp_path: Path) -> None:
    batchcast("tiers", "import", file_of(tmp_path, {"key": "zoe", "name": "Zoe [b]", "country": "FR"}))
    assert batchcast("tiers", "classify", "--new-only").code == 0
    listed = batchcast("tiers", "review", "--flag", "no_evidence")
    assert "Zoe [b]" in listed.out
    (row,) = batchcast("tiers", "review", "--flag", "no_evidence", "--json").json["people"]
    assert batchcast("tiers", "review", row["id"], "--tier", "B").code == 2, "without a reason"
    said = batchcast("tiers", "review", row["id"], "--tier", "B", "--reason", "saw her live")
    assert (said.code, "tier B" in said.out) == (0, True), said
    assert "saw her live" in batchcast("tiers", "person", row["id"]).out
    assert "Zoe" not in batchcast("tiers", "review").out
    assert "Zoe [b]" in batchcast("tiers", "people", "--search", "zoe").out
    assert batchcast("tiers", "review", row["id"], "--accept", "--reason", "still").code == 0
    assert batchcast("tiers", "person", 10**9).code == 2


def test_what_is_asked_wrongly_ends_with_2(batchcast: Command) -> None:
    for arguments in (
        ("generate",),
        ("generate", "--tier", "E"),
        ("generate", "--tier", "S", "--person", 1),
        ("generate", "--tier", "S", "--month", "May"),
        ("generate", "--tier", "S", "--month", MONTH, "--resume"),
        ("classify", "--new-only", "--tier", "S"),
        ("classify", "--person", 10**9),
        ("verify", "--tier", "X"),
        ("report", "--month", "May"),
        ("stop", 10**9),
    ):
        said = batchcast("tiers", *arguments)
        assert said.code == 2, (arguments, said)


def test_a_person_who_fails_ends_the_run_with_1_and_the_others_are_planned(
    batchcast: Command, casting: Site, tmp_path: Path
) -> None:
    assert batchcast("tiers", "import", file_of(tmp_path, rated("S", 70), rated("S", 71))).code == 0
    assert batchcast("tiers", "classify", "--new-only").code == 0
    (broken,) = batchcast("tiers", "people", "--search", "S70", "--json").json["people"]
    statement = f"delete from tiers.celebrity_pricing where celebrity_id = {broken['id']}"
    asyncio.run(told(attached(casting.data_dir), statement))
    said = batchcast("tiers", "generate", "--tier", "S", "--month", month_ahead(3))
    assert (said.code, "1 failed" in said.out, "package" in said.out) == (1, True, True), said
    seen = batchcast("tiers", "verify", "--month", month_ahead(5), "--json")
    assert seen.code == 1
    found = seen.json["verifications"][0]
    assert [(one["person"], one["rule"]) for one in found["examples"]] == [(broken["id"], "packages_six")]
    assert "packages_six" in batchcast("tiers", "verify", "--month", month_ahead(5)).out
    assert batchcast("tiers", "classify", "--person", broken["id"]).code == 0, "which prices the person again"
    assert batchcast("tiers", "generate", "--tier", "S", "--month", month_ahead(3), "--detach").code == 0


async def told(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _shown(casting: Site) -> list[dict[str, object]]:
    """The demo's client, turn by turn, until it has booked something."""
    client = Casting(casting.url, casting.token)
    turns: list[Turn] = []
    async with asyncio.timeout(240):
        while not any(turn.taken and "did" not in turn.detail for turn in turns):
            turns.append(await client.turn(Occasion("interval", len(turns) + 1, time.time_ns() // 1_000_000)))
            await asyncio.sleep(0.05)  # what is waited for is on the other side of a socket
    return [dict(turn.detail) for turn in turns]


def test_the_demo_imports_people_plans_two_months_and_books(casting: Site) -> None:
    did = asyncio.run(_shown(casting))
    assert {step["did"] for step in did if step} >= {"classify", "generate", "verify"}
    for month in months(time.time_ns() // 1_000_000):
        state = casting.call("GET", f"/tiers/state?month={month}")
        assert [row["tier"] for row in state["tiers"] if row["verified"]] == list(TIERS), state


def test_doctor_looks_at_the_tiers(batchcast: Command, casting: Site, tmp_path: Path) -> None:
    assert batchcast("tiers", "import", file_of(tmp_path, rated("C", 80))).code == 0
    row = _doctors(batchcast)
    assert (row["state"], "1 of" in row["text"], "classify" in row["nextStep"]) == ("note", True, True), row
    assert batchcast("tiers", "classify", "--new-only").code == 0
    row = _doctors(batchcast)
    assert "cities" in row["text"] and "without a tier" not in row["text"], row


def _doctors(batchcast: Command) -> dict[str, str]:
    rows: list[dict[str, str]] = batchcast("doctor", "--json").json
    return next(row for row in rows if row["area"] == "tiers")
