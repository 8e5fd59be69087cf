"""A real server in a process of its own, to measure from outside: its CPU, its memory, its worst lag.

`python -m tests.bench.served LAG_FILE` is `python -m server serve`, but that SIGUSR1 writes the event loop's worst lag since the
signal before into LAG_FILE. `Server` starts it, waits, asks it over HTTP as an admin, and takes it down.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import orjson

from server.app import App, run
from server.edge.secrets import mint
from server.settings import load
from tests.bench import processes
from tests.bench.processes import Cpu

ROOT: Final = Path(__file__).resolve().parents[2]
SECRET: Final = "a secret of the benches, long enough to be taken"
LIMIT_S: Final = 600.0
POLL_S: Final = 0.02
QUIET: Final = {
    **{"HTTP_PORT": "0", "WS_PORT": "0", "LOG_FORMAT": "json", "JWT_SECRET": SECRET, "SHUTDOWN_TIMEOUT_MS": "1000"},
    # Nothing happens by itself while something is measured: no flush, no pings.
    **{"BATCH_INTERVAL_MS": "86400000", "MAX_BATCH_SIZE": "1000000", "PING_INTERVAL_MS": "3600000"},
    **{"MAX_CONNECTIONS": "100000", "SLOW_CLIENT_TIMEOUT_MS": "600000"},
}


class Server:
    """One server over a DATA_DIR."""

    def __init__(self, data_dir: Path, **environ: object) -> None:
        self.data_dir = data_dir
        kept = {name: value for name in ("PATH", "HOME", "LANG") if (value := os.environ.get(name))}
        given = {name: str(value) for name, value in environ.items()}
        self.environ = {**kept, **QUIET, "DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT), **given}
        self.lag_file = data_dir / "lag"
        self.log = data_dir / "bench.log"
        self.http_url = ""
        self.ws_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Returns when it accepts; how many seconds that took."""
        allow_files()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with self.log.open("wb") as output:
            command = [sys.executable, "-m", "tests.bench.served", str(self.lag_file)]
            self._process = subprocess.Popen(command, env=self.environ, cwd=ROOT, stdout=output, stderr=output)
        said = until(self._said, "the server has started")
        self.http_url = said["http"]
        self.ws_port = int(said["ws"].removesuffix("/ws").rpartition(":")[2])
        return time.monotonic() - began

    def _said(self) -> dict[str, Any] | None:
        assert self._process is not None
        assert self._process.poll() is None, f"the server ended:\n{self.log.read_text()[-2000:]}"
        for line in self.log.read_bytes().splitlines():
            if b'"server started"' in line and line.endswith(b"}"):
                return dict(orjson.loads(line))
        return None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def cpu(self) -> Cpu:
        """Of the server, and of PostgreSQL below it."""
        return processes.cpu(self.pid)

    def rss(self) -> int:
        """Resident bytes of the server alone."""
        return processes.rss(self.pid)

    def worst_lag_s(self) -> float:
        """Of its event loop, since this was asked before."""
        self.lag_file.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        return float(until(lambda: self.lag_file.exists() and self.lag_file.read_text(), "the lag is written"))

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        """One request as an admin; its JSON."""
        token = mint(load({"JWT_SECRET": SECRET, "DATA_DIR": str(self.data_dir)}), sub="bench", roles=["admin"])
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        request = Request(self.http_url + path, body, headers, method=method)
        with urlopen(request, timeout=LIMIT_S) as answer:
            return orjson.loads(answer.read())

    def stop(self) -> None:
        """Take it down; nothing happens when it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None


@contextmanager
def serving(**environ: object) -> Iterator[Server]:
    """A running server with a DATA_DIR that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="batchcast-bench-", dir="/tmp"))
    folder.chmod(0o711)  # PostgreSQL's account must be able to enter
    server = Server(folder, **environ)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def until(look: Callable[[], Any], what: str) -> Any:
    """Look again and again until there is something; the bound only ends a broken run."""
    ends = time.monotonic() + LIMIT_S
    while not (found := look()):
        assert time.monotonic() < ends, f"not so after {LIMIT_S:.0f} s: {what}"
        time.sleep(POLL_S)
    return found


def allow_files() -> None:
    """As many open files as we may have; processes started later inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def watch_lag(app: App, file: Path) -> None:
    """On SIGUSR1 write the worst lag so far, and begin anew."""

    def note() -> None:
        fresh = file.with_suffix(".new")
        fresh.write_text(repr(app.lag.worst_s))
        fresh.rename(file)
        app.lag.worst_s = 0.0

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, note)


if __name__ == "__main__":
    sys.exit(run(load(os.environ), lambda app: watch_lag(app, Path(sys.argv[1]))))
