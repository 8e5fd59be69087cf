"""What systemd is told."""

import os
import socket
import tempfile

import pytest

from server.edge.notify import READY, tell


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_that_asks_is_told(monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = f"{folder}/notify"
        manager.bind(f"\0{path}" if abstract else path)
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{path}" if abstract else path)
        tell(READY)
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("path", [None, "", "relative", "/nowhere/at/all"])
def test_where_nobody_asks_or_listens_nothing_happens(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if path is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
    before = len(os.listdir("/proc/self/fd"))
    tell(READY)
    assert len(os.listdir("/proc/self/fd")) == before
