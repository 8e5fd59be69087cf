"""Alert rules and dashboard ask for what a running server really tells, and leave out none of its own rules."""

import json
import re

from scripts.monitoring import OUTSIDE, OWN, alert_rules, covers, dashboard
from server.batching.alerts import Alert, Severity
from tests.serving import Live, place, start

__all__ = ["place", "start"]

PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"}


async def told(server: Live) -> set[str]:
    """The names of all numbers of a running server, those without a value yet included; loops have numbers once one has turned."""
    await server.app.panel.loop("bus").run_now()
    text = (await server.ask("GET", "/metrics")).body.decode()
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    names = {name for name, _ in families}
    for name, kind in families:
        if kind == "histogram":
            names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def asked(expressions: list[str]) -> set[str]:
    return {name for text in expressions for name in re.findall(r"\b((?:batchcast|process)_[a-z0-9_]+)", text)}


async def test_every_number_that_the_dashboard_asks_for_is_there(place: Live) -> None:
    board = json.loads(dashboard())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(expressions) > 40
    expressions.append(board["templating"]["list"][1]["query"])
    assert asked(expressions) - await told(place) == set()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


async def test_every_number_that_an_alert_asks_for_is_there(place: Live) -> None:
    expressions = re.findall(r"^        expr: (.*)$", alert_rules(), re.M)
    assert len(expressions) == len(OUTSIDE) + len(OWN) + 2
    assert asked(expressions) - await told(place) == set()


async def test_every_rule_of_a_running_server_has_its_alert(place: Live) -> None:
    rules = {rule.name for rule in place.app.alerts.rules} | {"loop scores failing", "loop ingest late"}
    assert {rule for rule in rules if not covers(rule)} == set()
    assert not covers("something else")


async def test_an_alert_that_stands_is_told_and_one_that_is_over_is_not(place: Live) -> None:
    from server.batching.alerts import Standing

    alert = Alert(place.app.node, "imports-stuck", Severity.ERROR, "words", 1)
    place.app.alerts._standing["imports-stuck"] = Standing(alert)
    text = (await place.ask("GET", "/metrics")).body.decode()
    assert 'batchcast_alert_open{rule="imports-stuck"} 1.0' in text
    del place.app.alerts._standing["imports-stuck"]
    assert "imports-stuck" not in (await place.ask("GET", "/metrics")).body.decode()


def test_names_of_alerts_are_used_once() -> None:
    names = re.findall(r"- alert: (\w+)", alert_rules())
    assert len(set(names)) == len(names)
    assert {"BatchcastImportsStuck", "BatchcastLoopFailing", "BatchcastDown"} <= set(names)
