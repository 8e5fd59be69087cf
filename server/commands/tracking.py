"""`batchcast tracking`: look at the views of posts, see how that goes, judge what waits; campaigns and payouts (tracking_books.py).

The work is done by the server: a run goes on when the command is left with ^C. Exit codes: 0 done, 1 something was refused, some clips
failed, a run stopped before its end, or a check found something wrong, 2 the command was used wrongly, or there is no server.
"""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from server.commands import tracking_books
from server.commands import tracking_printed as show
from server.commands.asking import DEFAULT_URL, AsJson, Token, Url
from server.commands.calling import FAILED, Failed, Json, Server, out
from server.commands.calling import run as worked
from server.commands.jobs import rows_of
from server.commands.operating import ask, inner, number
from server.commands.printed import checks, wrong
from server.commands.tracking_lists import Before, Limit, Note, change, look, page, told
from server.edge.clock import SystemClock

LOOK_EVERY_S: Final = 0.5
WELL: Final = ("HEALTHY", "NO_DATA")

app = typer.Typer(
    name="tracking", help="Tracking: runs, campaigns, submissions, payouts, health.", no_args_is_help=True
)
app.add_typer(tracking_books.campaigns)
app.add_typer(tracking_books.submissions)
app.add_typer(tracking_books.payouts)
held = typer.Typer(
    name="held", help="Counts that rose too much at once: list, accept, reject.", invoke_without_command=True
)
app.add_typer(held)
failed = typer.Typer(
    name="failed", help="Clips that could not be read: list, try one again.", invoke_without_command=True
)
app.add_typer(failed)


# --- runs ---


@app.command("run")
def run(
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=10_000, help="At most so many clips; default: the server's.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Asking again with the same key starts nothing new.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow it; `tracking runs` shows it.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Look at what is due now, the most urgent first, and say how it went; joins a run that is under way."""
    last = worked(_run(url, token, limit, key, detach=detach))
    out.print_json(data=last) if as_json else out.print(show.sentence(last), markup=False)
    if last.get("status") != "running" and (last.get("failed") or last.get("stopReason") != "done"):
        raise typer.Exit(FAILED)


async def _run(url: str, token: str | None, limit: int | None, key: str | None, *, detach: bool) -> Json:
    body: Json = {} if limit is None else {"limit": limit}
    headers = {"Idempotency-Key": key} if key else {}
    async with Server(url, token) as server:
        begun = inner(await server.call("POST", "/tracking/runs", body=body, headers=headers), "run")
        return begun if detach else await _followed(server, begun)


async def _followed(server: Server, last: Json) -> Json:
    """A progress bar to the end of a run; the run then."""
    clock = SystemClock()
    columns = (SpinnerColumn(), TextColumn("run {task.fields[run]}"), BarColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("", total=max(1.0, number(last.get("limit"))), run=last.get("id"), said="")
        while True:
            bar.update(task, completed=number(last.get("processed")), said=show.pace(last))
            if last.get("status") != "running":
                return last
            await clock.sleep(LOOK_EVERY_S)
            last = await server.get(f"/tracking/runs/{last.get('id')}")


@app.command("runs")
def runs(
    limit: Limit = 20, before: Before = None, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None
) -> None:
    """Show runs, the newest first."""
    page(look(url, token, "runs", limit=limit, before=before), "runs", show.runs, as_json=as_json)


@app.command("stop")
def stop_run(
    number_of: Annotated[int, typer.Argument(metavar="RUN", help="The run's number; `tracking runs` has them.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Have a run make no further calls; what it has not looked at stays due."""
    change(url, token, f"runs/{number_of}/stop", show.stopped, {}, as_json=as_json)


@app.command("link")
def link(
    clip: Annotated[
        int, typer.Argument(metavar="CLIP", help="The clip's number; `tracking submissions list` has them.")
    ],
    event: Annotated[str | None, typer.Argument(metavar="[EVENT]", help="The event's id; without it: none.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Have an event of the live map become popular as the clip is seen (needs TRACKING_POPULARITY)."""
    answer = ask(url, token, "PUT", f"/tracking/clips/{clip}/event", body={"eventId": event})
    told(answer, show.linked, as_json=as_json)


@failed.callback()
def list_failed(
    context: typer.Context,
    limit: Limit = 50,
    before: Before = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show the clips that could not be read, the newest first, and when they are tried again."""
    if context.invoked_subcommand is None:
        page(look(url, token, "failed", limit=limit, before=before), "failed", show.failed, as_json=as_json)


@failed.command("retry")
def retry(
    scrape: Annotated[int, typer.Argument(metavar="ID", help="The failure's number; `tracking failed` has them.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Have a clip looked at by the next run."""
    change(url, token, f"failed/{scrape}/retry", show.retried, {}, as_json=as_json)


# --- counts that wait for a person ---


@held.callback()
def list_held(
    context: typer.Context,
    limit: Limit = 50,
    after: Annotated[int | None, typer.Option("--after", help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show the counts that rose too much at once, the oldest first; nothing is earned by them until they are accepted."""
    if context.invoked_subcommand is None:
        page(look(url, token, "held", limit=limit, after=after), "held", show.held, as_json=as_json, more="--after")


Count = Annotated[int, typer.Argument(metavar="ID", help="The count's number; `tracking held` has them.")]


@held.command("accept")
def accept(
    count: Count, note: Note = None, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None
) -> None:
    """It is true: pay what it earns, once."""
    change(url, token, f"held/{count}/accept", show.verdict, {"note": note}, as_json=as_json)


@held.command("reject")
def reject(
    count: Count, note: Note = None, as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None
) -> None:
    """It is not: it counts for nothing."""
    change(url, token, f"held/{count}/reject", show.verdict, {"note": note}, as_json=as_json)


# --- how it is ---


@app.command("plan")
def plan(
    clips_per_week: Annotated[int, typer.Option("--clips-per-week", min=0, help="New clips a week.")] = 500,
    life_days: Annotated[int, typer.Option("--life-days", min=1, help="How long a clip is looked at.")] = 30,
    checks_per_day: Annotated[int, typer.Option("--checks-per-day", min=1, help="Looks at each of them.")] = 6,
    posts_per_call: Annotated[int, typer.Option("--posts-per-call", min=1, help="Posts that one call asks for.")] = 1,
    run_clips: Annotated[int | None, typer.Option("--run-clips", min=1, help="Clips a run; default: as set.")] = None,
    run_every: Annotated[
        float | None, typer.Option("--run-every", metavar="HOURS", help="From run to run; default: as set.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show how many calls so many clips need, against what runs can do and what each plan of the provider has."""
    answer = look(
        url,
        token,
        "plan",
        clipsPerWeek=clips_per_week,
        lifeDays=life_days,
        checksPerDay=checks_per_day,
        postsPerCall=posts_per_call,
        runClips=run_clips,
        runEveryMs=None if run_every is None else round(run_every * show.HOUR_MS),
    )
    out.print_json(data=answer) if as_json else show.plan(answer)


@app.command("health")
def health(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show success, quota, provider, loops; exit code 1 unless it is HEALTHY, or there is no data yet."""
    answer = ask(url, token, "GET", "/tracking/health")
    out.print_json(data=answer) if as_json else show.health(answer)
    if answer.get("status") not in WELL:
        raise Failed(f"{answer.get('status')}: see `tracking runs`, `tracking failed`, `loops list`", FAILED)


@app.command("stats")
def stats(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show what each actor did and cost this month, what is due, what waits."""
    answer = ask(url, token, "GET", "/tracking/stats")
    out.print_json(data=answer) if as_json else show.stats(answer)


@app.command("verify")
def verify(as_json: AsJson = False, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Add up all money anew, from the ledger; exit code 1 when something differs, naming it."""
    answer = ask(url, token, "GET", "/tracking/verification")
    out.print_json(data=answer) if as_json else out.print(checks(rows_of(answer, "checks")))
    if not answer.get("ok"):
        raise Failed(f"does not add up: {wrong(rows_of(answer, 'checks'))}", FAILED)
