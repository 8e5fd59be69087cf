"""`batchcast tiers`: bring people in, classify, price and plan them tier by tier, verify, report, review.

The work is done by the server; a run goes on when the command is left with ^C. Exit codes: 0 all done, 1 some failed (rows,
people, or a verification), 2 a gate is shut or the command was used wrongly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from server.commands import tiers_printed as show
from server.commands.asking import DEFAULT_URL, AsJson, Token, Url
from server.commands.calling import UNUSABLE, Failed, Json, Params, Server, out, run, stop
from server.commands.operating import inner, number
from server.edge.clock import SystemClock

T = TypeVar("T")
KINDS: Final = {".csv": "text/csv", ".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson"}
REFUSALS: Final = (404, 409, 422)
"""What the server says no with when a gate is shut or something was named that there is not."""
LOOK_EVERY_S: Final = 0.5
READ_BYTES: Final = 1 << 18

app = typer.Typer(
    name="tiers",
    help="Tiers: import people, classify, generate a month, verify, report, review.",
    no_args_is_help=True,
)
Month = Annotated[str | None, typer.Option("--month", metavar="YYYY-MM", help="Which month; default: this one (UTC).")]
TierOption = Annotated[str | None, typer.Option("--tier", help="S, A, B, C or D.")]
PersonOption = Annotated[int | None, typer.Option("--person", metavar="ID", help="One person; `tiers people` has ids.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped or left.")]
Detach = Annotated[bool, typer.Option("--detach", help="Do not follow the run; `tiers runs` shows it.")]


def told(work: Coroutine[object, object, T]) -> T:
    """Run a command's work; a refusal about the question itself (a shut gate, a wrong name) ends it with 2."""
    try:
        return run(work)
    except Failed as failed:
        if failed.status in REFUSALS:
            raise Failed(str(failed), UNUSABLE, status=failed.status) from None
        raise


def ask(url: str, token: str | None, method: str, path: str, params: Params = (), body: Json | None = None) -> Json:
    """One request to a server."""

    async def one() -> Json:
        async with Server(url, token) as server:
            return await server.call(method, path, params=params, body=body)

    return told(one())


# --- people in ---


@app.command("import")
def import_people(
    file: Annotated[Path, typer.Argument(help="NAME.csv or NAME.ndjson.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Bring people in; bad rows are listed with line, field and reason, the good ones go in."""
    kind = KINDS.get(file.suffix.lower())
    if kind is None or not file.is_file():
        stop(f"{file} is no file of people that there is: name one NAME.csv or NAME.ndjson")
    report = told(_upload(url, token, file, kind))
    if as_json:
        out.print_json(data=report)
    else:
        show.imported(report)
    if report.get("rejected"):
        raise typer.Exit(1)


async def _upload(url: str, token: str | None, file: Path, kind: str) -> Json:
    async with Server(url, token) as server:
        return await server.upload("/tiers/people", (), _chunks(file), kind)


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(READ_BYTES):
            yield chunk


# --- runs ---


@app.command("classify")
def classify(
    new_only: Annotated[bool, typer.Option("--new-only", help="Only people without a tier.")] = False,
    tier: TierOption = None,
    person: PersonOption = None,
    resume: Resume = False,
    detach: Detach = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Phase 1: give people a tier, packages, the most slots a month, a country. Again with the same input changes nothing."""
    if sum((new_only, tier is not None, person is not None)) > 1:
        stop("say one of --new-only, --tier and --person, or none of them for everybody")
    body: Json = {"mode": "new-only"} if new_only else {}
    body |= {name: value for name, value in (("tier", _tier(tier)), ("person", person)) if value is not None}
    _run("/tiers/classify", {**body, "resume": resume}, url, token, detach=detach)


@app.command("generate")
def generate(
    tier: TierOption = None,
    month: Month = None,
    person: PersonOption = None,
    resume: Resume = False,
    replace: Annotated[bool, typer.Option("--replace", help="Plan anew; what is booked stays.")] = False,
    override: Annotated[
        str | None, typer.Option("--override", metavar="REASON", help="Pass a shut gate; the reason is audited.")
    ] = None,
    detach: Detach = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Phase 2: plan a month of slots for one tier (S first), or for one person."""
    if (tier is None) == (person is None):
        stop("say whose month: --tier S (A, B, C, D), or --person ID")
    given = {"tier": _tier(tier), "month": month, "person": person, "override": override}
    body: Json = {name: value for name, value in given.items() if value is not None}
    _run("/tiers/generate", {**body, "resume": resume, "replace": replace}, url, token, detach=detach)


def _tier(text: str | None) -> str | None:
    if text is not None and text.upper() not in show.TIERS:
        stop(f"there is no tier {text[:20]!r}; there are {', '.join(show.TIERS)}")
    return text.upper() if text else None


def _run(path: str, body: Json, url: str, token: str | None, *, detach: bool) -> None:
    """Begin a run and follow it to its end."""
    begun = told(_begin(path, body, url, token, detach))
    out.print(show.sentence(begun), markup=False)
    if detach:
        return
    show.reasons(rows_of(begun, "reasons"))
    if begun.get("failed") or begun.get("status") != "done":
        raise typer.Exit(1)


async def _begin(path: str, body: Json, url: str, token: str | None, detach: bool) -> Json:
    async with Server(url, token) as server:
        begun = inner(await server.call("POST", path, body=body), "run")
        return begun if detach else await _followed(server, begun)


async def _followed(server: Server, last: Json) -> Json:
    """A progress bar to the end of a run; the run then."""
    clock = SystemClock()
    columns = (SpinnerColumn(), TextColumn("{task.fields[what]}"), BarColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("", total=100, what=show.what(last), said="")
        while True:
            bar.update(task, completed=number(last.get("percent")), said=show.pace(last))
            if last.get("status") != "running":
                return last
            await clock.sleep(LOOK_EVERY_S)
            last = await server.get(f"/tiers/runs/{last.get('id')}")


def rows_of(answer: Json, name: str) -> list[Json]:
    """A list inside an answer."""
    rows = answer.get(name)
    return rows if isinstance(rows, list) else []


@app.command("runs")
def runs(
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many.")] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show runs, the newest first."""
    answer = ask(url, token, "GET", "/tiers/runs", [("limit", str(limit))])
    out.print_json(data=answer) if as_json else out.print(show.runs(rows_of(answer, "runs")))


@app.command("stop")
def stop_run(
    number_of: Annotated[int, typer.Argument(metavar="RUN", help="The run's number; `tiers runs` has them.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Stop a run after the batch that is under way; --resume goes on with it."""
    answer = ask(url, token, "POST", f"/tiers/runs/{number_of}/stop")
    out.print(f"{show.sentence(inner(answer, 'run'))} (audit {answer.get('auditId')})", markup=False)


# --- how it is ---


@app.command("verify")
def verify(
    tier: TierOption = None, month: Month = None, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None
) -> None:
    """Verify a tier's month, or the foundation and all tiers; exit code 1 when a rule is broken, with person and rule."""
    body: Json = {name: value for name, value in (("tier", _tier(tier)), ("month", month)) if value is not None}
    answer = ask(url, token, "POST", "/tiers/verify", body=body)
    if as_json:
        out.print_json(data=answer)
    else:
        show.verified(rows_of(answer, "verifications"))
    if not answer.get("passed"):
        raise typer.Exit(1)


@app.command("report")
def report(month: Month = None, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show distribution, pricing and availability coverage, and how many are flagged for review, S to D."""
    answer = ask(url, token, "GET", "/tiers/report", [("month", month)] if month else ())
    out.print_json(data=answer) if as_json else show.report(answer)


@app.command("state")
def state(month: Month = None, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show how far a month is: the foundation, each tier's gate, and what comes next."""
    answer = ask(url, token, "GET", "/tiers/state", [("month", month)] if month else ())
    out.print_json(data=answer) if as_json else show.state(answer)


# --- people ---


@app.command("people")
def people(
    search: Annotated[str | None, typer.Option("--search", help="A part of the name or key.")] = None,
    tier: TierOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many.")] = 20,
    after: Annotated[str | None, typer.Option("--after", help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show people, their tiers and why."""
    given = (("search", search), ("tier", _tier(tier)), ("limit", str(limit)), ("after", after))
    _people([(name, value) for name, value in given if value], url, token, as_json=as_json)


def _people(params: Params, url: str, token: str | None, *, as_json: bool) -> None:
    answer = ask(url, token, "GET", "/tiers/people", params)
    if as_json:
        out.print_json(data=answer)
        return
    out.print(show.people(rows_of(answer, "people")))
    if answer.get("next"):
        out.print(f"more with --after {answer['next']}", markup=False)


@app.command("person")
def person(
    number_of: Annotated[int, typer.Argument(metavar="ID", help="The person's id; `tiers people` has them.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show one person: the tier and why, packages, history."""
    answer = ask(url, token, "GET", f"/tiers/people/{number_of}")
    out.print_json(data=answer) if as_json else show.person(answer)


@app.command("review")
def review(
    number_of: Annotated[int | None, typer.Argument(metavar="[ID]", help="Whom you decide about.")] = None,
    tier: TierOption = None,
    accept: Annotated[bool, typer.Option("--accept", help="With an ID: the tier is right as it is.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="With an ID: why, for those who ask later.")] = None,
    flag: Annotated[
        str | None, typer.Option("--flag", help="Only: unclear, no_evidence, net_worth, country or timezone.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many.")] = 50,
    after: Annotated[str | None, typer.Option("--after", help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show who is flagged for review; with an ID decide: --tier T or --accept, and a --reason."""
    if number_of is None:
        given = (("review", "true"), ("flag", flag), ("tier", _tier(tier)), ("limit", str(limit)), ("after", after))
        _people([(name, value) for name, value in given if value], url, token, as_json=as_json)
        return
    if (tier is None) == (not accept) or not reason:
        stop("decide with --tier T or --accept, and say why with --reason")
    body: Json = {"tier": _tier(tier)} if tier else {"accept": True}
    answer = ask(url, token, "POST", f"/tiers/people/{number_of}/decision", body={**body, "reason": reason})
    row = inner(answer, "person")
    out.print(f"{row.get('name')}: tier {row.get('tier')} (audit {answer.get('auditId')})", markup=False)
