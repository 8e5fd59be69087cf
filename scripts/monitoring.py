"""Prometheus' alert rules and Grafana's dashboard, made from what the server has: `make generate` writes both into deploy/.

The server's own rules (server/batching/*/figures.py) are judged in the server, which tells the open ones as the metric
`batchcast_alert_open{rule=…}`: Prometheus passes them on, it does not judge again. What a server can't say of itself (that it is
gone) and what only a sum over all nodes says (that nobody leads) is added here. A test holds every metric that is named here, and
every rule, against a running server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from server.batching.alerts import Rule, Severity, loop_rules
from server.batching.imports import figures as imports
from server.batching.schedules import figures as schedules
from server.batching.scores.journal import figures as journal
from server.batching.tiers import figures as tiers
from server.batching.tracking import figures as tracking
from server.batching.tracking import sums

HEAD: Final = "# Made by `make generate` from the server's own rules (scripts/monitoring.py); put it into Prometheus' rule_files.\n"
OWN: Final = (*imports.RULES, *schedules.RULES, *tiers.RULES, *tracking.RULES, *sums.RULES, *journal.RULES)
RUNBOOKS: Final = {
    "imports": "docs/imports.md",
    "schedules": "docs/schedules.md",
    "tiers": "docs/tiers.md",
    "tracking": "docs/tracking.md",
    "journal": "docs/journal.md",
    "loop": "docs/deployment.md",
}
ANY_LOOP: Final = "ANY"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alert of Prometheus."""

    name: str
    expr: str
    for_: str
    severity: str
    summary: str
    next_step: str


OUTSIDE: Final = (
    Alarm(
        "BatchcastDown",
        'up{job="batchcast"} == 0',
        "1m",
        "critical",
        "{{ $labels.instance }} does not answer",
        "its log (journalctl -u batchcast, docker logs) says why it ended; batchcast doctor on its host",
    ),
    Alarm(
        "BatchcastPostgresDown",
        "batchcast_postgres_up == 0",
        "30s",
        "critical",
        "{{ $labels.instance }} has lost PostgreSQL",
        "an embedded one is started again by itself (DATA_DIR/postgres.log); else look at the host of DATABASE_URL",
    ),
    Alarm(
        "BatchcastNoLeader",
        'max by (job) (batchcast_leader{job="batchcast"}) == 0',
        "2m",
        "error",
        "no server leads: nothing expires, no schedule is dispatched",
        "all nodes must reach the same PostgreSQL; see ops.lease",
    ),
    Alarm(
        "BatchcastFlushesFail",
        'increase(batchcast_flushes_total{outcome="failed"}[15m]) > 0',
        "0m",
        "error",
        "flushes fail on {{ $labels.instance }}",
        "batchcast loops history scores",
    ),
    Alarm(
        "BatchcastFull",
        "predict_linear(process_open_fds[30m], 3600) > process_max_fds",
        "10m",
        "warning",
        "{{ $labels.instance }} runs out of open files within an hour",
        "raise LimitNOFILE (ulimit -n) above MAX_CONNECTIONS, or add a node",
    ),
)


def alert_rules() -> str:
    """deploy/prometheus-rules.yml."""
    groups = (("batchcast", OUTSIDE), ("batchcast-rules", tuple(_passed_on())))
    lines = [HEAD + "groups:"]
    for name, alarms in groups:
        lines += [f"  - name: {name}", "    rules:"]
        for alarm in alarms:
            lines += _yaml(alarm)
    return "\n".join(lines) + "\n"


def _passed_on() -> Iterator[Alarm]:
    for rule in OWN:
        yield _alarm(rule, _camel(rule.name), f'batchcast_alert_open{{rule="{rule.name}"}} == 1')
    for rule in loop_rules(ANY_LOOP):
        pattern = rule.name.replace(ANY_LOOP, ".+")
        yield _alarm(rule, _camel(rule.name.replace(ANY_LOOP, "")), f'batchcast_alert_open{{rule=~"{pattern}"}} == 1')


def covers(rule: str) -> bool:
    """Is there an alert for this rule of a server's?"""
    loops = any(rule.startswith("loop ") and rule.endswith(one.name.rpartition(" ")[2]) for one in loop_rules(ANY_LOOP))
    return loops or any(own.name == rule for own in OWN)


def _alarm(rule: Rule, name: str, expr: str) -> Alarm:
    book = RUNBOOKS[rule.name.partition("-")[0].partition(" ")[0]]
    words = "{{ $labels.rule }} on {{ $labels.instance }}"
    return Alarm(
        f"Batchcast{name}", expr, "0m", _severity(rule.severity), words, f"GET /alerts says what it is; {book}"
    )


def _severity(severity: Severity) -> str:
    return severity.value.lower()


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.replace("-", " ").split())


def _yaml(alarm: Alarm) -> list[str]:
    """JSON's strings are YAML's too."""
    return [
        f"      - alert: {alarm.name}",
        f"        expr: {json.dumps(alarm.expr)}",
        f"        for: {alarm.for_}",
        f"        labels: {{severity: {alarm.severity}}}",
        "        annotations:",
        f"          summary: {json.dumps(alarm.summary)}",
        f"          description: {json.dumps(alarm.next_step)}",
    ]


# --- the dashboard ---

SELECT: Final = 'instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: expressions and their legends."""

    title: str
    unit: str
    series: tuple[tuple[str, str], ...]


def _each(*names: str, labels: str = "") -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"{name}{{{SELECT}{labels}}}", f"{name.removeprefix('batchcast_')} {{{{instance}}}}") for name in names
    )


def _rate(name: str, by: str) -> tuple[tuple[str, str], ...]:
    return ((f"sum by ({by}) (rate({name}{{{SELECT}}}[$__rate_interval]))", f"{{{{{by}}}}}"),)


def _quantiles(name: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({q}, sum by (le) (rate({name}_bucket{{{SELECT}}}[$__rate_interval])))", f"p{q * 100:g}")
        for q in (0.5, 0.99)
    )


ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "Now",
        (
            Panel("Alerts that stand", "short", (("batchcast_alert_open", "{{rule}} {{instance}}"),)),
            Panel("PostgreSQL, leader", "short", _each("batchcast_postgres_up", "batchcast_leader")),
            Panel("Viewers", "short", _each("batchcast_viewers", "batchcast_connections")),
            Panel("Events, pending", "short", _each("batchcast_events", "batchcast_pending")),
        ),
    ),
    (
        "Live feed",
        (
            Panel("A flush takes", "s", _quantiles("batchcast_flush_seconds")),
            Panel("Flushes", "ops", _rate("batchcast_flushes_total", "outcome")),
            Panel("Frames handed over", "ops", _rate("batchcast_frames_sent_total", "loop")),
            Panel("Frames owed to the slow", "ops", _rate("batchcast_frames_deferred_total", "loop")),
            Panel("Rows written", "ops", _rate("batchcast_ingest_rows_total", "outcome")),
            Panel("A group of rows commits in", "s", _quantiles("batchcast_ingest_seconds")),
            Panel(
                "Worst lag of the event loop",
                "s",
                _each("batchcast_event_loop_lag_seconds", "batchcast_flush_lag_seconds"),
            ),
            Panel("Hints dropped", "ops", _rate("batchcast_hints_dropped_total", "instance")),
        ),
    ),
    (
        "Work under way: zero at rest",
        (
            Panel(
                "Frames and answers",
                "short",
                _each(*(f"batchcast_{name}" for name in ("frames_waiting", "frames_owed", "answers_expected"))),
            ),
            Panel(
                "Rows and changes",
                "short",
                _each(*(f"batchcast_{name}" for name in ("rows_waiting", "rows_doubtful", "changes_waiting"))),
            ),
            Panel("Engine", "short", _each("batchcast_engine_waiting", "batchcast_drawing")),
            Panel("Not sent, by what spared it", "short", _rate("batchcast_saved_total", "what")),
            Panel(
                "Sessions that may be come back to",
                "short",
                _each("batchcast_sessions_remembered", "batchcast_sessions_remembered_events"),
            ),
        ),
    ),
    (
        "Loops",
        (
            Panel("Turns", "ops", _rate("batchcast_loop_turns_total", "loop")),
            Panel("Seconds a second", "percentunit", _rate("batchcast_loop_seconds_total", "loop")),
            Panel("Turns that raised", "ops", _rate("batchcast_loop_errors_total", "loop")),
            Panel("Ticks dropped", "ops", _rate("batchcast_loop_missed_total", "loop")),
        ),
    ),
    (
        "Imports",
        (
            Panel(
                "Jobs",
                "short",
                _each(*(f"batchcast_imports_{name}" for name in ("pending", "processing", "scheduled", "stranded"))),
            ),
            Panel("Workers", "short", _each("batchcast_imports_workers")),
            Panel("Members", "ops", _each("batchcast_imports_members_per_second")),
            Panel("Calls to the provider", "ops", _rate("batchcast_imports_provider_calls_total", "credential")),
        ),
    ),
    (
        "Schedules and tiers",
        (
            Panel(
                "Runs",
                "short",
                _each(*(f"batchcast_schedules_{name}" for name in ("intended", "running", "unknown", "unprocessed"))),
            ),
            Panel(
                "Retries",
                "short",
                _each(*(f"batchcast_schedules_retries_{name}" for name in ("waiting", "running", "failed"))),
            ),
            Panel("A webhook until it is attributed, slowest", "s", _each("batchcast_schedules_slowest_webhook_s")),
            Panel(
                "People",
                "short",
                _each(*(f"batchcast_tiers_{name}" for name in ("people", "missing", "review", "failing"))),
            ),
        ),
    ),
    (
        "Tracking",
        (
            Panel("Clips due", "short", _each("batchcast_tracking_due", "batchcast_tracking_failed_open")),
            Panel("The one that waits longest", "h", _each("batchcast_tracking_late_hours")),
            Panel(
                "The month's quota, used and at this pace",
                "percent",
                _each("batchcast_tracking_quota_percent", "batchcast_tracking_quota_projected_percent"),
            ),
            Panel("Calls of the provider", "ops", _rate("batchcast_tracking_calls_total", "instance")),
            Panel("Clips that could be read", "percent", _each("batchcast_tracking_success_percent")),
            Panel(
                "Money, in cents",
                "short",
                _each(
                    *(
                        f"batchcast_tracking_{name}"
                        for name in ("left_cents", "spent_cents", "payouts_cents", "paid_cents")
                    )
                ),
            ),
            Panel(
                "Payouts and submissions that wait",
                "short",
                _each("batchcast_tracking_payouts_pending", "batchcast_tracking_submissions_pending"),
            ),
        ),
    ),
    (
        "Process",
        (
            Panel(
                "CPU",
                "percentunit",
                (("rate(process_cpu_seconds_total{" + SELECT + "}[$__rate_interval])", "{{instance}}"),),
            ),
            Panel("Memory", "bytes", _each("process_resident_memory_bytes")),
            Panel("Open files", "short", _each("process_open_fds", "process_max_fds")),
        ),
    ),
)
WIDE: Final = 6
HIGH: Final = 7


def dashboard() -> str:
    """deploy/grafana-dashboard.json."""
    panels: list[dict[str, object]] = []
    top = 0
    for title, row in ROWS:
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}}
        )
        top += 1
        for number, panel in enumerate(row):
            place = {"x": number % 4 * WIDE, "y": top + number // 4 * HIGH, "w": WIDE, "h": HIGH}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_graph(panel)})
        top += (len(row) + 3) // 4 * HIGH
    return json.dumps({**_BOARD, "panels": panels}, indent=1) + "\n"


def _graph(panel: Panel) -> dict[str, object]:
    targets = [
        {"refId": chr(65 + number), "expr": expr, "legendFormat": legend}
        for number, (expr, legend) in enumerate(panel.series)
    ]
    source = {"type": "prometheus", "uid": "${source}"}
    look = {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []}
    return {"type": "timeseries", "title": panel.title, "datasource": source, "fieldConfig": look, "targets": targets}


_BOARD: Final[dict[str, object]] = {
    "title": "batchcast",
    "uid": "batchcast",
    "schemaVersion": 39,
    "editable": True,
    "refresh": "30s",
    "time": {"from": "now-6h", "to": "now"},
    "templating": {
        "list": [
            {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"},
            {
                "name": "instance",
                "label": "Server",
                "type": "query",
                "datasource": {"type": "prometheus", "uid": "${source}"},
                "query": "label_values(batchcast_postgres_up, instance)",
                "includeAll": True,
                "multi": True,
                "current": {"text": "All", "value": "$__all"},
                "refresh": 2,
            },
        ]
    },
}
