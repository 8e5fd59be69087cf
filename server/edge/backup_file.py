"""The file of a backup: a ZIP that says of itself what is in it, so that a cut or changed one is refused before it is used.

    database.dump       what pg_dump wrote (custom format): by hand, `unzip -p FILE database.dump | pg_restore -d DATABASE`
    imports/NAME        files of members that wait for a worker
    keys/jwt.keys       the local signing key, when it was asked for
    manifest.json       last: who made it, of what, and of each member its size and SHA-256

A ZIP's directory is at its end, so a file that was cut has none and is no ZIP any more; a byte that changed fails its member's
SHA-256. `Writer` writes beside the place and moves the whole there when it is on disk, readable by nobody else. `opened` answers
with a backup of which every byte has been read and found to be what the manifest says.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Final, TypeAlias

import orjson

from server.errors import Code, Refused

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DUMP: Final = "database.dump"
IMPORTS: Final = "imports/"
KEYS: Final = "keys/jwt.keys"
CHUNK: Final = 1 << 20
MANIFEST_MOST: Final = 64 << 20
"""Bytes; a manifest has a line a table and a file. A larger one is refused unread."""

_MEMBER: Final = re.compile(r"database\.dump|keys/jwt\.keys|imports/[\w.-]{1,200}")

Heard: TypeAlias = Callable[[int], None]
"""Told of so many bytes more."""


def unheard(count: int) -> None:
    """For those who want no progress."""


def nameable(name: str) -> bool:
    """May a file of imports with this name be in a backup? Those of our making may."""
    return _MEMBER.fullmatch(f"{IMPORTS}{name}") is not None


@dataclass(frozen=True, slots=True)
class Table:
    """What a table held. `digest` does not depend on the order of rows, nor on the version of PostgreSQL."""

    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Member:
    """A part of the file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup is. `migration` is the newest one applied, `postgres` the major version of the server it came from."""

    made_at_ms: int
    batchcast: str
    postgres: int
    tools: int
    migration: int
    schemas: tuple[str, ...]
    tables: Mapping[str, Table]
    members: Mapping[str, Member]
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def imports(self) -> tuple[str, ...]:
        """The names of the files of members in it."""
        return tuple(name.removeprefix(IMPORTS) for name in self.members if name.startswith(IMPORTS))

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(member.bytes for member in self.members.values())


class Writer:
    """A backup in the making; nothing is at its place before `finish`, and nothing stays of one that failed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.name}.part")
        self._members: dict[str, Member] = {}
        self._file: BinaryIO
        self._zip: zipfile.ZipFile

    def __enter__(self) -> Writer:
        if self._path.exists():
            raise Refused(Code.CONFLICT, f"{self._path} exists; name another file, or remove it first")
        try:
            self._file = os.fdopen(os.open(self._beside, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600), "w+b")
        except OSError as error:
            raise Refused(Code.CONFLICT, f"{self._path} cannot be written ({error.strerror}); name another") from None
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError, ValueError):  # What is not finished is thrown away.
            self._zip.close()
        self._file.close()
        self._beside.unlink(missing_ok=True)

    def add(self, name: str, source: IO[bytes], heard: Heard = unheard) -> None:
        """One member, as long as its source has bytes; `heard` is told of each piece."""
        assert _MEMBER.fullmatch(name), name
        size, digest = 0, hashlib.sha256()
        with self._zip.open(name, "w", force_zip64=True) as member:
            while piece := source.read(CHUNK):
                member.write(piece)
                digest.update(piece)
                size += len(piece)
                heard(len(piece))
        self._members[name] = Member(size, digest.hexdigest())

    @property
    def members(self) -> dict[str, Member]:
        """What is in it so far."""
        return dict(self._members)

    def finish(self, manifest: Manifest) -> None:
        """The last word, on disk; then the file is at its place, where nobody has put another meanwhile."""
        assert dict(manifest.members) == self._members, "the manifest tells of other members"
        self._zip.writestr(MANIFEST, orjson.dumps(asdict(manifest), option=orjson.OPT_INDENT_2))
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        _place(self._beside, self._path)


def _place(beside: Path, path: Path) -> None:
    try:
        os.link(beside, path)
    except FileExistsError:
        raise Refused(Code.CONFLICT, f"{path} was made by somebody else meanwhile; name another file") from None
    except OSError:  # A file system without hard links.
        os.rename(beside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder as durable as the files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Opened:
    """A backup that has been read through once."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self._zip = archive
        self.manifest = manifest

    def read(self, name: str) -> IO[bytes]:
        """One member, to be read once more; the caller closes it."""
        return self._zip.open(name)


@contextmanager
def opened(path: Path, heard: Heard = unheard) -> Iterator[Opened]:
    """The backup in that file, every byte of it checked; Refused says what is wrong with it."""
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise Refused(Code.NOT_FOUND, f"there is no file {path}") from None
    except OSError as error:
        raise Refused(Code.NOT_FOUND, f"{path} cannot be read ({error.strerror})") from None
    except (zipfile.BadZipFile, ValueError):
        raise _damaged(path, "it is no backup of ours, or was cut off") from None
    with archive:
        try:
            manifest = _manifest(path, archive)
            _check_members(path, archive, manifest, heard)
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
            raise _damaged(path, str(error) or type(error).__name__) from None
        yield Opened(archive, manifest)


def _damaged(path: Path, why: str) -> Refused:
    return Refused(Code.BAD_MESSAGE, f"{path} is damaged: {why}. Nothing was changed; use another backup.")


def _manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    try:
        info = archive.getinfo(MANIFEST)
    except KeyError:
        raise _damaged(path, f"it has no {MANIFEST}") from None
    if info.file_size > MANIFEST_MOST:
        raise _damaged(path, f"its {MANIFEST} has {info.file_size} bytes")
    said = orjson.loads(archive.read(info))
    if isinstance(said, dict) and isinstance(said.get("format"), int) and said["format"] > FORMAT:
        text = f"{path} is a backup of format {said['format']}, made by batchcast {said.get('batchcast')}; this program knows {FORMAT}"
        raise Refused(Code.CONFLICT, f"{text}. Nothing was changed; use the newer program.")
    try:
        return _read(said)
    except (KeyError, TypeError, AttributeError):
        raise _damaged(path, f"its {MANIFEST} is not one of ours") from None


def _read(said: dict[str, object]) -> Manifest:
    numbers = {name: _number(said[name]) for name in ("made_at_ms", "postgres", "tools", "migration", "format")}
    tables, members, schemas = said["tables"], said["members"], said["schemas"]
    if not isinstance(tables, dict) or not isinstance(members, dict) or not isinstance(schemas, list):
        raise TypeError
    return Manifest(
        **numbers,
        batchcast=str(said["batchcast"]),
        schemas=tuple(str(schema) for schema in schemas),
        tables={name: Table(_number(row["rows"]), str(row["digest"])) for name, row in tables.items()},
        members={name: Member(_number(row["bytes"]), str(row["sha256"])) for name, row in members.items()},
    )


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError
    return value


def _check_members(path: Path, archive: zipfile.ZipFile, manifest: Manifest, heard: Heard) -> None:
    there = sorted(name for name in archive.namelist() if name != MANIFEST)
    if there != sorted(manifest.members) or DUMP not in there:
        raise _damaged(path, "its parts are not those that its manifest names")
    for name, member in manifest.members.items():
        if not _MEMBER.fullmatch(name):
            raise _damaged(path, f"it names a part {name[:80]!r}")
        if _measured(archive, name, heard) != member:
            raise _damaged(path, f"{name} is not what was written")


def _measured(archive: zipfile.ZipFile, name: str, heard: Heard) -> Member:
    size, digest = 0, hashlib.sha256()
    with archive.open(name) as member:
        while piece := member.read(CHUNK):
            digest.update(piece)
            size += len(piece)
            heard(len(piece))
    return Member(size, digest.hexdigest())
