"""Backups of everything the database knows, taken while servers run, and their way back into an empty database.

    manifest = await take(Place(dsn, imports, keys), Path("monday.backup"), clock=clock, version="1.0")
    manifest = await restore(Path("monday.backup"), Place(dsn, imports, keys))

Taking one. A transaction of ours exports its snapshot, and everything is read as that snapshot sees it: pg_dump dumps our schemas,
and each table's rows are counted and digested. So a backup is one moment of the database, whatever is written meanwhile, and it
knows what a restored one must hold. Files of members that wait are held by hard links made before and just after that moment: no
job of the backup lacks its file. pg_dump waits for nobody and holds up nobody, but for work on tables themselves: whoever
adds or drops a table by schedule asks `undisturbed` first, which says no while a backup is under way.

Restoring. The file is read through before anything else (backup_file.py). The database must have none of our schemas, be no older
a PostgreSQL than the one before, and the program no older than the backup's migrations. pg_restore then works in one transaction:
killed at any moment, it leaves nothing. What is then there is counted and digested again; when that differs, it is removed
again. Migrators wait meanwhile, so that a server which starts too early finds all of it or nothing. What a newer program adds
to the schema, the next start adds.

What is left to others: secrets of the environment (JWT_SECRET, IMPORTS_KEY: without it sealed credentials cannot be opened).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg

from server.edge import backup_tools as tools
from server.edge.backup_file import (
    DUMP,
    IMPORTS,
    KEYS,
    Heard,
    Manifest,
    Opened,
    Table,
    Writer,
    nameable,
    opened,
    sync_folder,
    unheard,
)
from server.edge.clock import Clock
from server.edge.postgres import (
    CLOSE_LIMIT_S,
    CONNECT_LIMIT_S,
    MIGRATION_LOCK,
    SCHEMA,
    SESSION,
    Connection,
    read_migrations,
)
from server.edge.rights import Rights, rights
from server.errors import Code, Refused, StartRefused, Unavailable

SCHEMAS: Final = ("feed", "imports", "ops", "schedules", "tiers", "tracking")
"""Everything of ours in a database; a test holds them against the migrations."""
BACKUP_LOCK: Final = 7_238_114_002
"""Held, shared, while a backup is taken."""
PATIENT: Final = {
    **SESSION,
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # A row as text must read the same wherever it is restored.
    "search_path": "pg_catalog",
    "datestyle": "ISO, YMD",
    "intervalstyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # A user whom policies would show some rows only is told so, instead of getting half a backup.
    "row_security": "off",
}

THERE: Final = "select nspname::text as name from pg_namespace where nspname = any ($1::text[]) order by 1"
TABLES: Final = """
select format('%I.%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname = any ($1::text[]) order by 1"""
# The alias is no column's name. md5 and text mean the same in every version; a sum does not depend on the order of rows.
DIGEST: Final = """
select count(*) as rows,
    coalesce(sum(('x' || substr(md5("a whole row"::text), 1, 16))::bit(64)::bigint::numeric), 0)::text as digest
from only {table} as "a whole row" """
UNDISTURBED: Final = "select pg_try_advisory_xact_lock($1)"

Tell: TypeAlias = Callable[[str], None]
"""Told of each step, in words."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a backup is taken of, or restored into: a database, the folder of files that wait, the file of local keys (or none)."""

    dsn: str
    imports: Path
    keys: Path | None = None
    programs: Path | None = None
    """Where the programs lie that the database runs with, when that is known."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Who is told: of steps, and of bytes."""

    step: Tell
    heard: Heard = unheard


SILENT: Final = Progress(lambda words: None)


async def undisturbed(connection: Connection) -> bool:
    """May tables be added or dropped in this transaction? Not while a backup is taken, which would make everybody wait."""
    return bool(await connection.fetchval(UNDISTURBED, BACKUP_LOCK))


# Taking one


async def take(place: Place, target: Path, *, clock: Clock, version: str, progress: Progress = SILENT) -> Manifest:
    """A backup of this moment in a file that is not there yet."""
    with Writer(target) as writer, _held(place.imports) as held:
        async with _connected(place.dsn) as connection:
            await _refuse_nothing(connection)
            await connection.execute("select pg_advisory_lock_shared($1)", BACKUP_LOCK)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                snapshot = str(await connection.fetchval("select pg_export_snapshot()"))
                held.again()
                manifest = await _take(place, connection, snapshot, writer, clock.now_ms(), version, progress)
        await asyncio.to_thread(held.write, writer, place.keys, progress)
        whole = _with_members(manifest, writer)
        await asyncio.to_thread(writer.finish, whole)
    return whole


async def _refuse_nothing(connection: Connection) -> None:
    if not await connection.fetchval("select to_regclass('ops.migration') is not null"):
        raise Refused(Code.NOT_FOUND, "this database holds nothing of batchcast's; check DATABASE_URL and DATA_DIR")


async def _take(
    place: Place, connection: Connection, snapshot: str, writer: Writer, now_ms: int, version: str, progress: Progress
) -> Manifest:
    server = connection.get_server_version().major
    address = tools.address_of(place.dsn)
    programs = await asyncio.to_thread(tools.dumper, address, server, place.programs)
    schemas = tuple(row["name"] for row in await connection.fetch(THERE, list(SCHEMAS)))
    migration = int(await connection.fetchval("select max(number) from ops.migration") or 0)
    progress.step(f"dumping {', '.join(schemas)} with pg_dump {programs.version}")

    def dump() -> None:
        with tools.dump(programs, address, snapshot, schemas) as said:
            writer.add(DUMP, said, progress.heard)

    await asyncio.to_thread(dump)
    tables = await _tables(connection, schemas, progress)
    return Manifest(now_ms, version, server, int(programs.major), migration, schemas, tables, {})


def _with_members(manifest: Manifest, writer: Writer) -> Manifest:
    parts = {name: getattr(manifest, name) for name in manifest.__slots__}
    return Manifest(**{**parts, "members": writer.members})


async def _tables(connection: Connection, schemas: tuple[str, ...], progress: Progress) -> Mapping[str, Table]:
    """What each table holds, as this transaction sees it."""
    names = [str(row["name"]) for row in await connection.fetch(TABLES, list(schemas))]
    progress.step(f"counting and digesting {len(names)} tables")
    found = {}
    for name in names:
        row = await connection.fetchrow(DIGEST.format(table=name))
        assert row is not None
        found[name] = Table(row["rows"], row["digest"])
    return found


class Held:
    """Files of members, held by links so that they stay while they are copied."""

    def __init__(self, folder: Path, beside: Path | None) -> None:
        self._folder = folder
        self._beside = beside

    def again(self) -> None:
        """Hold what has come since."""
        if self._beside is None:
            return
        for path in self._folder.iterdir():
            wanted = nameable(path.name) and path.suffix != ".part" and path.is_file()
            if wanted and not (self._beside / path.name).exists():
                _link(path, self._beside / path.name)

    def write(self, writer: Writer, keys: Path | None, progress: Progress) -> None:
        """Put them into the backup, and the keys."""
        paths = [] if self._beside is None else sorted(self._beside.iterdir())
        if paths:
            progress.step(f"adding {len(paths)} files of imports")
        for path in paths:
            with path.open("rb") as file:
                writer.add(f"{IMPORTS}{path.name}", file, progress.heard)
        if keys is not None and keys.exists():
            with keys.open("rb") as file:
                writer.add(KEYS, file)


def _link(path: Path, held: Path) -> None:
    """A file that went away meanwhile belongs to a job that ended before the backup's moment, or is linked already."""
    try:
        os.link(path, held)
    except FileNotFoundError:
        return
    except OSError:  # A file system without hard links.
        shutil.copyfile(path, held)


@contextmanager
def _held(folder: Path) -> Iterator[Held]:
    if not folder.is_dir():
        yield Held(folder, None)
        return
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=folder) as beside:
        held = Held(folder, Path(beside))
        held.again()
        yield held


# Restoring


async def restore(path: Path, place: Place, progress: Progress = SILENT) -> Manifest:
    """What is in that file, into an empty database; Refused, with nothing changed, when it cannot be."""
    progress.step(f"reading {path} through")
    with opened(path, progress.heard) as backup:
        return await restore_opened(backup, place, progress)


async def restore_opened(backup: Opened, place: Place, progress: Progress = SILENT) -> Manifest:
    """The same with one that has been read through."""
    files = _files_to_place(backup, place)
    async with _connected(place.dsn) as connection:
        await connection.execute("select pg_advisory_lock($1)", MIGRATION_LOCK)
        await _refuse_unfit(connection, backup.manifest)
        await _make_roles(connection)
        with _placed(backup, files, progress):
            await _restore(connection, backup, place, progress)
    return backup.manifest


async def _restore(connection: Connection, backup: Opened, place: Place, progress: Progress) -> None:
    manifest = backup.manifest
    address = tools.address_of(place.dsn)
    programs = await asyncio.to_thread(
        tools.choose, address, max(manifest.tools, connection.get_server_version().major)
    )
    progress.step(
        f"restoring {manifest.rows:,} rows of {len(manifest.tables)} tables with pg_restore {programs.version}"
    )
    with backup.read(DUMP) as source:
        await asyncio.to_thread(tools.restore, programs, address, source, progress.heard)
    found = await _tables(connection, manifest.schemas, progress)
    if found != manifest.tables:
        await _undo(connection, manifest.schemas)
        raise Unavailable(
            f"what was restored is not what was backed up ({_difference(manifest.tables, found)}); it was removed again"
        )
    progress.step("gathering statistics")
    for name in found:
        await connection.execute(f"analyze {name}")


def _difference(wanted: Mapping[str, Table], found: Mapping[str, Table]) -> str:
    names = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


async def _undo(connection: Connection, schemas: tuple[str, ...]) -> None:
    for schema in schemas:
        assert schema in SCHEMAS, schema
        await connection.execute(f"drop schema if exists {schema} cascade")


async def _refuse_unfit(connection: Connection, manifest: Manifest) -> None:
    """Everything that stands against it, before anything is done."""
    there = [str(row["name"]) for row in await connection.fetch(THERE, list(SCHEMAS))]
    if there:
        text = f"the database is not empty: it has the schemas {', '.join(there)}. Nothing was changed"
        raise Refused(Code.CONFLICT, f"{text}; set DATA_DIR or DATABASE_URL to an empty one.")
    strange = set(manifest.schemas) - set(SCHEMAS)
    known = max(migration.number for migration in read_migrations(SCHEMA))
    if strange or manifest.migration > known:
        by = f"{manifest.batchcast}, migration {manifest.migration}; this program knows {known}"
        text = f"the backup was made by a newer batchcast ({by})"
        raise Refused(Code.CONFLICT, f"{text}. Nothing was changed; use the newer program.")
    server = connection.get_server_version().major
    if server < manifest.postgres:
        text = f"the backup is of PostgreSQL {manifest.postgres}, the database is of version {server}"
        raise Refused(Code.CONFLICT, f"{text}. Nothing was changed; use a PostgreSQL that is not older.")
    found = await rights(connection)
    if found.lacks:
        remedy = f" Have an administrator run: {found.remedy}" if found.remedy else ""
        raise StartRefused(f"{'; '.join(found.lacks)}.{remedy}")


async def _make_roles(connection: Connection) -> None:
    """Whom the grants of a dump name; as the migrations do it."""
    found: Rights = await rights(connection)
    for role in found.missing:
        await connection.execute(f"create role {role} nologin")
    for role in (*found.missing, *found.barred):
        await connection.execute(f'grant {role} to "{found.user}"')


# The files of a restored backup


def _files_to_place(backup: Opened, place: Place) -> dict[str, Path]:
    """Where each file goes; Refused when another is there. What is there already with the same bytes stays."""
    goals = {f"{IMPORTS}{name}": place.imports / name for name in backup.manifest.imports}
    if place.keys is not None and KEYS in backup.manifest.members:
        goals[KEYS] = place.keys
    for name, goal in goals.items():
        if goal.exists() and not _same(backup, name, goal):
            text = f"{goal} is there already and is not the backup's. Nothing was changed"
            raise Refused(Code.CONFLICT, f"{text}; move it away, or set DATA_DIR or IMPORTS_FOLDER to another folder.")
    return {name: goal for name, goal in goals.items() if not goal.exists()}


def _same(backup: Opened, name: str, path: Path) -> bool:
    if path.stat().st_size != backup.manifest.members[name].bytes:
        return False
    with backup.read(name) as ours, path.open("rb") as theirs:
        while piece := ours.read(1 << 16):
            if piece != theirs.read(len(piece)):
                return False
    return True


@contextmanager
def _placed(backup: Opened, files: Mapping[str, Path], progress: Progress) -> Iterator[None]:
    """Files come before the rows that name them, as they do in a server; they go again when the rows don't come."""
    placed: list[Path] = []
    try:
        for name, goal in files.items():
            goal.parent.mkdir(parents=True, exist_ok=True)
            placed.append(goal)
            _write(backup, name, goal, 0o600 if name == KEYS else 0o644)
        if placed:
            progress.step(f"{len(placed)} files put into place")
        yield
    except BaseException:
        for goal in placed:
            goal.unlink(missing_ok=True)
        raise


def _write(backup: Opened, name: str, goal: Path, mode: int) -> None:
    with backup.read(name) as source, open(os.open(goal, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(goal.parent)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Connection]:
    """A connection whose statements take as long as they take; Unavailable when there is none or it breaks."""
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_LIMIT_S, server_settings=PATIENT)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartRefused(f"the database cannot be reached: {error}. Check DATABASE_URL and DATA_DIR.") from None
    try:
        yield connection
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError) as error:
        raise Unavailable(f"the database broke off: {error}") from error
    finally:
        await connection.close(timeout=CLOSE_LIMIT_S)
