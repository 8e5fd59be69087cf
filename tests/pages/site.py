"""A real server in a process of its own, for tests that look at its pages: started, stopped, spoken to over HTTP."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.conftest import in_memory

ROOT = Path(__file__).resolve().parents[2]
READY_S = 90.0
STOP_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(fact: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Ask again and again until the fact holds; the bound is only there to end a broken run."""
    deadline = time.monotonic() + timeout_s
    while not fact():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {timeout_s:.0f} s: {what}")
        time.sleep(0.05)


@dataclass
class Site:
    """A server on free ports with a data directory of its own, batching once a second."""

    http_port: int = field(default_factory=free_port)
    ws_port: int = field(default_factory=free_port)
    data_dir: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="batchcast-site-", dir=in_memory())))
    process: subprocess.Popen[bytes] | None = None
    settings: dict[str, str] = field(default_factory=dict)
    """More settings for the server, by the names of their environment variables."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def token(self) -> str:
        return (self.data_dir / "admin.token").read_text().strip()

    def start(self) -> None:
        self.data_dir.chmod(0o711)
        settings = {"HTTP_PORT": self.http_port, "WS_PORT": self.ws_port, "DATA_DIR": self.data_dir}
        env = {name: value for name in ("PATH", "HOME", "LANG") if (value := os.environ.get(name))}
        env |= {name: str(value) for name, value in settings.items()}
        path = os.pathsep.join([*os.environ.get("PYTHONPATH", "").split(os.pathsep), str(ROOT)]).strip(os.pathsep)
        env |= {"BATCH_INTERVAL_MS": "1000", "PYTHONPATH": path, **self.settings}
        command = [sys.executable, "-m", "server", "serve"]
        with (self.data_dir / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=env, cwd=self.data_dir, stdout=log, stderr=log)
        until(self.ready, f"{self.url}/readyz answers 200\n{self.log()}", READY_S)

    def ready(self) -> bool:
        assert self.process is not None and self.process.poll() is None, f"the server ended:\n{self.log()}"
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def log(self) -> str:
        path = self.data_dir / "server.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        assert process.poll() is None, f"the server ended by itself, with {process.returncode}:\n{self.log()}"
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)

    def remove(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One call of the API as admin; what it refuses fails the test with the server's words."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        return json.loads(text) if text else None


SAMPLES = [
    ("jazz", "🎷", "Jazz cellar", ["music"], 37.7793, -122.4193),
    ("mic", "🎤", "Open mic", ["music", "comedy"], 37.7599, -122.4148),
    ("market", "🍜", "Night market", ["food"], 37.8000, -122.4380),
    ("run", "🏃", "Park run", ["sport"], 37.7694, -122.4862),
    ("books", "📚", "Book swap", ["community"], 37.7840, -122.4090),
    ("yoga", "🧘", "Sunrise yoga", ["sport"], 37.8060, -122.4100),
    ("film", "🎬", "Film night", ["film"], 37.7400, -122.4200),
    ("hack", "👩🏽‍💻", "Hack night", ["tech"], 37.7765, -122.3940),
    ("coffee", "☕", "Coffee tasting", ["food"], 37.7510, -122.4480),
    ("berlin", "🍺", "Beer garden in Berlin", ["food"], 52.5200, 13.4050),
    ("suva-west", "🎵", "Concert west of the line", ["music"], -18.1000, 179.9000),
    ("suva-east", "💃", "Salsa east of the line", ["dance"], -18.1000, -179.9000),
]


def sample_events() -> list[dict[str, object]]:
    """Events with scores that differ: each starts a few hours after the one before it."""
    now = datetime.now(UTC).replace(microsecond=0)
    return [
        {
            "id": id_,
            "emoji": emoji,
            "title": title,
            "categories": categories,
            "location": {"latitude": latitude, "longitude": longitude},
            "start": (now + timedelta(hours=3 + 7 * number)).isoformat(),
            "end": (now + timedelta(hours=5 + 7 * number)).isoformat(),
            "timezone": "UTC",
            "status": "VERIFIED",
        }
        for number, (id_, emoji, title, categories, latitude, longitude) in enumerate(SAMPLES)
    ]
