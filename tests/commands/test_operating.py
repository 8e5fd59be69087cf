"""Wire: stats, force-batch, loops, config, watch, schema, doctor and tokens against a real server."""

import json

import pytest

from server.__main__ import main, point_at_home
from tests.commands.conftest import Command
from tests.commands.test_events import Lines, row
from tests.pages.site import Site

NINE = [
    *("batchesProcessed", "totalEventsProcessed", "totalUsersUpdated", "averageBatchSize", "lastBatchTime"),
    *("pendingUpdates", "registeredUsers", "isProcessingBatch", "config"),
]


def test_stats_begin_with_the_nine(batchcast: Command) -> None:
    assert list(batchcast("stats", "--json").json)[:9] == NINE
    assert "batchesProcessed" in batchcast("stats").out


def test_force_batch_says_what_the_flush_took(batchcast: Command) -> None:
    answer = batchcast("force-batch", "--json").json
    assert set(answer["turn"]) >= {"taken", "done", "failed", "deferred", "seconds"}
    assert "flushed in" in batchcast("force-batch").out


def test_loops_are_listed_run_paused_and_resumed(batchcast: Command) -> None:
    assert "scores" in batchcast("loops", "list").out
    assert "forced" in batchcast("loops", "run", "scores").out
    assert "forced" in batchcast("loops", "history", "scores", "--limit", "5").out
    assert "paused" in batchcast("loops", "pause", "tidy").out
    assert "running" in batchcast("loops", "resume", "tidy").out
    assert "every 5 s" in batchcast("loops", "interval", "bus", "5000").out
    said = batchcast("loops", "run", "nope")
    assert (said.code, "not_found" in said.err) == (1, True)


def test_config_is_shown_set_and_reset_with_its_source(batchcast: Command) -> None:
    assert "batchIntervalMs: 2,000" in batchcast("config", "set", "batchIntervalMs=2000").out
    assert batchcast("config", "show", "--json").json["sources"]["batchIntervalMs"] == "runtime"
    doctor = batchcast("doctor")
    assert "batchIntervalMs=2000" in doctor.out
    assert "(environment)" in batchcast("config", "reset", "BATCH_INTERVAL_MS").out
    said = batchcast("config", "set", "batchIntervalMs=1")
    assert (said.code, "from 100" in said.err) == (1, True)
    assert batchcast("config", "set", "batchIntervalMs").code == 2
    assert "BATCH_INTERVAL_MS" in batchcast("config", "list").out


def test_watch_once_prints_the_ranked_list_and_the_digest(batchcast: Command, lines: Lines) -> None:
    batchcast("events", "import", lines(row("watched", title="Watch me", location=[-70.5, -50.5])))
    said = batchcast("watch", "--once", "--bbox", "-71,-51,-70,-50")
    assert said.code == 0
    assert "1 events, digest ok" in said.out
    assert "Watch me" in said.out


def test_watch_says_what_is_wrong_with_its_wishes(batchcast: Command) -> None:
    assert batchcast("watch", "--once", "--bbox", "1,2").code == 2
    said = batchcast("watch", "--once", "--bbox", "0,10,1,-10")
    assert (said.code, "bad_viewport" in said.err) == (1, True)
    assert batchcast("watch", "--once", "--ws", "ws://127.0.0.1:1/ws").code == 2
    assert batchcast("watch", "--once", "--url", "http://127.0.0.1:1").code == 2


def test_the_doctor_finds_a_running_server_well(batchcast: Command, site: Site) -> None:
    said = batchcast("doctor", "--json")
    found = {finding["area"]: finding["state"] for finding in said.json}
    assert said.code == 0, said
    assert found["server"] == found["PostgreSQL"] == found["keys"] == found["loops"] == "ok"
    assert any(f"pid {site.process.pid}" in finding["text"] for finding in said.json if site.process)


def test_a_token_made_here_is_a_token_there(batchcast: Command, lines: Lines) -> None:
    token = batchcast("token", "create", "--sub", "ann", "--role", "producer", "--ttl", "1h").out.strip()
    assert batchcast("events", "import", lines(row("anns", creatorId="ann")), "--token", token).code == 0
    assert batchcast("force-batch", "--token", token).code == 1
    assert batchcast("token", "create", "--sub", "ann", "--role", "king").code == 2
    assert batchcast("token", "create", "--sub", "ann", "--ttl", "soon").code == 2


def test_schemas_are_printed_without_a_server(command: Command) -> None:
    assert "Register" in command("schema").json["$defs"]
    assert "/events" in command("schema", "--openapi").json["paths"]


@pytest.mark.parametrize(
    "path",
    [
        (),
        *(
            (name,)
            for name in ("serve", "demo", "doctor", "watch", "stats", "force-batch", "schema", "events", "loops")
        ),
        ("config",),
        ("token",),
        *(("events", name) for name in ("import", "export", "replay", "list", "show", "delete")),
        *(("loops", name) for name in ("list", "history", "run", "pause", "resume", "interval")),
        *(("config", name) for name in ("show", "list", "set", "reset")),
        *(("token", name) for name in ("create", "rotate")),
    ],
)
def test_every_command_explains_itself(command: Command, path: tuple[str, ...]) -> None:
    said = command(*path, "--help")
    assert said.code == 0
    assert "Usage" in said.out


def test_an_unknown_command_is_wrong_usage() -> None:
    with pytest.raises(SystemExit) as end:
        main(["nonsense"])
    assert end.value.code == 2


def test_json_is_json_whatever_the_terminal(batchcast: Command) -> None:
    assert json.loads(batchcast("loops", "list", "--json").out)["loops"]


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"HTTP_PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"HTTP_PORT": "9000", "BATCHCAST_URL": "http://there:1"}, "http://there:1"),
        ({"HTTP_PORT": "0"}, None),
        ({}, None),
    ],
)
def test_commands_ask_the_server_that_the_same_configuration_would_start(
    environ: dict[str, str], url: str | None
) -> None:
    point_at_home(environ)
    assert environ.get("BATCHCAST_URL") == url
