"""The embedded PostgreSQL that another process runs over the same DATA_DIR, for processes that work beside a server.

It listens on a Unix socket in a folder that only its account may enter, so this works on the server's own host, as the account
that started the server (or root). When that server stops, so does its PostgreSQL; when it is started again, it is found
under the same address.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from urllib.parse import quote

from server.edge import cluster_files
from server.edge.embedded import DATABASE, USER
from server.errors import StartRefused


def attached(data_dir: Path) -> str:
    """The DSN of the PostgreSQL in use there; StartRefused when no server runs over this DATA_DIR."""
    if not in_use(data_dir):
        raise StartRefused(
            f"no server runs over the data directory {data_dir}, so there is no database to work on. Start "
            "`batchcast serve` with the same DATA_DIR, or set DATABASE_URL to a PostgreSQL that both use."
        )
    try:
        place = cluster_files.settle(data_dir.resolve())
    except OSError as error:
        raise StartRefused(
            f"the database in {data_dir} cannot be reached from this account ({error}). Run as the account of the server, or "
            "set DATABASE_URL."
        ) from error
    return f"postgresql://{USER}@/{DATABASE}?host={quote(str(place.sockets), safe='')}&port=5432"


def in_use(data_dir: Path) -> bool:
    """Does a living process hold the lock of this DATA_DIR?"""
    try:
        with (data_dir / "server.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
