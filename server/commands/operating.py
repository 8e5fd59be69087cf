"""`batchcast stats`, `force-batch`, `loops`, `config`: what a running server does, and how to have it do otherwise."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Annotated, Final

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from server import settings as declared
from server.commands.asking import DEFAULT_URL, AsJson, Token, Url
from server.commands.calling import Failed, Json, Params, Server, err, out, part, run, stop
from server.errors import StartRefused

loops = typer.Typer(name="loops", help="The loops: list, history, run, pause, resume, interval.", no_args_is_help=True)
config = typer.Typer(name="config", help="The settings: show, set, reset.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The loop's name; `loops list` has them.")]
MARKS: Final = {"ok": "[green]ok[/]", "failing": "[red]failing[/]", "late": "[yellow]late[/]"}


def ask(url: str, token: str | None, method: str, path: str, params: Params = (), body: Json | None = None) -> Json:
    """One request to a server."""

    async def one() -> Json:
        async with Server(url, token) as server:
            return await server.call(method, path, params=params, body=body)

    work: Coroutine[object, object, Json] = one()
    return run(work)


# --- stats, force-batch ---


def stats(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show the statistics of a running server: the nine, then the rest."""
    answer = ask(url, token, "GET", "/stats")
    if as_json:
        out.print_json(data=answer)
    else:
        out.print(facts(answer))
        _print_nodes(answer)


def _print_nodes(answer: Json) -> None:
    """The servers over one database, when there are several."""
    rows = answer.get("nodes")
    nodes = rows if isinstance(rows, list) else []
    if len(nodes) < 2:
        return
    table = Table("server", "leads", "viewers", "frames", "lag", "seen", box=None, pad_edge=False)
    for row in nodes:
        counts = (said(name, row.get(name)) for name in ("registeredUsers", "totalUsersUpdated"))
        leads, lag, seen = said("leader", row.get("leader")), f"{row.get('lagMs')} ms", moment(row.get("seenAt"))
        table.add_row(escape(str(row.get("node"))), leads, *counts, lag, seen)
    out.print(table)


def force_batch(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Flush now: every viewer gets its batch, then this says how it went."""
    answer = ask(url, token, "POST", "/force-batch")
    if as_json:
        out.print_json(data=answer)
        return
    turn = inner(answer, "turn")
    counts = ", ".join(f"{turn.get(name)} {name}" for name in ("taken", "done", "failed", "deferred"))
    out.print(f"flushed in {number(turn.get('seconds')):.3f} s: {counts}")
    missing = turn.get("missing")
    if isinstance(missing, list) and missing:
        err.print(f"not told in time by: {', '.join(map(str, missing))}", markup=False)
    out.print(facts(inner(answer, "stats")))


def facts(answer: Json) -> Table:
    """Names and values, times as people write them."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in answer.items():
        if isinstance(value, list):
            continue  # a table of its own
        nested = value if isinstance(value, dict) else {name: value}
        for inner_name, inner_value in nested.items():
            label = f"{name}.{inner_name}" if nested is value else name
            table.add_row(label, escape(said(inner_name, inner_value)))
    return table


def said(name: str, value: object) -> str:
    """A value as people write it; epoch milliseconds become a time."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int) and name.endswith(("Time", "At", "AtMs")):
        return "never" if value == 0 else moment(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3f}" if isinstance(value, float) else str(value)


def moment(ms: object) -> str:
    """Epoch milliseconds as a time of this machine's zone."""
    if not isinstance(ms, int):
        return "-"
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def inner(answer: Json, name: str) -> Json:
    """An object inside an answer; empty when it isn't there."""
    value = answer.get(name)
    return value if isinstance(value, dict) else {}


def number(value: object) -> float:
    """A number of an answer; 0 when it is none."""
    return float(value) if isinstance(value, int | float) else 0.0


# --- loops ---


@loops.command("list")
def list_loops(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show every loop: its health, its rhythm, when it turns next."""
    answer = ask(url, token, "GET", "/loops")
    if as_json:
        out.print_json(data=answer)
        return
    rows = answer.get("loops")
    table = Table("loop", "health", "every", "next", "turns", "last", box=None, pad_edge=False)
    for row in rows if isinstance(rows, list) else []:
        health = str(row.get("health"))
        rhythm = str(row.get("cron") or every(row.get("intervalMs")))
        last = number(inner(row, "last").get("seconds"))
        table.add_row(
            escape(str(row.get("name"))),
            MARKS.get(health, health),
            rhythm,
            moment(row.get("nextAtMs")),
            f"{int(number(row.get('turns'))):,}",
            f"{last * 1000:.1f} ms" if row.get("last") else "-",
        )
    out.print(table)


def every(interval_ms: object) -> str:
    """An interval as people say it."""
    if not isinstance(interval_ms, int):
        return "when woken"
    return f"{interval_ms / 1000:g} s" if interval_ms < 120_000 else f"{interval_ms / 60_000:g} min"


@loops.command("history")
def history(
    name: Name,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many turns.")] = 20,
    before: Annotated[str | None, typer.Option("--before", help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show a loop's turns, the newest first."""
    params = [("limit", str(limit)), *([("before", before)] if before else [])]
    answer = ask(url, token, "GET", f"/loops/{part(name)}", params)
    if as_json:
        out.print_json(data=answer)
        return
    turns = answer.get("turns")
    out.print(_turns(turns if isinstance(turns, list) else []))
    if answer.get("next"):
        err.print(f"more with --before {answer['next']}", markup=False)


def _turns(rows: list[Json]) -> Table:
    table = Table(
        "turn", "started", "why", "ms", "taken", "done", "failed", "deferred", "error", box=None, pad_edge=False
    )
    for row in rows:
        counts = (str(row.get(name)) for name in ("taken", "done", "failed", "deferred"))
        started, ms = moment(row.get("startedAtMs")), f"{number(row.get('seconds')) * 1000:.1f}"
        table.add_row(
            str(row.get("number")), started, str(row.get("trigger")), ms, *counts, escape(str(row.get("error") or ""))
        )
    return table


@loops.command("run")
def run_loop(name: Name, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Have a loop take a turn now, and show how it went."""
    turn = inner(ask(url, token, "POST", f"/loops/{part(name)}/run"), "turn")
    out.print(_turns([turn]))
    if turn.get("error"):
        raise Failed(f"the turn failed: {turn['error']}")


@loops.command("pause")
def pause(name: Name, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Have a loop take no turn but by `run`, until `resume`."""
    _tell(ask(url, token, "POST", f"/loops/{part(name)}/pause"))


@loops.command("resume")
def resume(name: Name, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Have a paused loop go on."""
    _tell(ask(url, token, "POST", f"/loops/{part(name)}/resume"))


@loops.command("interval")
def interval(
    name: Name,
    ms: Annotated[int, typer.Argument(help="Milliseconds between two turns: 100 to 86400000.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Give a loop another interval; the wait in progress is re-timed."""
    _tell(ask(url, token, "PATCH", f"/loops/{part(name)}", body={"intervalMs": ms}))


def _tell(state: Json) -> None:
    paused = "paused" if state.get("paused") else "running"
    rhythm = f"every {every(state.get('intervalMs'))}, next {moment(state.get('nextAtMs'))}"
    out.print(f"{state.get('name')}: {paused}, {rhythm}", markup=False)


# --- config ---


@config.command("show")
def show(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show the settings that may change at run time, and where each value comes from."""
    answer = ask(url, token, "GET", "/config")
    if as_json:
        out.print_json(data=answer)
        return
    sources = inner(answer, "sources")
    table = Table("setting", "value", "from", "what it is", box=None, pad_edge=False)
    for wire, name in declared.RUNTIME.items():
        doc = declared.FIELDS[name].description or ""
        table.add_row(wire, said(wire, answer.get(wire)), str(sources.get(wire, "-")), escape(doc))
    out.print(table)
    out.print(f"the next batch is due at {moment(answer.get('nextBatchAt'))}")


@config.command("list")
def list_settings() -> None:
    """List every setting of a server with the value that this environment gives it."""
    try:
        here = declared.load(os.environ)
    except StartRefused as refused:
        stop(str(refused))
    table = Table("variable", "value", "from", "allowed", box=None, pad_edge=False)
    for name in declared.FIELDS:
        given = os.environ.get(name.upper(), "") != ""
        secret = "Secret" in str(declared.FIELDS[name].annotation)
        value = getattr(here, name)
        text = "-" if value in (None, ()) else "(set)" if secret else str(value)
        table.add_row(name.upper(), escape(text), "environment" if given else "default", declared.allowed(name))
    out.print(table)


@config.command("set")
def set_values(
    values: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="batchIntervalMs=5000 enableBatching=false")
    ],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Change settings of a running server: stored, in force at once, on all nodes, also after a restart."""
    body = dict(_pair(text) for text in values)
    answer = ask(url, token, "PATCH", "/config", body=body)
    for name in body:
        out.print(f"{name}: {said(name, answer.get(name))}")


@config.command("reset")
def reset(name: str, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Forget a run-time value: the environment or the default counts again."""
    wire = _wire(name)
    answer = ask(url, token, "DELETE", f"/config/{part(wire)}")
    out.print(f"{wire}: {said(wire, answer.get(wire))} ({inner(answer, 'sources').get(wire)})")


def _pair(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        stop(f"write NAME=VALUE, not {text!r}")
    try:
        return _wire(name), orjson.loads(value)
    except orjson.JSONDecodeError:
        return _wire(name), value


def _wire(name: str) -> str:
    """BATCH_INTERVAL_MS and batch_interval_ms are batchIntervalMs too."""
    return next((wire for wire, field in declared.RUNTIME.items() if name.lower() == field), name)
