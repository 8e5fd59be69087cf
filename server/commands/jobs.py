"""`batchcast imports`: order an import, follow it, look after the queue, take a list away as a file."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from server.commands.asking import DEFAULT_URL, AsJson, Token, Url
from server.commands.calling import Failed, Json, Params, Server, out, run, stop
from server.commands.operating import ask, inner, moment, number
from server.edge.clock import SystemClock

app = typer.Typer(
    name="imports",
    help="Imports: order one, follow it, look after the queue, export a list.",
    no_args_is_help=True,
)
Id = Annotated[int, typer.Argument(help="The job's number; `imports list` has them.")]
List = Annotated[int, typer.Argument(help="The list's number; `imports lists` has them.")]
MARKS: Final = {
    "completed": "[green]completed[/]",
    "failed": "[red]failed[/]",
    "scheduled": "[yellow]scheduled[/]",
    "cancelled": "[dim]cancelled[/]",
}
ENDED: Final = ("completed", "failed", "cancelled")
KINDS: Final = {".csv": "text/csv", ".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson"}
LOOK_EVERY_S: Final = 0.5
READ_BYTES: Final = 1 << 18


@app.command("create")
def create(
    list_name: Annotated[str | None, typer.Option("--list", help="Make a new list of this name.")] = None,
    list_id: Annotated[int | None, typer.Option("--list-id", help="Import into this list.")] = None,
    account: Annotated[str | None, typer.Option("--account", help="The provider's account, such as biz_demo.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A file of members instead: NAME.csv or NAME.ndjson.")
    ] = None,
    priority: Annotated[
        int, typer.Option("--priority", min=0, max=9, help="Higher is first; above 5 is for admins.")
    ] = 5,
    key: Annotated[str | None, typer.Option("--key", help="Asking again with the same key makes nothing new.")] = None,
    max_retries: Annotated[int, typer.Option("--max-retries", min=0, max=100, help="Attempts after the first.")] = 5,
    follow: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Order an import from an account (with a credential), or from a file."""
    given = {"listName": list_name, "listId": list_id, "priority": priority, "key": key, "maxRetries": max_retries}
    wanted: Json = {name: value for name, value in given.items() if value is not None}
    if (account is None) == (file is None):
        stop("say where the members come from: --account ACCOUNT or --file FILE")
    answer = run(_upload(url, token, wanted, file)) if file else _order(url, token, {**wanted, "account": account})
    job = inner(answer, "job")
    if as_json:
        out.print_json(data=answer)
    else:
        out.print(f"import {job.get('id')} into list {job.get('listId')}: {job.get('status')}", markup=False)
    if follow:
        watch(int(number(job.get("id"))), url, token)


def _order(url: str, token: str | None, body: Json) -> Json:
    return ask(url, token, "POST", "/imports", body=body)


async def _upload(url: str, token: str | None, wanted: Json, file: Path) -> Json:
    kind = _kind(file)
    params: Params = [*((name, str(value)) for name, value in wanted.items()), ("fileName", file.name)]
    async with Server(url, token) as server:
        return await server.upload("/imports", params, _chunks(file), kind)


def _kind(file: Path) -> str:
    kind = KINDS.get(file.suffix.lower())
    if kind is None:
        stop(f"{file.name} is no file of members: name it NAME.csv or NAME.ndjson")
    if not file.is_file():
        stop(f"there is no file {file}")
    return kind


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(READ_BYTES):
            yield chunk


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option("--status", help="Only those: pending, processing, failed ...")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 20,
    before: Annotated[int | None, typer.Option("--before", help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show jobs, the newest first: your own, or with an admin's token everybody's."""
    params = [
        ("limit", str(limit)),
        *([("status", status)] if status else []),
        *([("before", str(before))] if before else []),
    ]
    answer = ask(url, token, "GET", "/imports", params)
    if as_json:
        out.print_json(data=answer)
        return
    table = Table(
        "job", "owner", "list", "from", "status", "done", "members", "created", "error", box=None, pad_edge=False
    )
    for job in rows_of(answer, "jobs"):
        table.add_row(*_cells(job))
    out.print(table)
    if answer.get("next"):
        out.print(f"more with --before {answer['next']}", markup=False)


def _cells(job: Json) -> tuple[str, ...]:
    status, percent = str(job.get("status")), job.get("percent")
    return (
        str(job.get("id")),
        escape(str(job.get("owner"))),
        escape(f"{job.get('listId')} {job.get('listName') or ''}".rstrip()),
        escape(str(job.get("account") or job.get("fileName") or job.get("file"))),
        MARKS.get(status, status),
        "-" if percent is None else f"{number(percent):g} %",
        f"{int(number(job.get('imported'))):,}",
        moment(job.get("createdAtMs")),
        escape(str(job.get("error") or "")),
    )


def rows_of(answer: Json, name: str) -> list[Json]:
    """A list inside an answer."""
    rows = answer.get(name)
    return rows if isinstance(rows, list) else []


@app.command("show")
def show(job: Id, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show one job and how far it is."""
    answer = ask(url, token, "GET", f"/imports/{job}")
    if as_json:
        out.print_json(data=answer)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in answer.items():
        text = moment(value) if name.endswith("AtMs") else "-" if value is None else str(value)
        table.add_row(name, escape(text))
    out.print(table)


@app.command("watch")
def watch(job: Id, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Follow a job to its end; exit code 1 when it failed or was cancelled."""
    last = run(_watch(url, token, job))
    said = _sentence(last)
    if last.get("status") != "completed":
        raise Failed(said)
    out.print(said, markup=False)


async def _watch(url: str, token: str | None, job: int) -> Json:
    clock = SystemClock()
    columns = (SpinnerColumn(), TextColumn("import {task.fields[job]}"), BarColumn(), TextColumn("{task.fields[said]}"))
    async with Server(url, token) as server:
        last = await server.get(f"/imports/{job}")
        with Progress(*columns, console=out, transient=True) as bar:
            task = bar.add_task("", total=None, job=job, said="")
            while True:
                percent = last.get("percent")
                shown = None if percent is None else number(percent)
                bar.update(task, total=None if shown is None else 100, completed=shown or 0, said=_pace(last))
                if last.get("status") in ENDED:
                    return last
                await clock.sleep(LOOK_EVERY_S)
                last = await server.get(f"/imports/{job}")


def _pace(job: Json) -> str:
    """How far and how fast, in a few words."""
    words = [str(job.get("status")), f"{int(number(job.get('seen'))):,} members"]
    if job.get("total"):
        words.append(f"of {int(number(job.get('total'))):,}")
    if job.get("rate"):
        words.append(f"{number(job.get('rate')):,.0f}/s")
    if job.get("etaMs") is not None and job.get("status") == "processing":
        words.append(f"{number(job.get('etaMs')) / 1000:,.0f} s left")
    if job.get("status") == "scheduled":
        words.append(f"next attempt {moment(job.get('nextAttemptAtMs'))}: {job.get('error')}")
    return escape(" ".join(words))


def _sentence(job: Json) -> str:
    counts = ", ".join(
        f"{int(number(job.get(name))):,} {word}"
        for name, word in (
            ("imported", "imported"),
            ("duplicates", "twice"),
            ("withoutEmail", "without e-mail"),
            ("rejected", "rejected"),
        )
    )
    why = f": {job['error']}" if job.get("error") else ""
    return f"import {job.get('id')} {job.get('status')}{why} ({counts})"


@app.command("status")
def status(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show the queue, the workers, today and the week, and how the provider is used."""
    answer = ask(url, token, "GET", "/imports/status")
    if as_json:
        out.print_json(data=answer)
        return
    out.print("queue: " + ", ".join(f"{count} {name}" for name, count in inner(answer, "queue").items()), markup=False)
    for name in ("today", "week"):
        sums = inner(answer, name)
        words = (f"{sums.get('completedJobs')} completed, {sums.get('failedJobs')} failed", _members(sums))
        out.print(f"{name}: {', '.join(words)}", markup=False)
    pace = inner(answer, "throughput")
    text = f"now: {number(pace.get('membersPerS')):,.1f} members/s, {number(pace.get('jobsPerMin')):,.1f} jobs/min"
    out.print(f"{text}; workers suggested: {answer.get('workersSuggested')}", markup=False)
    out.print(_workers(rows_of(answer, "workers")))
    if rows_of(answer, "credentials"):
        out.print(_usage(rows_of(answer, "credentials")))


def _members(sums: Json) -> str:
    seconds = number(sums.get("avgProcessingSeconds"))
    return f"{int(number(sums.get('totalMembersProcessed'))):,} members, {seconds:,.1f} s a job"


def _workers(rows: list[Json]) -> Table:
    table = Table(
        "worker", "status", "heard of", "job", "jobs", "members", "lanes", "version", box=None, pad_edge=False
    )
    for row in rows:
        counts = (f"{int(number(row.get(name))):,}" for name in ("jobsProcessed", "totalMembersProcessed"))
        table.add_row(
            escape(str(row.get("name"))),
            str(row.get("status")),
            f"{number(row.get('heartbeatAgeMs')) / 1000:,.1f} s ago",
            str(row.get("currentJob") or "-"),
            *counts,
            str(row.get("lanes")),
            str(row.get("version")),
        )
    return table


def _usage(rows: list[Json]) -> Table:
    table = Table("credential", "used by", "calls", "429s", "s a page", "calls left", box=None, pad_edge=False)
    for row in rows:
        pace = row.get("secondsPerPage")
        table.add_row(
            str(row.get("credentialId")),
            escape(str(row.get("node"))),
            str(row.get("calls")),
            str(row.get("limited")),
            "-" if pace is None else f"{number(pace):.2f}",
            f"{number(row.get('tokens')):.0f}",
        )
    return table


@app.command("cancel")
def cancel(job: Id, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Stop a job, also while it is worked on; what is in the list stays there."""
    _tell(ask(url, token, "POST", f"/imports/{job}/cancel"))


@app.command("requeue")
def requeue(job: Id, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Try a failed or cancelled job once more, from where it stopped."""
    _tell(ask(url, token, "POST", f"/imports/{job}/requeue"))


@app.command("priority")
def priority(
    job: Id,
    value: Annotated[int, typer.Argument(min=0, max=9, help="0 to 9; higher is first.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Hurry a job that waits, or let others pass."""
    _tell(ask(url, token, "PATCH", f"/imports/{job}", body={"priority": value}))


def _tell(answer: Json) -> None:
    job = inner(answer, "job")
    text = (
        f"import {job.get('id')}: {job.get('status')}, priority {job.get('priority')} (audit {answer.get('auditId')})"
    )
    out.print(text, markup=False)


@app.command("rejected")
def rejected(job: Id, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show the rows of a job's source that are no members, and why."""
    rows = run(_rejected(url, token, job))
    if as_json:
        out.print_json(data=rows)
        return
    table = Table("row", "field", "reason", box=None, pad_edge=False)
    for row in rows:
        table.add_row(str(row.get("row")), str(row.get("field") or ""), escape(str(row.get("reason"))))
    out.print(table)


async def _rejected(url: str, token: str | None, job: int) -> list[Json]:
    rows: list[Json] = []
    following: object = ""
    async with Server(url, token) as server:
        while following is not None:
            params = [("limit", "1000"), *([("after", str(following))] if following != "" else [])]
            answer = await server.get(f"/imports/{job}/rejected", params)
            rows += rows_of(answer, "rows")
            following = answer.get("next")
    return rows


@app.command("lists")
def lists(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show the newest lists."""
    answer = ask(url, token, "GET", "/audiences", [("limit", "1000")])
    if as_json:
        out.print_json(data=answer)
        return
    table = Table("list", "owner", "name", "created", box=None, pad_edge=False)
    for row in rows_of(answer, "audiences"):
        names = (escape(str(row.get("owner"))), escape(str(row.get("name"))))
        table.add_row(str(row.get("id")), *names, moment(row.get("createdAtMs")))
    out.print(table)


@app.command("export")
def export(
    audience: List,
    fmt: Annotated[str, typer.Option("--format", help="csv or ndjson.")] = "csv",
    to: Annotated[Path | None, typer.Option("--to", help="Write here; default: standard output.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Take a list away as a file, which can be imported again."""
    run(_export(url, token, audience, fmt, to))


async def _export(url: str, token: str | None, audience: int, fmt: str, to: Path | None) -> None:
    async with (
        Server(url, token) as server,
        server.stream(f"/audiences/{audience}/export", [("format", fmt)]) as pieces,
    ):
        if to is None:
            async for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        part = to.with_name(f"{to.name}.part")
        with part.open("wb") as file:
            async for piece in pieces:
                file.write(piece)
        part.replace(to)


@app.command("delete-list")
def delete_list(
    audience: List,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Remove a list and its contacts, and stop its jobs."""
    if not yes:
        typer.confirm(f"Remove list {audience} and all its contacts?", abort=True)
    answer = ask(url, token, "DELETE", f"/audiences/{audience}")
    out.print(f"list {answer.get('id')} is gone (audit {answer.get('auditId')})", markup=False)
