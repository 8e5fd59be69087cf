"""One PostgreSQL process: launched, watched until it is ready, shut down; and those that a dead server left behind.

PR_SET_PDEATHSIG follows the forking THREAD, so `spawn` must run in the main one. It is set by `setpriv` after the
change of account, which would clear it; where `setpriv` is missing, between fork and exec by ourselves, which is safe
only as long as no other thread holds a lock of libc at that moment.
"""

import ctypes
import functools
import os
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from server.edge import cluster_files
from server.edge.cluster_files import Place
from server.errors import StartRefused

# A fast shutdown still writes a checkpoint; one that takes longer is cut short, and recovery follows at the next start.
STOP_LIMIT_S = 30.0
QUIT_LIMIT_S = 10.0
# At a start the log above this size becomes postgres.log.1, in the place of the one before.
LOG_LIMIT_BYTES = 10 * 1024 * 1024
LOG_TAIL_LINES = 5
PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


def spawn(place: Place, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Launch PostgreSQL so that it stops when this process dies, of whatever cause."""
    assert threading.current_thread() is threading.main_thread(), "see PR_SET_PDEATHSIG above"
    death_signal, in_child = _death_signal()
    options = [
        f"-c{name}={value}" for name, value in {**settings, "unix_socket_directories": str(place.sockets)}.items()
    ]
    account, switch = place.account, place.account.switch
    with place.log.open("ab") as output:
        return subprocess.Popen(
            [*death_signal, place.binaries.folder / "postgres", "-D", place.cluster, *options],
            user=account.uid if switch else None,
            group=account.gid if switch else None,
            extra_groups=[] if switch else None,
            cwd="/",
            env=cluster_files.ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=in_child,
        )


def _death_signal() -> tuple[list[str], Callable[[], object] | None]:
    """What to put before the command, or what to call in the child, so that our death stops PostgreSQL."""
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        return [setpriv, "--pdeathsig", "INT", "--"], None
    prctl = ctypes.CDLL(None).prctl
    return [], functools.partial(prctl, PR_SET_PDEATHSIG, signal.SIGINT)


def shut_down(process: subprocess.Popen[bytes]) -> None:
    """Stop our own PostgreSQL and reap it."""
    for number, limit_s in ((signal.SIGINT, STOP_LIMIT_S), (signal.SIGQUIT, QUIT_LIMIT_S)):
        process.send_signal(number)
        if exits_within(process, limit_s):
            log.info("postgres stopped", pid=process.pid, code=process.returncode)
            return
    log.error("postgres did not stop", pid=process.pid, next="it is stopped at the next start")


def exits_within(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def is_ready(cluster: Path, pid: int) -> bool:
    """The postmaster writes its state into the eighth line of its pid file."""
    lines = _pid_file(cluster)
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _pid_file(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


# Its log


def trim_log(path: Path) -> None:
    """Keep the part that grew too long as the one before; copied, because PostgreSQL may hold the file open."""
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        shutil.copyfile(path, path.with_name("postgres.log.1"))
        os.truncate(path, 0)


def tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])


# What a server before us left behind


def stop_leftovers(cluster: Path) -> None:
    """Stop every PostgreSQL process that still works in this cluster; the caller holds the lock, so none is needed.

    The postmaster first, which takes its backends along. Backends whose postmaster was killed end by themselves, at the
    latest after their statement; those are told to give up. Then a pid file that still stands names a process that is
    gone, or is by now another program (or a zombie, which PostgreSQL would take for a living server): it is removed,
    and with it the lock of its socket, which names the same process.
    """
    pids = working_in(cluster)
    lines = _pid_file(cluster)
    if pids:
        log.warning("leftover postgres found", pids=pids, path=str(cluster))
        postmaster = [pid for pid in pids if lines and str(pid) == lines[0]]
        _tell(postmaster, signal.SIGINT)
        _wait_gone(postmaster, STOP_LIMIT_S)
        rest = working_in(cluster)
        _tell(rest, signal.SIGQUIT)
        _wait_gone(rest, QUIT_LIMIT_S)
        stuck = working_in(cluster)
        if stuck:
            raise StartRefused(f"PostgreSQL processes {stuck} still work in {cluster} and do not stop. Kill them.")
    _unlock_socket(lines)
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def _unlock_socket(lines: list[str]) -> None:
    """Lines 4 and 5 of a pid file are the port and the folder of the socket."""
    if len(lines) > 4 and lines[4].startswith("/"):
        (Path(lines[4]) / f".s.PGSQL.{lines[3]}.lock").unlink(missing_ok=True)


def working_in(cluster: Path) -> list[int]:
    """PostgreSQL processes have their cluster as working directory; zombies have none."""
    folder = cluster.resolve()
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _works_in(entry, folder)]


def _works_in(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink() == folder and (process / "comm").read_text().strip() == "postgres"
    except OSError:
        return False


def _tell(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _wait_gone(pids: list[int], limit_s: float) -> None:
    """Wait for the end of processes that are not our children, so long for each at the most."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        watcher = select.poll()
        watcher.register(handle, select.POLLIN)
        watcher.poll(limit_s * 1000)
        os.close(handle)
