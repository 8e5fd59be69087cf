"""`batchcast schedules`: take businesses in, look at batches and runs, start, pause and even out, tiers and intervals, retries."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from server.commands.asking import DEFAULT_URL, AsJson, Errors, Token, Url
from server.commands.calling import FAILED, Failed, Json, Params, Server, Unreachable, err, out, part, run, stop
from server.commands.importing import Bad, Report, bar, clock, listed, tell_report
from server.commands.jobs import rows_of
from server.commands.operating import ask, inner, moment, number
from server.commands.printed import checks, wrong

app = typer.Typer(
    name="schedules",
    help="Schedules: businesses, batches, runs, tiers and intervals, the retry queue.",
    no_args_is_help=True,
)
Id = Annotated[int, typer.Argument(help="The schedule's number; `schedules list` has them.")]
Team = Annotated[str, typer.Argument(help="The team.")]
Platform = Annotated[str | None, typer.Option("--platform", help="Only google, facebook, tripadvisor or booking.")]
Kind = Annotated[str | None, typer.Option("--type", help="Only reviews, or only overview.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")]
MARKS: Final = {
    "healthy": "[green]healthy[/]",
    "ok": "[green]ok[/]",
    "warning": "[yellow]warning[/]",
    "critical": "[red]critical[/]",
    "succeeded": "[green]succeeded[/]",
    "resolved": "[green]resolved[/]",
    "failed": "[red]failed[/]",
    "refused": "[red]refused[/]",
    "timed_out": "[red]timed out[/]",
}
KINDS: Final = {".csv": "text/csv", ".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson"}
CHUNK: Final = 1 << 18
TRIES: Final = 5
WAIT_S: Final = 2.0
DAY_MS: Final = 86_400_000


# --- import, validate ---


@app.command("import")
def import_businesses(
    file: Annotated[
        Path, typer.Argument(help="NAME.csv or NAME.ndjson: team, name, tier, and a profile for each platform.")
    ],
    errors: Errors = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Take in a file of businesses, then validate. Safe to run again: what is known stays, and it goes on where it stopped."""
    kind = KINDS.get(file.suffix.lower())
    if kind is None:
        stop(f"{file.name} is no file of businesses: name it NAME.csv or NAME.ndjson")
    try:
        source = file.open("rb")
    except OSError as error:
        stop(f"cannot read {file}: {error.strerror}")
    with source, listed(errors) as tell, bar(file.stat().st_size) as advance:
        answer = run(_upload(url, token, source, kind, advance))
        report = Report(int(number(answer.get("rows"))), tell=tell)
        report.accepted = report.rows - int(number(answer.get("refused")))
        for row in rows_of(answer, "errors"):
            report.bad(Bad(int(number(row.get("number"))), None, _text(row.get("field")), str(row.get("reason"))))
        report.refused = int(number(answer.get("refused")))
    tell_report(report, errors)
    placed, known = (int(number(answer.get(name))) for name in ("placed", "known"))
    err.print(f"{placed:,} profiles placed, {known:,} known before (audit {answer.get('auditId')})", markup=False)
    validate(url=url, token=token)


async def _upload(
    url: str, token: str | None, source: BufferedReader, kind: str, advance: Callable[[int, int], None]
) -> Json:
    """Send the file under its hash; when the server goes away, again: it goes on behind what it has stored."""
    key = hashlib.file_digest(source, "sha256").hexdigest()
    async with Server(url, token) as server:
        for tries_left in reversed(range(TRIES)):
            source.seek(0)
            try:
                return await server.upload("/admin/businesses", [("key", key)], _chunks(source, advance), kind)
            except Failed as failed:
                away = isinstance(failed, Unreachable) and server.reached
                if not (away or failed.retry_after_s is not None) or not tries_left:
                    raise
            await clock.sleep(WAIT_S)
    raise AssertionError("the last try returns or raises")


async def _chunks(source: BufferedReader, advance: Callable[[int, int], None]) -> AsyncIterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk
        advance(len(chunk), 0)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@app.command("validate")
def validate(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Check all that is stored, and the provider's side; exit code 1 when something is wrong, naming it."""
    answer = ask(url, token, "GET", "/admin/schedules/validation")
    if as_json:
        out.print_json(data=answer)
    else:
        out.print(checks(rows_of(answer, "checks")))
    if not answer.get("ok"):
        raise Failed(f"not valid: {wrong(rows_of(answer, 'checks'))}", FAILED)


# --- plan, rebalance, consolidate ---


@app.command("plan")
def plan(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show what consolidate and rebalance would do now, without doing it."""
    answers = {
        action: ask(url, token, "POST", f"/admin/schedules/{action}", body={"preview": True})
        for action in ("consolidate", "rebalance")
    }
    if as_json:
        out.print_json(data=answers)
        return
    table = Table("action", "schedule", "moves", "new", "set aside", box=None, pad_edge=False)
    for action, answer in answers.items():
        for row in rows_of(answer, "plans"):
            moves = ", ".join(
                f"{m.get('count')} from {m.get('source')} to {m.get('target')}" for m in rows_of(row, "transfers")
            )
            table.add_row(action, _line(row), moves or "-", _numbers(row.get("created")), _numbers(row.get("retired")))
    if table.row_count:
        out.print(table)
    for action, answer in answers.items():
        out.print(f"{action}: {_balanced(answer)}", markup=False)


def _numbers(value: object) -> str:
    return ", ".join(str(one) for one in value) if isinstance(value, list) and value else "-"


def _balanced(answer: Json) -> str:
    names = (("moves", "moves"), ("created", "new batches"), ("retired", "set aside"))
    return ", ".join(f"{int(number(answer.get(name))):,} {word}" for name, word in names)


@app.command("rebalance")
def rebalance(url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Even out the loads of batches."""
    answer = ask(url, token, "POST", "/admin/schedules/rebalance", body={})
    out.print(f"{_balanced(answer)} (audit {answer.get('auditId')})", markup=False)


@app.command("consolidate")
def consolidate(url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Empty batches that are hardly used."""
    answer = ask(url, token, "POST", "/admin/schedules/consolidate", body={})
    out.print(f"{_balanced(answer)} (audit {answer.get('auditId')})", markup=False)


# --- schedules and runs ---


@app.command("list")
def list_schedules(
    platform: Platform = None,
    kind: Kind = None,
    hours: Annotated[int | None, typer.Option("--hours", help="Only those of this interval.")] = None,
    health: Annotated[str | None, typer.Option("--health", help="Only healthy, warning or critical ones.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only active, paused, empty or aside ones.")] = None,
    limit: Limit = 200,
    after: Annotated[str | None, typer.Option("--after", help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show schedules, a row a batch; the 32 are there before anybody needs them."""
    given = {"platform": platform, "type": kind, "hours": hours, "health": health, "state": state, "after": after}
    answer = ask(url, token, "GET", "/admin/schedules", _params({**given, "limit": limit}))
    if as_json:
        out.print_json(data=answer)
        return
    table = Table(
        "id", "schedule", "batch", "load", "health", "state", "next run", "last run", box=None, pad_edge=False
    )
    for row in rows_of(answer, "schedules"):
        table.add_row(*_cells(row))
    out.print(table)
    if answer.get("next"):
        err.print(f"more with --after {answer['next']}", markup=False)


def _params(given: Json) -> Params:
    return [(name, str(value)) for name, value in given.items() if value is not None]


def _line(row: Json) -> str:
    return f"{row.get('platform')} {row.get('type')} every {row.get('hours')} h"


def _cells(row: Json) -> tuple[str, ...]:
    grade = str(row.get("health"))
    facts = [word for name, word in (("paused", "paused"), ("empty", "empty")) if row.get(name)]
    facts += [] if row.get("active") else ["set aside"]
    return (
        "-" if row.get("id") is None else str(row.get("id")),
        _line(row),
        str(row.get("index")),
        f"{row.get('businesses')}/{row.get('capacity')}",
        MARKS.get(grade, grade),
        ", ".join(facts) or "active",
        moment(row.get("nextRunAtMs")),
        moment(row.get("lastRunAtMs")),
    )


@app.command("trigger")
def trigger(
    schedule: Id,
    key: Annotated[str | None, typer.Option("--key", help="Asking again with the same key starts nothing new.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Start a run of a schedule now, paused or not."""

    async def one() -> Json:
        async with Server(url, token) as server:
            headers = {"Idempotency-Key": key} if key else {}
            return await server.call("POST", f"/admin/schedules/{schedule}/trigger", headers=headers)

    answer = run(one())
    new = "" if answer.get("new") else " (it was there already)"
    out.print(f"run {answer.get('runId')}{new}, audit {answer.get('auditId')}", markup=False)


@app.command("pause")
def pause(schedule: Id, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """No runs of a schedule, and no further businesses into it, until `resume`."""
    _tell(ask(url, token, "PUT", f"/admin/schedules/{schedule}/pause"))


@app.command("resume")
def resume(schedule: Id, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Have a schedule go on with its next slot."""
    _tell(ask(url, token, "PUT", f"/admin/schedules/{schedule}/resume"))


def _tell(answer: Json) -> None:
    row = inner(answer, "schedule")
    state = "paused" if row.get("paused") else f"next run {moment(row.get('nextRunAtMs'))}"
    out.print(f"schedule {row.get('id')} ({_line(row)}): {state} (audit {answer.get('auditId')})", markup=False)


@app.command("runs")
def runs(
    schedule: Annotated[int | None, typer.Option("--schedule", help="Only those of this schedule.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only those: running, failed, timed_out ...")] = None,
    limit: Limit = 20,
    before: Annotated[int | None, typer.Option("--before", help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show runs at the provider, the newest first."""
    path = "/admin/runs" if schedule is None else f"/admin/schedules/{schedule}/runs"
    answer = ask(url, token, "GET", path, _params({"state": state, "limit": limit, "before": before}))
    if as_json:
        out.print_json(data=answer)
        return
    names = ("asked", "items", "attributed", "unasked", "missing")
    table = Table("run", "why", "schedule", "of", "state", *names, "started", "error", box=None, pad_edge=False)
    for row in rows_of(answer, "runs"):
        of = f"{row.get('platform')} {row.get('type')}"
        counts = (str(row.get(name)) for name in names)
        where, mark = str(row.get("scheduleId") or "-"), MARKS.get(str(row.get("state")), str(row.get("state")))
        why, error = str(row.get("kind")), escape(str(row.get("error") or ""))
        table.add_row(str(row.get("id")), why, where, of, mark, *counts, moment(row.get("startedAtMs")), error)
    out.print(table)
    if answer.get("next"):
        err.print(f"more with --before {answer['next']}", markup=False)


# --- teams ---


@app.command("tier")
def tier(
    team: Team,
    value: Annotated[str, typer.Argument(metavar="TIER", help="starter, professional or enterprise.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Give a team another tier; all its businesses move with it."""
    answer = ask(url, token, "PUT", f"/admin/teams/{part(team)}/tier", body={"tier": value})
    change = f"{answer.get('before') or 'new'} -> {answer.get('after')}, {answer.get('moved')} moved"
    out.print(f"{answer.get('team')}: {change} (audit {answer.get('auditId')})", markup=False)


@app.command("custom-interval")
def custom_interval(
    team: Team,
    hours: Annotated[
        int | None, typer.Argument(min=1, max=168, help="1 to 168; without it the team's are shown.")
    ] = None,
    platform: Platform = None,
    kind: Kind = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept in the history.")] = "",
    days: Annotated[float | None, typer.Option("--days", min=0.01, max=3650, help="It ends after so long.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Back to the interval of the tier.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show, set or remove the intervals that an enterprise team has of its own."""
    path = f"/admin/teams/{part(team)}/custom-interval"
    if remove and hours is not None:
        stop("say either HOURS or --remove")
    if remove:
        answer = ask(url, token, "DELETE", path, _params({"platform": platform, "type": kind}))
    elif hours is None:
        answer = ask(url, token, "GET", path)
    else:
        answer = ask(url, token, "POST", path, body=_interval(hours, platform, kind, reason, days))
    if as_json:
        out.print_json(data=answer)
        return
    _show_intervals(rows_of(answer, "intervals"))
    if "auditId" in answer:
        out.print(f"{answer.get('moved')} moved (audit {answer.get('auditId')})", markup=False)


def _interval(hours: int, platform: str | None, kind: str | None, reason: str, days: float | None) -> Json:
    ends_ms = None if days is None else clock.now_ms() + round(days * DAY_MS)
    return {
        "hours": hours,
        "reason": reason,
        **({"platforms": [platform]} if platform else {}),
        **({"types": [kind]} if kind else {}),
        **({} if ends_ms is None else {"expiresAtMs": ends_ms}),
    }


def _show_intervals(rows: list[Json]) -> None:
    table = Table("platform", "type", "every", "until", "by", "reason", box=None, pad_edge=False)
    for row in rows:
        until = "removed" if row.get("expiresAtMs") is None else moment(row.get("expiresAtMs"))
        who, why = escape(str(row.get("setBy"))), escape(str(row.get("reason")))
        table.add_row(str(row.get("platform")), str(row.get("type")), f"{row.get('hours')} h", until, who, why)
    out.print(table if rows else "no intervals of its own")


# --- retries, health ---


@app.command("retries")
def retries(
    state: Annotated[
        str | None, typer.Option("--state", help="Only waiting, running, resolved or failed ones.")
    ] = None,
    team: Annotated[str | None, typer.Option("--team", help="Only those of this team.")] = None,
    limit: Limit = 50,
    after: Annotated[int | None, typer.Option("--after", help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show the businesses that have to be tried again."""
    answer = ask(
        url, token, "GET", "/admin/retries", _params({"state": state, "team": team, "limit": limit, "after": after})
    )
    if as_json:
        out.print_json(data=answer)
        return
    _show_retries(rows_of(answer, "retries"))
    if answer.get("next"):
        err.print(f"more with --after {answer['next']}", markup=False)


def _show_retries(rows: list[Json]) -> None:
    table = Table("business", "team", "of", "state", "tried", "next", "last error", box=None, pad_edge=False)
    for row in rows:
        of, mark = f"{row.get('platform')} {row.get('type')}", MARKS.get(str(row.get("state")), str(row.get("state")))
        who, tried = escape(str(row.get("team"))), str(row.get("attempts"))
        error = escape(str(row.get("lastError") or ""))
        table.add_row(str(row.get("businessId")), who, of, mark, tried, moment(row.get("nextRetryAtMs")), error)
    out.print(table)


@app.command("retry")
def retry(
    business: Annotated[int, typer.Argument(help="The business's number; `schedules retries` has those that failed.")],
    platform: Platform = None,
    kind: Kind = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Try a business again at once, with a fresh count."""
    body: Json = {name: value for name, value in (("platform", platform), ("type", kind)) if value}
    answer = ask(url, token, "POST", f"/admin/businesses/{business}/retry", body=body)
    _show_retries(rows_of(answer, "retries"))
    out.print(f"audit {answer.get('auditId')}", markup=False)


@app.command("health")
def health(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show how the schedules are doing; exit code 1 when it is critical."""
    answer = ask(url, token, "GET", "/admin/health")
    if as_json:
        out.print_json(data=answer)
    else:
        _show_health(answer)
    if answer.get("status") == "critical":
        raise Failed("critical: see the alerts, `schedules list --health critical`, `schedules retries --state failed`")


def _show_health(answer: Json) -> None:
    out.print(f"status: {MARKS.get(str(answer.get('status')), answer.get('status'))}")
    for name in ("schedules", "batches", "retries"):
        out.print(
            f"{name}: " + ", ".join(f"{count} {word}" for word, count in inner(answer, name).items()), markup=False
        )
    under_way = inner(answer, "runs")
    out.print(f"{answer.get('businesses')} businesses of {answer.get('teams')} teams", markup=False)
    out.print(f"runs under way: {under_way.get('underWay')} of at most {under_way.get('most')}", markup=False)
    waiting, last = answer.get("webhooksWaiting"), answer.get("lastWebhookAtMs")
    out.print(f"webhooks: last {'never' if last is None else moment(last)}, {waiting} waiting", markup=False)
    out.print(f"provider: {_provider(inner(answer, 'provider'))}; clock: {answer.get('clock')}", markup=False)
    sick = [
        f"{loop.get('name')} is {loop.get('health')}"
        for loop in rows_of(answer, "loops")
        if loop.get("health") in ("failing", "late", "paused")
    ]
    out.print(f"loops: {', '.join(sick) or 'all well'}", markup=False)


def _provider(said: Json) -> str:
    if not said.get("configured"):
        return "no token is set (APIFY_TOKEN), nothing is started"
    told = "it tells us of ends" if said.get("webhooks") else "it is polled, as PUBLIC_URL is not set"
    return f"it answers, {told}" if said.get("reachable") else f"it does not answer: {said.get('message')}"
