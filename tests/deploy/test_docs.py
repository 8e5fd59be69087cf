"""What the documents for operators name is there: tests, files, settings, commands."""

import re
from pathlib import Path

import pytest

from server.__main__ import app
from server.settings import FIELDS

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("SECURITY.md", "docs/deployment.md")
OF_OTHERS = {"NUMBA_CACHE_DIR", "BATCHCAST_SITE", "DATABASE", "FILE", "FOLDER", "NAME", "OLD", "DATA_DIR"}
"""Words in capitals with an underline, or placeholders, that are no settings."""


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_test_file_that_is_named_is_there(name: str) -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", text_of(name)))
    assert {path for path in named if not (ROOT / path).is_file()} == set()


def test_every_threat_names_a_test_or_a_check() -> None:
    rows = [line for line in text_of("SECURITY.md").splitlines() if line.startswith("| ") and line.count("|") == 4]
    threats = [row for row in rows if "`tests/" in row or "make check" in row]
    assert len(threats) >= 18
    assert len(rows) - len(threats) == 8, "the table of who is who, and two heads"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(name)):
        if "://" not in target:
            assert ((ROOT / name).parent / target).resolve().exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_setting_that_is_named_is_declared(name: str) -> None:
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text_of(name))) - OF_OTHERS
    assert named <= {field.upper() for field in FIELDS}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_that_is_named_is_one(name: str) -> None:
    commands = {command.name or "" for command in app.registered_commands}
    commands |= {group.typer_instance.info.name or "" for group in app.registered_groups if group.typer_instance}
    named = set(re.findall(r"(?:`|bin/|batchcast |&& |=\S+ )batchcast ([a-z-]+)", text_of(name)))
    assert named - {"load"} <= commands | {"batchcast"}, "of a command that is to come"
    assert {"backup", "restore", "upgrade", "doctor"} <= commands


def test_every_alert_of_the_server_itself_is_in_the_table_of_what_to_do() -> None:
    from scripts.monitoring import OUTSIDE

    text = text_of("docs/deployment.md")
    assert {alarm.name for alarm in OUTSIDE if f"| {alarm.name} |" not in text} <= {
        "BatchcastFlushesFail",
        "BatchcastFull",
    }
