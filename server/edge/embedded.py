"""The embedded PostgreSQL: programs from the wheel, supervised by us. `locate` chooses between it and DATABASE_URL.

    DATA_DIR locked -> leftovers gone -> initdb when needed -> launched -> ready --stop--> stopped, lock freed
                             ^                                               |
                             '-------------- backoff <------ exited ---------'

What it promises: one server per DATA_DIR (only a living holder of the lock refuses another); connections by a Unix
socket and nothing else; when this process dies, of whatever cause, PostgreSQL gets SIGINT from the kernel and shuts
down; when PostgreSQL dies it is noticed at once, logged, and started again with backoff until it runs or we stop; a
PostgreSQL that outlived its server is stopped cleanly before ours is started.

What it leaves to others: what is in the database (postgres.migrate), connections and their losses (postgres.Database).
`start_now` and `stop_now` are the same without an event loop and without supervision, for tests and short commands.
"""

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import structlog

from server.edge import cluster_files, postmaster
from server.edge.clock import Clock, SystemClock
from server.edge.cluster_files import Binaries, Lock, Place
from server.edge.tasks import Tasks
from server.errors import StartRefused

USER = "batchcast"
DATABASE = "postgres"

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_compression": "on",
    "jit": "off",
    # A backend that crashes takes PostgreSQL along and we restart it: one way back instead of two. Told to stop while it
    # recovers by itself from such a crash, PostgreSQL 18 never ends.
    "restart_after_crash": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "cluster_name": "batchcast",
}

# Recovery after a crash may replay much; a start that takes longer than this is stopped and reported.
START_LIMIT_S = 600.0
READY_POLL_S = 0.02
BACKOFF_FIRST_S = 0.1
BACKOFF_LIMIT_S = 10.0
# One that ran this long is healthy: the backoff begins anew.
HEALTHY_S = 60.0

log = structlog.get_logger()


def locate(database_url: str | None, data_dir: Path) -> "str | EmbeddedPostgres":
    """DATABASE_URL when there is one, else an embedded server, not yet started; StartRefused says what to do."""
    if database_url:
        return database_url
    cluster_files.find_binaries()
    return EmbeddedPostgres(data_dir)


class EmbeddedPostgres:
    """One PostgreSQL server over one data directory."""

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        binaries: Binaries | None = None,
    ) -> None:
        """`binaries`: the programs to run it with, when those are not the ones that would be found."""
        self._data_dir = data_dir.resolve()
        self._binaries = binaries
        self._settings = {**SETTINGS, **(settings or {})}
        self._clock = clock or SystemClock()
        self._tasks: Tasks | None = None
        self._locks: list[Lock] = []
        self._place: Place | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._launched_at = 0.0
        # Held while a thread works on the files: a caller that is cancelled leaves the thread behind, and until it has
        # ended the data directory is not free for another server.
        self._preparing = threading.Lock()

    async def start(self) -> str:
        """Start it and keep it running; returns the DSN, which stays the same over restarts."""
        try:
            await asyncio.to_thread(self._prepare)
            self._launch()
            await asyncio.to_thread(self._await_ready)
        except BaseException:
            self.stop_now()
            raise
        self._tasks = Tasks()
        self._tasks.start("postgres watch", self._watch())
        return self.dsn

    async def stop(self) -> None:
        """Stop it and free the data directory; nothing happens when it is not running."""
        if self._tasks is not None:
            await self._tasks.close()
            self._tasks = None
        await asyncio.to_thread(self.stop_now)

    def start_now(self) -> str:
        """Start it from synchronous code, in the main thread; nobody restarts it."""
        try:
            self._prepare()
            self._launch()
            self._await_ready()
        except BaseException:
            self.stop_now()
            raise
        return self.dsn

    def stop_now(self) -> None:
        """Stop it from synchronous code, and free the data directory."""
        self.halt_now()
        with self._preparing:
            while self._locks:
                self._locks.pop().free()

    def halt_now(self) -> None:
        """Stop it, and keep the data directory from others."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            postmaster.shut_down(process)

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None when it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def dsn(self) -> str:
        assert self._place is not None, "start comes first"
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self._place.sockets), safe='')}&port=5432"

    # Starting

    def _prepare(self) -> None:
        """Everything before the launch; slow, and safe to run in any thread."""
        try:
            with self._preparing:
                self._prepare_files()
        except OSError as error:
            raise StartRefused(
                f"the database cannot be made ready in the data directory {self._data_dir}: {error}. "
                "Mend that, or set DATA_DIR to a directory that this user may write."
            ) from error

    def _prepare_files(self) -> None:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._lock(self._data_dir)
        home = cluster_files.home_of(self._data_dir)
        if home != self._data_dir:
            self._lock(home)
        cluster_files.finish_upgrade(home)
        self._place = cluster_files.settle(self._data_dir, self._binaries)
        if self._place.home != home:
            self._lock(self._place.home)
        postmaster.stop_leftovers(self._place.cluster)
        if not (self._place.cluster / "PG_VERSION").exists():
            _create_cluster(self._place, durable=self._settings["fsync"] != "off")

    def _lock(self, folder: Path) -> None:
        lock = Lock(folder)
        lock.take()
        self._locks.append(lock)

    def _launch(self) -> None:
        assert self._place is not None
        postmaster.trim_log(self._place.log)
        self._process = postmaster.spawn(self._place, self._settings)
        self._launched_at = self._clock.monotonic()

    def _await_ready(self) -> None:
        process, place = self._process, self._place
        assert process is not None
        assert place is not None
        for _ in range(int(START_LIMIT_S / READY_POLL_S)):
            if postmaster.is_ready(place.cluster, process.pid):
                seconds = round(self._clock.monotonic() - self._launched_at, 3)
                log.info("postgres started", pid=process.pid, version=place.binaries.version, seconds=seconds)
                return
            if postmaster.exits_within(process, READY_POLL_S):
                raise StartRefused(f"PostgreSQL did not start; {place.log} ends with:\n{postmaster.tail(place.log)}")
        raise StartRefused(f"PostgreSQL was not ready within {START_LIMIT_S:.0f} s; see {place.log}")

    # Keeping it running

    async def _watch(self) -> None:
        failures = 0
        while self._process is not None:
            await _exited(self._process.pid)
            code = self._process.wait()
            if self._clock.monotonic() - self._launched_at >= HEALTHY_S:
                failures = 0
            log.error("postgres exited", pid=self._process.pid, code=code)
            failures = await self._restart(failures)

    async def _restart(self, failures: int) -> int:
        """Try until it runs; returns how many times in a row it has failed or died young."""
        refused = False
        while True:
            await self._clock.sleep(min(BACKOFF_FIRST_S * 2.0 ** min(failures, 10), BACKOFF_LIMIT_S))
            failures += 1
            try:
                await self._start_again()
            except (StartRefused, OSError) as error:
                if not refused:
                    log.error("postgres restart failed", error=str(error), next="trying on")
                refused = True
            else:
                return failures

    async def _start_again(self) -> None:
        await asyncio.to_thread(self._clear)
        self._launch()
        await asyncio.to_thread(self._await_ready)

    def _clear(self) -> None:
        assert self._place is not None
        with self._preparing:
            postmaster.stop_leftovers(self._place.cluster)


async def _exited(pid: int) -> None:
    """Wait for the end of a child, which its Popen reaps (or has reaped before we looked)."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop.add_reader(handle, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


# The cluster


def _create_cluster(place: Place, *, durable: bool) -> None:
    """Run initdb beside the place and move the result there, so that a crash leaves no half of a cluster."""
    fresh = place.cluster.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if place.account.switch:
        os.chown(fresh, place.account.uid, place.account.gid)
    made = cluster_files.run(
        place.account, place.binaries.folder / "initdb", "-D", fresh, *_initdb_options(place, durable)
    )
    if made.returncode != 0:
        raise StartRefused(f"initdb could not make a database in {fresh}: {made.stderr.strip()}")
    fresh.rename(place.cluster)
    log.info("cluster created", path=str(place.cluster), version=place.binaries.version, account=place.account.name)


def _initdb_options(place: Place, durable: bool) -> list[str]:
    options = ["--username", USER, "--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--data-checksums"]
    # The provider built into PostgreSQL sorts and folds the same everywhere, whatever locales a machine has.
    if int(place.binaries.major) >= 17:
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    else:
        options += ["--locale=C.UTF-8"]
    return options if durable else [*options, "--no-sync"]
