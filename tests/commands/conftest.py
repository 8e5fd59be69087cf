"""The command line against a real server in a process of its own, as a person at a terminal has it."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.__main__ import main
from tests.pages.site import Site


@dataclass
class Said:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    """One server for all commands; each test uses ids of its own."""
    site = Site()
    try:
        site.start()
        yield site
    finally:
        site.remove()


@pytest.fixture
def command(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `batchcast ARGUMENTS`, with what is given as standard input."""
    for name in ("BATCHCAST_TOKEN", "BATCHCAST_URL", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, stdin: bytes = b"") -> Said:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsysbinary.readouterr()
        return Said(code, out.decode(), err.decode())

    return run


@pytest.fixture
def batchcast(command: Command, site: Site, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`batchcast` on the machine of a running server."""
    monkeypatch.setenv("BATCHCAST_URL", site.url)
    monkeypatch.setenv("DATA_DIR", str(site.data_dir))
    return command


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of rows."""

    def write(*rows: object, name: str = "rows.ndjson") -> Path:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write
