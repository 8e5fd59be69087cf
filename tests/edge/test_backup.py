"""Backups of a real PostgreSQL with real rows: whole, of one moment, and never half restored."""

from __future__ import annotations

import asyncio
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from server.edge import backup, backup_tools
from server.edge.backup import SCHEMAS, Place, Progress, restore, take
from server.edge.backup_file import CHUNK, DUMP, MANIFEST, Manifest, opened
from server.edge.clock import SystemClock
from server.edge.postgres import SCHEMA, Database, read_migrations
from server.edge.rights import ROLES
from server.errors import Code, Refused, Unavailable
from tests.conftest import tell
from tests.edge.test_rights import as_user, server
from tests.serving import event, live, spread, until

__all__ = ["server"]

NAME = "5f3a-0123456789abcd.csv"


@pytest.fixture
def elsewhere(new_database: Callable[[str], str]) -> str:
    """An empty database."""
    return new_database("template1")


@pytest.fixture
def place(dsn: str, tmp_path: Path) -> Place:
    return Place(dsn, tmp_path / "imports")


async def ask(dsn: str, sql: str, *values: object) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql, *values)
    finally:
        await connection.close()


async def fill(dsn: str, data_dir: Path) -> None:
    """Rows of several systems, by the ways that clients have."""
    async with live(data_dir, dsn) as server:
        await server.put(*spread(40), event("private", isPrivate=True, creatorId="ada"))
        for number in range(40):
            await server.count(f"e{number}", scanCount=number + 1)
        await server.force()
        await server.count("e1", scanCount=400, updateId="once")
        rows = b"name,country\nAda,DE\nGrace,US\n"
        people = await server.ask("POST", "/tiers/people", data=rows, headers={"Content-Type": "text/csv"})
        assert people.status == 200, people.body
    await tell(
        dsn, "update feed.counters set scan = 500 where event_id = 'e1'"
    )  # A server that ends publishes what is pending.


MUCH = "insert into ops.audit (action) select md5(n::text) || md5((n + 1)::text) from generate_series(1, 60000) n"
"""More than fits into a pipe, by far."""


async def schemas_of(dsn: str) -> list[str]:
    return list(
        await ask(
            dsn,
            "select coalesce(array_agg(nspname::text), '{}') from pg_namespace where nspname = any ($1)",
            list(SCHEMAS),
        )
    )


async def saved(place: Place, path: Path) -> Manifest:
    return await take(place, path, clock=SystemClock(), version="1.2.3")


def refused(error: pytest.ExceptionInfo[Refused], code: Code) -> str:
    assert error.value.code is code
    return error.value.message


# --- whole ---


async def test_what_is_restored_is_what_was_saved_and_a_server_goes_on_with_it(
    place: Place, elsewhere: str, tmp_path: Path
) -> None:
    await fill(place.dsn, tmp_path / "data")
    manifest = await saved(place, tmp_path / "one.backup")
    assert (manifest.batchcast, manifest.schemas) == ("1.2.3", SCHEMAS)
    assert manifest.tables["feed.event"].rows == 41
    assert manifest.rows > 100
    assert await restore(tmp_path / "one.backup", Place(elsewhere, tmp_path / "there")) == manifest
    version = await ask(place.dsn, "select max(version) from feed.counters")
    async with live(tmp_path / "data2", elsewhere) as server:
        assert (await server.stats())["pendingUpdates"] == 1, "what was pending is pending again"
        answer = await server.ask("GET", "/events/e1")
        assert answer.json["scanCount"] == 500
        again = await server.ask(
            "POST", "/popularity", json=[{"eventId": "e1", "delta": {"scanCount": 1}, "updateId": "once"}]
        )
        assert again.json["accepted"] == 1
        assert (await server.ask("GET", "/events/e1")).json["scanCount"] == 500, (
            "an update that was taken is taken once"
        )
        await server.put(event("new"))
        assert (await server.ask("GET", "/events/new")).json["version"] > version, "no version is used twice"
        people = await server.ask("GET", "/tiers/people")
        assert {row["name"] for row in people.json["people"]} == {"Ada", "Grace"}, "roles and policies are there"


async def test_the_digests_are_those_of_the_rows(place: Place, tmp_path: Path) -> None:
    await fill(place.dsn, tmp_path / "data")
    first = await saved(place, tmp_path / "one.backup")
    again = await saved(place, tmp_path / "two.backup")
    assert first.tables == again.tables
    await tell(place.dsn, "update feed.event set title = title || '!' where id = 'e7'")
    third = await saved(place, tmp_path / "three.backup")
    changed = {name for name in first.tables if first.tables[name] != third.tables[name]}
    assert changed == {"feed.event"}
    assert first.tables["feed.event"].rows == third.tables["feed.event"].rows


async def test_how_a_database_writes_its_values_does_not_matter(place: Place, elsewhere: str, tmp_path: Path) -> None:
    await fill(place.dsn, tmp_path / "data")
    name = elsewhere.partition("@/")[2].partition("?")[0]
    for setting in (
        "timezone = 'Asia/Kolkata'",
        "datestyle = 'German'",
        "extra_float_digits = -10",
        "bytea_output = escape",
    ):
        await tell(elsewhere, f"alter database {name} set {setting}")
    await saved(place, tmp_path / "one.backup")
    await restore(tmp_path / "one.backup", Place(elsewhere, tmp_path / "there"))


async def test_every_schema_that_the_migrations_make_is_saved(dsn: str) -> None:
    text = " ".join(migration.sql for migration in read_migrations(SCHEMA))
    assert set(re.findall(r"create schema (?:if not exists )?(\w+)", text)) == set(SCHEMAS)
    assert sorted(await schemas_of(dsn)) == list(SCHEMAS)


async def test_a_backup_by_hand_needs_no_program_of_ours(place: Place, elsewhere: str, tmp_path: Path) -> None:
    await fill(place.dsn, tmp_path / "data")
    await saved(place, tmp_path / "one.backup")
    address = backup_tools.address_of(elsewhere)
    with zipfile.ZipFile(tmp_path / "one.backup") as archive, archive.open(DUMP) as dump:
        backup_tools.restore(backup_tools.choose(address, 15), address, dump)
    assert await ask(elsewhere, "select count(*) from feed.event") == 41


async def test_a_user_without_any_attribute_can_save_and_restore_on_every_version_that_serves(
    server: str, tmp_path: Path
) -> None:
    """The least that the user of DATABASE_URL has (rights.py), and programs that are newer than the server."""
    roles = " ".join(f"create role {role} nologin; grant {role} to theirs;" for role in ROLES)
    await tell(server, f"create role theirs login; {roles}")
    for name in ("a", "b"):
        await tell(server, f"create database {name} owner theirs")
    a, b = as_user(server, "theirs", "a"), as_user(server, "theirs", "b")
    await fill(a, tmp_path / "data")
    manifest = await saved(Place(a, tmp_path / "imports"), tmp_path / "one.backup")
    assert await restore(tmp_path / "one.backup", Place(b, tmp_path / "imports")) == manifest
    async with live(tmp_path / "data2", b) as again:
        assert (await again.ask("GET", "/events/e1")).json["scanCount"] == 500


async def test_what_pg_restore_has_against_it_is_told_in_its_own_words(place: Place, tmp_path: Path) -> None:
    """Also when it gives up long before it has been handed everything."""
    await tell(place.dsn, MUCH)
    await saved(place, tmp_path / "one.backup")
    assert (tmp_path / "one.backup").stat().st_size > 1 << 20
    address = backup_tools.address_of(place.dsn)
    with (
        zipfile.ZipFile(tmp_path / "one.backup") as archive,
        archive.open(DUMP) as dump,
        pytest.raises(Unavailable, match=r'pg_restore ended with code 1: .*schema "feed" already exists'),
    ):
        backup_tools.restore(backup_tools.choose(address, 15), address, dump)


# --- of one moment ---


async def test_a_backup_under_load_is_of_one_moment(place: Place, elsewhere: str, tmp_path: Path) -> None:
    """Each transaction moves a count from one event to another, and notes that it did: the sum, and sum against notes, must hold."""
    await fill(place.dsn, tmp_path / "data")
    await tell(place.dsn, "update feed.counters set scan = 1000000")
    done, stop = 0, asyncio.Event()

    async def move(number: int) -> None:
        nonlocal done
        connection = await asyncpg.connect(place.dsn)
        try:
            while not stop.is_set():
                async with connection.transaction():
                    low, high = sorted((number, (number + done) % 40))
                    await connection.execute("update feed.counters set scan = scan - 3 where event_id = $1", f"e{low}")
                    await connection.execute(
                        "update feed.counters set scan = scan + 3, save = save + 1 where event_id = $1", f"e{high}"
                    )
                    await connection.execute("insert into ops.audit (action) values ('moved')")
                done += 1
        finally:
            await connection.close()

    movers = [asyncio.create_task(move(number)) for number in (3, 5, 8)]
    try:
        await until(lambda: done > 50, "there is load")
        before = done
        await saved(place, tmp_path / "one.backup")
        assert done > before, "writers went on"
    finally:
        stop.set()
        await asyncio.gather(*movers)
    await restore(tmp_path / "one.backup", Place(elsewhere, tmp_path / "there"))
    moved = await ask(elsewhere, "select count(*) from ops.audit where action = 'moved'")
    assert 50 < moved < done, "it was in the middle"
    assert await ask(elsewhere, "select sum(scan) from feed.counters") == 41_000_000
    assert await ask(elsewhere, "select sum(save) from feed.counters") == moved


async def test_nobody_waits_for_a_table_while_a_backup_is_taken(place: Place, tmp_path: Path) -> None:
    """Adding and dropping tables would stand in line behind pg_dump, and every writer behind that."""
    async with live(tmp_path / "data", place.dsn) as server:
        loop = server.app.panel.loop("tidy")
        await until(server.app.leadership.leads, "it leads")
        await loop.run_now()  # The first turn of a start is over.
        await tell(
            place.dsn,
            "create table feed.applied_2001010100 partition of feed.applied for values from ('2001-01-01 00:00Z') to ('2001-01-01 01:00Z')",
        )
        connection = await asyncpg.connect(place.dsn)
        try:
            await connection.execute("select pg_advisory_lock_shared($1)", backup.BACKUP_LOCK)
            async with connection.transaction():
                await connection.fetch("select * from feed.applied")  # what pg_dump holds of it
                turn = await loop.run_now()
                assert turn.detail.get("disturbs") == 1
                await server.put(event("a"))
                await server.count("a", scanCount=1, updateId="u")
            await connection.execute("select pg_advisory_unlock_shared($1)", backup.BACKUP_LOCK)
        finally:
            await connection.close()
        turn = await loop.run_now()
        assert turn.detail["dropped"] == 1, turn


# --- never half restored ---


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99, -1])
async def test_a_cut_file_is_refused_and_nothing_changes(
    place: Place, elsewhere: str, tmp_path: Path, share: float
) -> None:
    whole = tmp_path / "one.backup"
    await saved(place, whole)
    size = whole.stat().st_size
    cut = tmp_path / "cut.backup"
    cut.write_bytes(whole.read_bytes()[: int(size * share) if share >= 0 else size - 1])
    with pytest.raises(Refused) as error:
        await restore(cut, Place(elsewhere, tmp_path / "there"))
    assert "damaged" in refused(error, Code.BAD_MESSAGE)
    assert await schemas_of(elsewhere) == []
    assert not (tmp_path / "there").exists()


async def test_a_changed_byte_is_found_wherever_it_is(place: Place, tmp_path: Path) -> None:
    await saved(place, tmp_path / "one.backup")
    good = (tmp_path / "one.backup").read_bytes()
    missed = []
    for at in range(0, len(good), max(1, len(good) // 150)):
        bad = tmp_path / "bad.backup"
        bad.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        try:
            with opened(bad) as found, opened(tmp_path / "one.backup") as true:
                if found.manifest != true.manifest:
                    missed.append(at)
        except Refused:
            continue
    assert missed == []


def rewritten(path: Path, to: Path, **changes: object) -> Path:
    """The same backup with another manifest, as only its maker could have written it."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            if name != MANIFEST:
                new.writestr(name, old.read(name))
        new.writestr(MANIFEST, orjson.dumps({**orjson.loads(old.read(MANIFEST)), **changes}))
    return to


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "format 2"),
        ({"migration": 9999}, "newer batchcast"),
        ({"schemas": ["feed", "next"]}, "newer batchcast"),
        ({"postgres": 99}, "PostgreSQL 99"),
        ({"members": {}}, "damaged"),
        ({"migration": "x"}, "damaged"),
        ({"tables": 5}, "damaged"),
    ],
)
async def test_one_that_does_not_fit_is_refused_and_nothing_changes(
    place: Place, elsewhere: str, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    await saved(place, tmp_path / "one.backup")
    bad = rewritten(tmp_path / "one.backup", tmp_path / "bad.backup", **changes)
    with pytest.raises(Refused, match=words):
        await restore(bad, Place(elsewhere, tmp_path / "there"))
    assert await schemas_of(elsewhere) == []


async def test_a_database_that_is_not_empty_is_refused_and_keeps_what_it_has(place: Place, tmp_path: Path) -> None:
    await saved(place, tmp_path / "one.backup")
    await tell(place.dsn, "insert into ops.audit (action) values ('kept')")
    with pytest.raises(Refused) as error:
        await restore(tmp_path / "one.backup", place)
    assert "not empty" in refused(error, Code.CONFLICT)
    assert await ask(place.dsn, "select count(*) from ops.audit where action = 'kept'") == 1


async def test_a_restore_that_is_cut_off_leaves_nothing(place: Place, elsewhere: str, tmp_path: Path) -> None:
    place.imports.mkdir()
    (place.imports / NAME).write_text("email\na@example.com\n")
    await tell(place.dsn, MUCH)
    await saved(place, tmp_path / "one.backup")

    class Cut(Exception):
        pass

    at_work, taken = False, 0

    def step(words: str) -> None:
        nonlocal at_work
        at_work = at_work or words.startswith("restoring")

    def heard(count: int) -> None:
        nonlocal taken
        taken += count if at_work else 0
        if taken > CHUNK:  # More than a pipe holds: pg_restore has come a long way.
            raise Cut

    with pytest.raises(Cut):
        await restore(tmp_path / "one.backup", Place(elsewhere, tmp_path / "there"), Progress(step, heard))
    assert await schemas_of(elsewhere) == []
    assert not (tmp_path / "there" / NAME).exists()
    await restore(tmp_path / "one.backup", Place(elsewhere, tmp_path / "there"))
    assert (tmp_path / "there" / NAME).read_text() == "email\na@example.com\n"


async def test_rows_that_are_not_those_of_the_backup_are_removed_again(
    place: Place, elsewhere: str, tmp_path: Path
) -> None:
    await fill(place.dsn, tmp_path / "data")
    manifest = await saved(place, tmp_path / "one.backup")
    tables = {name: {"rows": table.rows, "digest": table.digest} for name, table in manifest.tables.items()}
    tables["feed.event"]["digest"] = "1"
    bad = rewritten(tmp_path / "one.backup", tmp_path / "bad.backup", tables=tables)
    with pytest.raises(Unavailable, match=r"feed\.event"):
        await restore(bad, Place(elsewhere, tmp_path / "there"))
    assert await schemas_of(elsewhere) == []


async def test_a_server_that_starts_too_early_waits_for_all_of_it(place: Place, elsewhere: str, tmp_path: Path) -> None:
    from server.edge.postgres import migrate

    await saved(place, tmp_path / "one.backup")
    early: list[asyncio.Task[list[int]]] = []
    db = await Database.open(elsewhere, clock=SystemClock())
    loop = asyncio.get_running_loop()

    def step(words: str) -> None:
        if words.startswith("restoring"):
            loop.call_soon_threadsafe(lambda: early.append(loop.create_task(migrate(db))))

    try:
        await restore(tmp_path / "one.backup", Place(elsewhere, tmp_path / "there"), Progress(step))
        await until(lambda: bool(early), "it has started")
        assert await early[0] == [], "there was nothing left to migrate"
    finally:
        await db.close()


# --- files ---


async def test_files_of_imports_come_along_even_when_their_jobs_end_meanwhile(
    place: Place, elsewhere: str, tmp_path: Path
) -> None:
    place.imports.mkdir()
    (place.imports / NAME).write_text("email\na@example.com\n")
    (place.imports / ".folder-id").write_text("f1")
    (place.imports / f"{NAME}.part").write_text("half")

    def step(words: str) -> None:
        if words.startswith("dumping"):
            (place.imports / NAME).unlink()

    await take(place, tmp_path / "one.backup", clock=SystemClock(), version="1", progress=Progress(step))
    assert sorted(path.name for path in place.imports.iterdir()) == [".folder-id", f"{NAME}.part"]
    manifest = await restore(tmp_path / "one.backup", Place(elsewhere, tmp_path / "there"))
    assert sorted(manifest.imports) == [".folder-id", NAME]
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [".folder-id", NAME]


async def test_another_file_of_that_name_is_refused_and_the_same_one_stays(
    place: Place, elsewhere: str, tmp_path: Path
) -> None:
    place.imports.mkdir()
    (place.imports / ".folder-id").write_text("f1")
    await saved(place, tmp_path / "one.backup")
    there = tmp_path / "there"
    there.mkdir()
    (there / ".folder-id").write_text("f2")
    with pytest.raises(Refused, match="not the backup's"):
        await restore(tmp_path / "one.backup", Place(elsewhere, there))
    assert await schemas_of(elsewhere) == []
    (there / ".folder-id").write_text("f1")
    await restore(tmp_path / "one.backup", Place(elsewhere, there))
    assert (there / ".folder-id").read_text() == "f1"


async def test_keys_come_along_when_asked_for_and_the_file_is_nobody_elses_to_read(
    place: Place, elsewhere: str, tmp_path: Path
) -> None:
    (tmp_path / "jwt.keys").write_text("secret")
    await saved(place, tmp_path / "without.backup")
    await saved(Place(place.dsn, place.imports, tmp_path / "jwt.keys"), tmp_path / "with.backup")
    assert (tmp_path / "with.backup").stat().st_mode & 0o777 == 0o600
    with opened(tmp_path / "without.backup") as found:
        assert "keys/jwt.keys" not in found.manifest.members
    await restore(tmp_path / "with.backup", Place(elsewhere, tmp_path / "there", tmp_path / "new" / "jwt.keys"))
    assert (tmp_path / "new" / "jwt.keys").read_text() == "secret"
    assert (tmp_path / "new" / "jwt.keys").stat().st_mode & 0o777 == 0o600


async def test_a_backup_that_fails_leaves_nothing_and_one_that_is_there_stays(
    place: Place, empty_dsn: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused) as error:
        await saved(Place(empty_dsn, place.imports), tmp_path / "one.backup")
    refused(error, Code.NOT_FOUND)
    assert os.listdir(tmp_path) == []
    (tmp_path / "there.backup").write_text("mine")
    with pytest.raises(Refused) as error:
        await saved(place, tmp_path / "there.backup")
    refused(error, Code.CONFLICT)
    assert (tmp_path / "there.backup").read_text() == "mine"
    with pytest.raises(Refused, match="cannot be written"):
        await saved(place, tmp_path / "nowhere" / "one.backup")


# --- how it is asked for ---


@pytest.mark.parametrize(
    ("dsn", "url", "password", "tls"),
    [
        ("postgresql://u:p%40ss@h:5/db", "postgresql://u@h:5/db", "p@ss", False),
        ("postgres://h/db?user=u&password=x&sslmode=require", "postgresql://h/db?user=u&sslmode=require", "x", True),
        ("postgresql://u@/db?host=%2Ftmp%2Fa&port=5432", "postgresql://u@/db?host=%2Ftmp%2Fa&port=5432", None, False),
        ("postgresql://u@h/db?application_name=x&command_timeout=3", "postgresql://u@h/db", None, False),
    ],
)
def test_a_password_is_never_on_a_command_line(dsn: str, url: str, password: str | None, tls: bool) -> None:
    address = backup_tools.address_of(dsn)
    assert (address.url, address.password, address.tls) == (url, password, tls)
    assert address.environment.get("PGPASSWORD") == password


def test_a_servers_own_pg_dump_goes_before_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from server.edge.cluster_files import Binaries

    there = [Binaries(Path(f"/{v}"), v, False) for v in ("18.6", "15.9", "15.20", "16.2")]
    monkeypatch.setattr(backup_tools, "programs", lambda *names: there)
    address = backup_tools.address_of("postgresql://h/d")
    assert [backup_tools.dumper(address, major).version for major in (15, 16, 17)] == ["15.20", "16.2", "18.6"]


def test_programs_without_tls_are_not_sent_where_tls_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from server.edge.cluster_files import Binaries
    from server.errors import StartRefused

    there = [Binaries(Path("/wheel"), "18.1", True), Binaries(Path("/system"), "17.2", False)]
    monkeypatch.setattr(backup_tools, "programs", lambda *names: there)
    plain, secure = (backup_tools.address_of(f"postgresql://h/d{query}") for query in ("", "?sslmode=verify-full"))
    assert backup_tools.choose(plain, 17).version == "18.1"
    assert backup_tools.choose(secure, 17).version == "17.2"
    with pytest.raises(StartRefused, match="TLS"):
        backup_tools.choose(secure, 18)
