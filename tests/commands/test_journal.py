"""`batchcast journal` on files, without a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from server.batching.scores.journal.replay import Stage
from tests.commands.conftest import Command

INCIDENT = Path(__file__).parents[1] / "journals" / "everything.journal"
NAME = "20260921T141320000Z.journal"

pytestmark = pytest.mark.pure


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with one journal."""
    made = tmp_path / "journal"
    made.mkdir()
    shutil.copy(INCIDENT, made / NAME)
    return made


def test_list_shows_the_files_of_the_data_directory(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(folder.parent))
    whole = (folder / NAME).read_bytes()
    (folder / "20260922T141320000Z.journal").write_bytes(whole[:-10])
    (folder / "20260923T141320000Z.journal").write_bytes(b"hello")
    said = command("journal", "list")
    assert said.code == 0
    assert "whole" in said.out and "cut off" in said.out and "is not a journal" in said.out
    first, second, third = command("journal", "list", "--json").json
    assert (first["file"], first["bytes"], first["state"]) == (NAME, len(whole), "whole")
    assert first["began"] == "2026-09-21T14:13:20.000Z"
    assert "bytes are lost" in second["state"] and "not a journal" in third["state"]


def test_list_of_an_empty_folder_says_how_to_record(command: Command, tmp_path: Path) -> None:
    said = command("journal", "list", "--dir", tmp_path / "nowhere")
    assert said.code == 0
    assert "JOURNAL=true" in said.out


def test_show_gives_the_header_and_the_first_records_as_json_lines(command: Command) -> None:
    said = command("journal", "show", INCIDENT, "--head", 5)
    header, *records = map(json.loads, said.out.splitlines())
    assert header["format"] == 1 and header["engine"] == "compiled"
    assert [record["record"] for record in records[:1]] == ["patched"]
    assert len(records) == 5
    everything = command("journal", "show", INCIDENT, "--head", 10_000).out.splitlines()
    assert {json.loads(line)["record"] for line in everything[1:]} >= {"drew", "handed", "counted", "left", "ended"}


def test_replay_verifies_and_sums_up(command: Command) -> None:
    said = command("journal", "replay", INCIDENT, "--verify")
    assert said.code == 0, said.err
    assert "all 91 frames are the same to the byte" in said.out
    assert "times its speed" in said.out
    values = command("journal", "replay", INCIDENT, "--verify", "--json").json
    assert (values["frames"], values["verified"], values["difference"], values["tornBytes"]) == (91, True, None, 0)


def test_replay_may_end_at_a_moment(command: Command) -> None:
    part = command("journal", "replay", INCIDENT, "--to", "2026-09-22T00:00:00Z", "--json").json
    assert 0 < part["frames"] < 91
    assert part["verified"] is False
    said = command("journal", "replay", INCIDENT, "--to", "yesterday")
    assert said.code == 2 and "ISO 8601" in said.err


def test_a_difference_is_told_with_time_viewer_seq_and_both_lengths(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stage, "patch", lambda self, patched: None)
    said = command("journal", "replay", INCIDENT, "--verify")
    assert said.code == 1
    assert "DIFFERS at 2026-09-21T14:13:20.000Z: viewer 1, seq 1 (snapshot): recorded" in said.out
    assert "replayed" in said.out and "bytes" in said.out
    different = command("journal", "replay", INCIDENT, "--verify", "--json").json["difference"]
    assert (different["viewer"], different["seq"], different["kind"]) == (1, 1, "snapshot")
    assert different["recordedBytes"] > different["replayedBytes"]
    without = command("journal", "replay", INCIDENT)
    assert without.code == 1 and "cannot be drawn again" in without.err


def test_what_is_no_journal_is_refused_in_words(command: Command, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    for what in ("show", "replay"):
        said = command("journal", what, tmp_path / "x")
        assert said.code == 1 and "is not a journal" in said.err
        assert command("journal", what, tmp_path / "nowhere").code == 1


def test_a_torn_file_is_replayed_up_to_its_end_and_that_is_told(command: Command, tmp_path: Path) -> None:
    torn = tmp_path / "torn.journal"
    torn.write_bytes(INCIDENT.read_bytes()[:-10])
    said = command("journal", "replay", torn, "--verify")
    assert said.code == 0
    assert "cut off" in said.out and "when the server died" in said.out
