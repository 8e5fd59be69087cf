"""`batchcast imports` and `credentials` against a running server, which asks a provider on loopback."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.conftest import Command, Said
from tests.doubles.members import FORBIDDEN, GOOD, NO_SCOPE
from tests.pages.site import Site

SAMPLE = Path(__file__).resolve().parents[2] / "server" / "sample" / "members.csv"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The double in a process of its own; its address."""
    command = [sys.executable, "-m", "tests.doubles.members", "--members", "530", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture(scope="module")
def importing(provider: str) -> Iterator[Site]:
    """The server."""
    more = {"IMPORTS_PROVIDER_URL": provider, "IMPORTS_KEY": "a key that seals what must stay secret"}
    site = Site(settings={**more, "IMPORTS_CALLS_PER_S": "1000", "IMPORTS_CALLS_BURST": "1000"})
    try:
        site.start()
        yield site
    finally:
        site.remove()


@pytest.fixture
def batchcast(command: Command, importing: Site, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`batchcast` on the machine of that server."""
    monkeypatch.setenv("BATCHCAST_URL", importing.url)
    monkeypatch.setenv("DATA_DIR", str(importing.data_dir))
    return command


def kept(batchcast: Command, account: str, value: str = GOOD) -> int:
    """A credential for this account; its number."""
    said = batchcast("credentials", "add", "--account", account, stdin=f"{value}\n".encode())
    assert said.code == 0, said
    assert value not in said.out + said.err
    return int(said.out.split()[1])


def number_of(said: Said) -> int:
    return int(said.out.split()[1])


def test_a_list_is_imported_followed_and_taken_away(batchcast: Command, tmp_path: Path) -> None:
    number = kept(batchcast, "biz_demo")
    assert "shows e-mails" in batchcast("credentials", "check", number).out
    made = batchcast("imports", "create", "--list", "Spring", "--account", "biz_demo", "--watch")
    assert made.code == 0, made
    assert "completed" in made.out
    job = batchcast("imports", "show", number_of(made), "--json").json
    assert job["seen"] == 530
    export = tmp_path / "spring.csv"
    assert batchcast("imports", "export", job["listId"], "--to", export).code == 0
    with export.open(newline="") as file:
        assert sum(1 for _ in csv.DictReader(file)) == job["imported"]
    lines = batchcast("imports", "export", job["listId"], "--format", "ndjson").out.splitlines()
    assert len(lines) == job["imported"]
    assert "Spring" in batchcast("imports", "lists").out
    listed = batchcast("imports", "list", "--status", "completed").out
    assert "biz_demo" in listed and "100 %" in listed
    state = batchcast("imports", "status")
    assert "active" in state.out and "1 completed" in state.out
    assert batchcast("imports", "delete-list", job["listId"], "--yes").code == 0
    assert batchcast("imports", "export", job["listId"]).code == 1


def test_a_job_that_fails_ends_watch_with_1_and_says_why(batchcast: Command) -> None:
    number = kept(batchcast, "biz_7", NO_SCOPE)
    made = batchcast("imports", "create", "--list", "L", "--account", "biz_7", "--watch")
    assert made.code == 1
    assert "scope" in made.err
    assert batchcast("credentials", "rotate", number, stdin=f"{FORBIDDEN}\n".encode()).code == 0
    assert batchcast("imports", "requeue", number_of(made)).code == 0
    assert "403" in batchcast("imports", "watch", number_of(made)).err
    refused = batchcast("credentials", "check", number)
    assert (refused.code, "403" in refused.err) == (1, True)
    assert batchcast("credentials", "remove", number).code == 0
    assert str(number) not in [row["id"] for row in batchcast("credentials", "list", "--json").json["credentials"]]


def test_a_file_is_imported_and_its_report_is_read(batchcast: Command, tmp_path: Path) -> None:
    made = batchcast("imports", "create", "--list", "File", "--file", SAMPLE, "--key", "once", "--watch")
    assert made.code == 0, made
    again = batchcast("imports", "create", "--list", "File", "--file", SAMPLE, "--key", "once")
    assert number_of(again) == number_of(made)
    rows = batchcast("imports", "rejected", number_of(made), "--json").json
    assert rows and all(row["reason"] for row in rows)
    assert rows[0]["reason"][:20] in batchcast("imports", "rejected", number_of(made)).out
    odd = tmp_path / "members.txt"
    odd.write_text("email\n")
    for arguments in (("--file", odd), ("--file", tmp_path / "none.csv"), (), ("--account", "a", "--file", SAMPLE)):
        assert batchcast("imports", "create", "--list", "L", *arguments).code == 2


def test_a_job_that_has_ended_is_neither_cancelled_nor_hurried(batchcast: Command) -> None:
    made = batchcast("imports", "create", "--list", "File", "--file", SAMPLE, "--watch")
    for arguments in (("cancel", number_of(made)), ("priority", number_of(made), 3)):
        said = batchcast("imports", *arguments)
        assert (said.code, "completed" in said.err) == (1, True)
    assert batchcast("imports", "show", 10**12).code == 1


def test_a_key_is_never_taken_from_the_command_line(batchcast: Command) -> None:
    assert batchcast("credentials", "add", "--account", "biz_x", stdin=b"\n").code == 2
    for arguments in (("add", "--account", "biz_x", "--value", GOOD), ("add", "--account", "biz_x", GOOD)):
        assert batchcast("credentials", *arguments, stdin=b"").code == 2


def test_doctor_looks_at_the_imports(batchcast: Command, importing: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in importing.settings.items():
        monkeypatch.setenv(name, value)
    rows = {row["area"]: row for row in batchcast("doctor", "--json").json}
    assert rows["imports"]["state"] == "ok", rows["imports"]
