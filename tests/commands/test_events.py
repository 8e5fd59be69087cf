"""Wire: `batchcast events` against a real server: what goes in, what is told of what doesn't, what comes out again."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Command
from tests.pages.site import Site

Lines = Callable[..., Path]


def row(name: str, **more: Any) -> dict[str, Any]:
    start = (datetime.now(UTC) + timedelta(hours=5)).isoformat()
    return {"id": name, "title": name, "location": [13.4, 52.5], "start": start, **more}


def test_a_file_goes_in_and_is_there(batchcast: Command, lines: Lines) -> None:
    said = batchcast("events", "import", lines(row("in-1", rsvpCount=3), row("in-2")))
    assert (said.code, "2 of 2 rows went in" in said.err) == (0, True), said
    assert batchcast("events", "show", "in-1").json["rsvpCount"] == 3


def test_good_rows_go_in_and_bad_ones_are_told_with_number_field_and_next_step(
    batchcast: Command, lines: Lines, tmp_path: Path
) -> None:
    errors = tmp_path / "errors.ndjson"
    file = lines(
        row("part-0"), "{broken", row("part-2", status="reviewed"), {"id": "part-3", "location": [1, 2]}, row("part-4")
    )
    said = batchcast("events", "import", file, "--errors", errors)
    assert said.code == 1
    assert "2 of 5 rows went in, 3 did not" in said.err
    told = sorted((json.loads(line) for line in errors.read_text().splitlines()), key=lambda bad: bad["row"])
    assert [(bad["row"], bad["id"], bad["field"]) for bad in told] == [
        (1, None, None),
        (2, "part-2", "status"),
        (3, "part-3", "start"),
    ]
    assert "--map status=" in told[1]["reason"]
    assert "start=PATH" in told[2]["reason"]
    assert batchcast("events", "show", "part-4").code == 0


def test_only_the_first_bad_rows_are_shown_and_the_rest_counted(batchcast: Command, lines: Lines) -> None:
    said = batchcast("events", "import", lines(*["{"] * 30))
    assert said.code == 1
    assert "and 10 more; --errors FILE writes them all" in said.err


def test_a_foreign_geojson_is_mapped_and_shifted_to_now(batchcast: Command, lines: Lines) -> None:
    def quake(name: str, ms: int) -> dict[str, Any]:
        properties = {"time": ms, "mag": 4.5, "felt": 7, "status": "reviewed"}
        return {
            "type": "Feature",
            "id": name,
            "properties": properties,
            "geometry": {"type": "Point", "coordinates": [1, 2, 3]},
        }

    rows = {"type": "FeatureCollection", "features": [quake("q-1", 1_000_000_000_000), quake("q-2", 1_000_003_600_000)]}
    maps = ("--map", "start=time", "--map", "rsvpCount=felt", "--map", "status=", "--set", "title=A quake")
    for shift in ("--shift-to-now", "--shift-to-now=time"):
        said = batchcast("events", "import", lines(rows, name="quakes.geojson"), *maps, shift)
        assert said.code == 0, said
    first, second = (batchcast("events", "show", name).json for name in ("q-1", "q-2"))
    newest = datetime.fromisoformat(second["start"])
    assert timedelta(0) <= datetime.now(UTC) - newest < timedelta(minutes=5)
    assert newest - datetime.fromisoformat(first["start"]) == timedelta(hours=1)
    assert (first["title"], first["rsvpCount"], first["properties"]) == ("A quake", 7, {"mag": 4.5})


def test_standard_input_is_read_also_twice(batchcast: Command) -> None:
    text = b"id,title,lat,lon,start\npipe-1,Piped,52.5,13.4,2026-01-01T00:00:00Z\n"
    assert batchcast("events", "import", "-", "--shift-to-now", stdin=text).code == 0
    start = datetime.fromisoformat(batchcast("events", "show", "pipe-1").json["start"])
    assert abs(datetime.now(UTC) - start) < timedelta(minutes=5)
    assert batchcast("events", "import", "-", "--format", "csv", stdin=text).code == 0


def test_more_rows_than_one_batch_keep_their_numbers(batchcast: Command, lines: Lines, tmp_path: Path) -> None:
    rows = [row(f"many-{number}", **({"rsvpCount": -1} if number % 700 == 699 else {})) for number in range(2500)]
    errors = tmp_path / "errors.ndjson"
    said = batchcast("events", "import", lines(*rows), "--errors", errors)
    assert "2,497 of 2,500 rows went in, 3 did not" in said.err
    assert [json.loads(line)["row"] for line in errors.read_text().splitlines()] == [699, 1399, 2099]


@pytest.mark.parametrize("fmt", ["ndjson", "geojson", "csv"])
def test_what_is_exported_goes_in_again_unchanged(batchcast: Command, lines: Lines, tmp_path: Path, fmt: str) -> None:
    whole = row(
        f"out-{fmt}",
        categories=["a", "b"],
        properties={"x": [1]},
        isPrivate=True,
        confidence=0.5,
        title='"Oh", he; said',
    )
    assert batchcast("events", "import", lines({**whole, "title": f"{whole['title']} {fmt}word"})).code == 0
    before = batchcast("events", "show", f"out-{fmt}").json
    file = tmp_path / f"out.{fmt}"
    assert batchcast("events", "export", file, "--text", f"{fmt}word").code == 0
    assert batchcast("events", "delete", f"out-{fmt}").code == 0
    assert batchcast("events", "show", f"out-{fmt}").code == 1
    said = batchcast("events", "import", file)
    assert (said.code, "1 of 1 rows went in" in said.err) == (0, True), said
    after = batchcast("events", "show", f"out-{fmt}").json
    servers = ("version", "updatedAt")
    assert {k: v for k, v in after.items() if k not in servers} == {k: v for k, v in before.items() if k not in servers}


def test_events_are_listed_by_place_words_and_page(batchcast: Command, lines: Lines) -> None:
    batchcast("events", "import", lines(*(row(f"list-{n}", title="Zither", location=[100 + n, 10]) for n in range(3))))
    page = batchcast("events", "list", "--text", "zither", "--bbox", "100.5,9,103,11", "--json").json
    assert [event["id"] for event in page["events"]] == ["list-1", "list-2"]
    said = batchcast("events", "list", "--text", "zither", "--limit", "2")
    assert "list-0" in said.out
    assert "--cursor" in said.err


def test_what_is_not_there_or_not_allowed_is_said_with_code_1(
    batchcast: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batchcast("events", "show", "no-such").code == 1
    assert "not_found" in batchcast("events", "delete", "no-such").err
    monkeypatch.setenv("DATA_DIR", "/nowhere")
    said = batchcast("events", "delete", "in-1")
    assert said.code == 1
    assert "--token or BATCHCAST_TOKEN" in said.err


def test_a_wrong_wish_or_no_server_is_said_with_code_2(batchcast: Command, lines: Lines) -> None:
    file = lines(row("x"))
    assert batchcast("events", "import", file, "--map", "nope=x").code == 2
    assert batchcast("events", "import", "/no/such/file").code == 2
    assert batchcast("events", "import", file, "--format", "xml").code == 2
    said = batchcast("events", "import", file, "--url", "http://127.0.0.1:1")
    assert said.code == 2
    assert "batchcast serve" in said.err


def test_the_local_token_goes_to_no_other_machine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from server.commands.asking import token_for

    monkeypatch.setenv("DATA_DIR", str(site.data_dir))
    assert token_for(site.url, None) == site.token
    assert token_for("https://example.org", None) is None
    assert token_for("https://example.org", " mine\n") == "mine"
