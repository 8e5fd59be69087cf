"""The membership provider's double as a process of its own, beside a browser whose loop holds this thread."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.pages.site import ROOT, free_port, until


class Membership:
    """Where it is, and what its answers do from now on."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/control/asked", timeout=5):
                return True
        except OSError:
            return False

    def behave(self, **act: object) -> None:
        """All answers do this (tests/doubles/members.py, Act); nothing named: the truth, at once."""
        body = json.dumps({"acts": [], "always": act}).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/control/script", body, headers, method="PUT"), timeout=5
        )


@contextmanager
def membership() -> Iterator[Membership]:
    """Running, with accounts named biz_NUMBER that have so many members."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.doubles.members", "--port", str(port), "--total"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        double = Membership(port)
        until(double.answers, "the membership double answers")
        yield double
    finally:
        process.terminate()
        process.wait(10)
