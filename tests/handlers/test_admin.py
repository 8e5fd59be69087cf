from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.handlers.asking import Serving, error

DOCUMENT = Path(__file__).parents[2] / "client-examples" / "openapi.json"
PAGE = {"Origin": "https://evil.example"}


async def test_configuration_is_read_changed_and_reset_and_shows_its_source(serving: Serving) -> None:
    changed = await serving.ask("PATCH", "/config", json={"batchIntervalMs": 5000, "maxBatchSize": 7})
    read = await serving.ask("GET", "/config", None)
    reset = await serving.ask("DELETE", "/config/batchIntervalMs")

    assert changed.json["batchIntervalMs"] == read.json["batchIntervalMs"] == 5000
    assert read.json["sources"] == {
        "batchIntervalMs": "runtime",
        "maxBatchSize": "runtime",
        "enableBatching": "default",
    }
    assert (reset.json["batchIntervalMs"], reset.json["sources"]["batchIntervalMs"]) == (900_000, "default")
    assert set(read.json) >= {"serverTime", "nextBatchAt"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"batchIntervalMs": 99}, "batchIntervalMs"),
        ({"batchIntervalMs": 86_400_001}, "batchIntervalMs"),
        ({"maxBatchSize": 0}, "maxBatchSize"),
        ({"maxBatchSize": "10"}, "maxBatchSize"),
        ({"enableBatching": 1}, "enableBatching"),
        ({"httpPort": 1}, "httpPort"),
    ],
)
async def test_a_setting_out_of_bounds_is_refused_by_name(shared: Serving, change: dict[str, Any], field: str) -> None:
    assert error(await shared.ask("PATCH", "/config", json=change)) == (422, "bad_message", field)


async def test_force_batch_publishes_what_is_pending_and_tells_the_turn(
    serving: Serving, berlin: dict[str, Any]
) -> None:
    await serving.ask("POST", "/events", json=berlin)
    await serving.ask("POST", "/popularity", json={"eventId": "berlin", "scanCount": 5})
    assert (await serving.ask("GET", "/stats", None)).json["pendingUpdates"] == 1
    answer = await serving.ask("POST", "/force-batch")

    assert set(answer.json["turn"]) == {"taken", "done", "failed", "deferred", "seconds"}
    assert (answer.json["turn"]["taken"], answer.json["stats"]["pendingUpdates"]) == (1, 0)
    assert answer.json["stats"]["batchesProcessed"] == 1


async def test_loops_are_listed_run_paused_resumed_and_re_timed(serving: Serving) -> None:
    listed = (await serving.ask("GET", "/loops")).json["loops"]
    turn = (await serving.ask("POST", "/loops/drift/run")).json["turn"]
    paused = (await serving.ask("POST", "/loops/drift/pause")).json
    resumed = (await serving.ask("POST", "/loops/drift/resume")).json
    timed = (await serving.ask("PATCH", "/loops/drift", json={"intervalMs": 1000})).json
    read = (await serving.ask("GET", "/loops/drift?limit=1")).json

    assert {"scores", "ingest", "drift"} <= {loop["name"] for loop in listed}
    assert (turn["loop"], turn["trigger"], turn["error"]) == ("drift", "forced", None)
    assert (paused["paused"], resumed["paused"], timed["intervalMs"]) == (True, False, 1000)
    assert read["loop"]["name"] == "drift"
    assert len(read["turns"]) <= 1


async def test_history_is_paged(serving: Serving) -> None:
    for _ in range(3):
        await serving.ask("POST", "/loops/scores/run")
    first = (await serving.ask("GET", "/loops/scores?limit=2")).json
    second = (await serving.ask("GET", f"/loops/scores?limit=2&before={first['next']}")).json

    assert [turn["number"] for turn in first["turns"]] == [3, 2]
    assert [turn["number"] for turn in second["turns"]] == [1]
    assert error(await serving.ask("GET", "/loops/scores?before=x"))[:2] == (422, "bad_message")


async def test_the_flushs_interval_is_the_batch_interval(serving: Serving) -> None:
    await serving.ask("PATCH", "/loops/scores", json={"intervalMs": 7000})

    assert (await serving.ask("GET", "/config")).json["batchIntervalMs"] == 7000


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("body", [{}, {"intervalMs": 99}, {"intervalMs": True}, {"intervalMs": "1000"}])
async def test_an_interval_out_of_bounds_is_refused_by_name(shared: Serving, body: dict[str, Any]) -> None:
    for name in ("drift", "scores"):
        status, code, field = error(await shared.ask("PATCH", f"/loops/{name}", json=body))
        assert (status, code) == (422, "bad_message")
        assert field in ("intervalMs", "batchIntervalMs")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_loop_that_there_is_not_is_not_found_and_near_names_are_told(shared: Serving) -> None:
    for method, path in [("GET", ""), ("POST", "/run"), ("POST", "/pause"), ("POST", "/resume"), ("PATCH", "")]:
        answer = await shared.ask(method, f"/loops/score{path}", json={"intervalMs": 1000})
        assert error(answer)[:2] == (404, "not_found")
        assert "scores" in answer.json["error"]["message"]


async def test_alerts_are_listed_and_acknowledged_by_name(serving: Serving, dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    sql = "insert into ops.alert (node, rule, severity, message, raised_at) values ('n', $1, 'ERROR', 'm', now())"
    for name in ("one", "two"):
        await connection.execute(sql, name)
    await connection.close()
    first = (await serving.ask("GET", "/alerts?limit=1")).json
    rest = (await serving.ask("GET", f"/alerts?before={first['next']}")).json
    known = await serving.ask("POST", f"/alerts/{first['alerts'][0]['id']}/acknowledge", sub="ada")

    assert [a["rule"] for a in (*first["alerts"], *rest["alerts"])] == ["two", "one"]
    assert (known.json["acknowledgedBy"], known.json["recoveredAtMs"]) == ("ada", None)
    for unknown in ("999", "x", "9" * 30, "%C2%B2"):
        assert error(await serving.ask("POST", f"/alerts/{unknown}/acknowledge"))[:2] == (404, "not_found")


async def test_ready_only_when_ports_accept_and_everything_is_loaded(serving: Serving) -> None:
    assert (await serving.ask("GET", "/readyz", None)).json == {"ready": True, "missing": []}
    serving.app.feed.ready = False
    answer = await serving.ask("GET", "/readyz", None)

    assert (answer.status, answer.json["ready"], answer.json["error"]["code"]) == (503, False, "unavailable")
    assert "loaded" in answer.json["missing"][0]
    assert (await serving.ask("GET", "/healthz", None)).status == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_the_nine_statistics_come_first(shared: Serving) -> None:
    stats = (await shared.ask("GET", "/stats", None)).json

    assert list(stats)[:9] == [
        "batchesProcessed",
        "totalEventsProcessed",
        "totalUsersUpdated",
        "averageBatchSize",
        "lastBatchTime",
        "pendingUpdates",
        "registeredUsers",
        "isProcessingBatch",
        "config",
    ]


async def test_metrics_count_what_happened(serving: Serving, berlin: dict[str, Any]) -> None:
    await serving.ask("POST", "/events", json=[berlin, {"id": "bad"}])
    await serving.ask("POST", "/force-batch")
    answer = await serving.ask("GET", "/metrics", None)
    numbers = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))

    assert answer.headers["Content-Type"].startswith("text/plain")
    assert float(numbers['batchcast_ingest_rows_total{outcome="accepted"}']) == 1
    assert float(numbers['batchcast_flushes_total{outcome="ok"}']) == 1
    assert float(numbers["batchcast_flush_seconds_count"]) == 1
    assert float(numbers['batchcast_loop_turns_total{loop="scores"}']) == 1
    assert float(numbers["batchcast_events"]) == 1
    assert float(numbers["batchcast_hints_dropped_total"]) == 0
    assert {"batchcast_viewers", "batchcast_connections", "batchcast_pending", "batchcast_postgres_up"} <= set(numbers)
    assert {"batchcast_event_loop_lag_seconds", 'batchcast_frames_sent_total{loop="scores"}'} <= set(numbers)
