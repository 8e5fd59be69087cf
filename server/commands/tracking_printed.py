"""How `batchcast tracking` prints what the server answered: tables and sentences, nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rich.markup import escape
from rich.table import Table

from server.commands.calling import Json, out
from server.commands.jobs import rows_of
from server.commands.operating import every, inner, moment, number
from server.commands.printed import table, whole
from server.core import money

MARKS: Final = {
    "HEALTHY": "[green]HEALTHY[/]",
    "NO_DATA": "[dim]NO_DATA[/]",
    "DEGRADED": "[yellow]DEGRADED[/]",
    "STALE": "[yellow]STALE[/]",
    "UNHEALTHY": "[red]UNHEALTHY[/]",
    "ACTIVE": "[green]ACTIVE[/]",
    "PAUSED": "[yellow]PAUSED[/]",
    "PENDING": "[yellow]PENDING[/]",
    "REJECTED": "[red]REJECTED[/]",
    "REVERTED": "[red]REVERTED[/]",
    "done": "[green]done[/]",
    "running": "[yellow]running[/]",
}
STOPS: Final = {
    "done": "all that was due is done",
    "time_limit": "the time of a run was over, the rest stays due",
    "quota": "the month's quota is used up, the rest stays due",
    "provider_auth": "the provider refuses our token (APIFY_TOKEN), the rest stays due",
    "stopped": "somebody stopped it, the rest stays due",
    "lost": "the server that worked on it went away, the rest stays due",
}
MICROS: Final = 1_000_000
HOUR_MS: Final = 3_600_000
SICK: Final = ("failing", "late", "paused")


def dollars(cents: object) -> str:
    """An amount; `-` when there is none, or none that one may see."""
    return money.dollars(cents) if isinstance(cents, int) else "-"


def percent(value: object) -> str:
    """A share; `-` when there is nothing to take it of."""
    return "-" if value is None else f"{number(value):,.1f} %"


def count(value: object) -> str:
    """A number that may not be known yet."""
    return "-" if value is None else whole(value)


def mark(word: object) -> str:
    """A state, in its colour."""
    return MARKS.get(str(word), escape(str(word)))


def post(row: Json) -> str:
    """A post, as one tells it from others."""
    return escape(f"{row.get('platform')}:{row.get('postId')}")


# --- runs ---


def pace(run: Json) -> str:
    """How far a run is."""
    words = [f"{whole(run.get('processed'))} clips of at most {whole(run.get('limit'))}"]
    if run.get("failed"):
        words.append(f"{whole(run.get('failed'))} failed")
    return ", ".join([*words, f"{whole(run.get('calls'))} calls", f"{dollars(run.get('earnedCents'))} earned"])


def sentence(run: Json) -> str:
    """A run and its counts."""
    if run.get("status") == "running":
        return f"run {run.get('id')} is under way: {pace(run)}"
    seconds = run.get("averageSeconds")
    counts = [
        f"{whole(run.get('processed'))} clips",
        f"{whole(run.get('successful'))} successful, {whole(run.get('failed'))} failed ({percent(run.get('successRate'))})",
        *([] if seconds is None else [f"{number(seconds):.2f} s a clip"]),
        f"{whole(run.get('calls'))} calls, {dollars(run.get('earnedCents'))} earned",
    ]
    why = str(run.get("stopReason"))
    return f"run {run.get('id')}: {', '.join(counts)}; stopped: {why} ({STOPS.get(why, 'see its error')})"


def stopped(answer: Json) -> str:
    """A run that goes on no longer."""
    run = inner(answer, "run")
    return f"run {run.get('id')}: no further calls, {pace(run)} (audit {answer.get('auditId')})"


def linked(answer: Json) -> str:
    """Which event moves with a clip."""
    event = answer.get("eventId")
    what = "moves no event" if event is None else f"moves the event {event}"
    return f"clip {answer.get('clipId')} {what} (audit {answer.get('auditId')})"


def runs(rows: Sequence[Json]) -> Table:
    """Runs."""
    said = table(
        "run",
        "why",
        "stopped",
        "clips",
        "successful",
        "failed",
        "rate",
        "s a clip",
        "calls",
        "earned",
        "began",
        "error",
    )
    for row in rows:
        seconds = row.get("averageSeconds")
        counts = (whole(row.get(name)) for name in ("processed", "successful", "failed"))
        said.add_row(
            str(row.get("id")),
            str(row.get("occasion")),
            mark(row.get("stopReason") or row.get("status")),
            *counts,
            percent(row.get("successRate")),
            "-" if seconds is None else f"{number(seconds):.2f}",
            whole(row.get("calls")),
            dollars(row.get("earnedCents")),
            moment(row.get("startedAtMs")),
            escape(str(row.get("error") or "")),
        )
    return said


def failed(rows: Sequence[Json]) -> Table:
    """Clips that could not be read."""
    said = table("id", "clip", "post", "reason", "tried", "again at", "since", "error")
    for row in rows:
        again = moment(row.get("nextAttemptAtMs")) if row.get("nextAttemptAtMs") else "-"
        names = (str(row.get("id")), str(row.get("clipId")), post(row), escape(str(row.get("reason"))))
        error = escape(str(row.get("error") or ""))
        said.add_row(*names, whole(row.get("attempts")), again, moment(row.get("firstAtMs")), error)
    return said


def retried(answer: Json) -> str:
    """A clip that is looked at again."""
    row = inner(answer, "failed")
    return f"clip {row.get('clipId')} ({row.get('platform')}:{row.get('postId')}) is due now (audit {answer.get('auditId')})"


def held(rows: Sequence[Json]) -> Table:
    """Counts that rose by more than anybody would believe unseen."""
    said = table("id", "clip", "post", "views", "before", "times", "observed", "address")
    for row in rows:
        before = number(row.get("before"))
        times = f"x{number(row.get('views')) / before:,.0f}" if before else "-"
        names = (str(row.get("observationId")), str(row.get("clipId")), post(row))
        counts = (whole(row.get("views")), count(row.get("before")), times)
        said.add_row(*names, *counts, moment(row.get("atMs")), escape(str(row.get("url"))))
    return said


# --- how it is ---


def health(answer: Json) -> None:
    """Success, quota, provider, loops."""
    last = answer.get("lastRunAtMs")
    counts = f"{whole(answer.get('successful'))} of {whole(answer.get('processed'))} clips in {whole(answer.get('runs'))} runs"
    out.print(f"{mark(answer.get('status'))}: {percent(answer.get('successRate'))} successful in 24 h ({counts})")
    out.print(f"last run: {'never' if last is None else moment(last)}", markup=False)
    out.print(quota(inner(answer, "quota")), markup=False)
    ready = "a token is set" if inner(answer, "provider").get("configured") else "no token is set (APIFY_TOKEN)"
    out.print(f"provider: {ready}", markup=False)
    sick = [
        f"{one.get('name')} is {one.get('health')}" for one in rows_of(answer, "loops") if one.get("health") in SICK
    ]
    out.print(f"loops: {', '.join(sick) or 'all well'}", markup=False)


def quota(row: Json) -> str:
    """What of a month's calls is used, and will be."""
    used = f"{whole(row.get('used'))} of {count(row.get('limit'))} calls ({percent(row.get('percent'))})"
    ahead = f"{count(row.get('projected'))} by its end ({percent(row.get('projectedPercent'))})"
    return f"quota of {row.get('month')}: {used}, {ahead}"


def plan(answer: Json) -> None:
    """What so many clips need, what runs can do, and which plan is enough."""
    given, runs_ = inner(answer, "given"), inner(answer, "capacity")
    out.print(
        f"{whole(given.get('clipsPerWeek'))} clips a week that live for {whole(given.get('lifeDays'))} days: "
        f"{whole(answer.get('liveClips'))} live clips (now there are {whole(inner(answer, 'actual').get('liveClips'))})"
    )
    out.print(
        f"at {whole(given.get('checksPerDay'))} looks a day each, {whole(given.get('postsPerCall'))} in a call: "
        f"{whole(answer.get('callsPerDay'))} calls a day, {whole(answer.get('callsPerMonth'))} a month"
    )
    enough = "enough" if runs_.get("enough") else f"too few: a run would have to take {whole(runs_.get('clipsPerRun'))}"
    out.print(
        f"runs of {whole(given.get('runClips'))} clips every {_hours(given.get('runEveryMs'))}: {whole(runs_.get('perDay'))} looks a day, "
        f"{whole(runs_.get('perWeek'))} a week, of {whole(answer.get('checksPerDay'))} a day: {enough}"
    )
    out.print(_plans(rows_of(answer, "plans"), answer.get("cheapest")))
    if answer.get("cheapest") is None:
        out.print("none of the plans is enough: ask for fewer looks, or for more posts in a call")


def _hours(ms: object) -> str:
    return f"{number(ms) / HOUR_MS:g} h" if number(ms) >= HOUR_MS else every(ms)


def _plans(rows: Sequence[Json], cheapest: object) -> Table:
    said = table("plan", "calls a month", "a month", "used", "")
    for row in rows:
        words = [word for word, so in (("ours", row.get("ours")), ("the cheapest", row.get("name") == cheapest)) if so]
        enough = "[green]enough[/]" if row.get("enough") else "[red]too small[/]"
        name = escape(str(row.get("name")))
        amounts = (whole(row.get("calls")), dollars(row.get("monthlyCents")), percent(row.get("percent")))
        said.add_row(name, *amounts, ", ".join([enough, *words]))
    return said


def stats(answer: Json) -> None:
    """What calls did and cost in this month, and what waits."""
    out.print(quota(inner(answer, "quota")), markup=False)
    out.print(_actors(rows_of(answer, "actors")))
    for name in ("clips", "failed", "campaigns", "waiting"):
        words = (f"{_amount(value)} {_words(word)}" for word, value in inner(answer, name).items())
        out.print(f"{name}: {', '.join(words)}", markup=False)
    amounts = (
        f"{dollars(value)} {_words(word.removesuffix('Cents'))}" for word, value in inner(answer, "money").items()
    )
    out.print(f"money: {', '.join(amounts)}", markup=False)


def _words(name: str) -> str:
    """payoutsPending as a person writes it."""
    return re.sub("[A-Z]", lambda letter: f" {letter[0].lower()}", name)


def _amount(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else whole(value)


def _actors(rows: Sequence[Json]) -> Table:
    said = table(
        "platform", "actor", "", "calls", "posts", "successful", "failed", "rate", "s a call", "cost", "a success"
    )
    for row in rows:
        seconds, each = row.get("averageSeconds"), row.get("costPerSuccessMicros")
        said.add_row(
            str(row.get("platform")),
            escape(str(row.get("actor"))),
            "[green]used[/]" if row.get("holds") else "[yellow]gives way[/]",
            *(whole(row.get(name)) for name in ("calls", "posts", "succeeded", "failed")),
            percent(row.get("successRate")),
            "-" if seconds is None else f"{number(seconds):.2f}",
            f"${number(row.get('costMicros')) / MICROS:,.2f}",
            "-" if each is None else f"${number(each) / MICROS:.4f}",
        )
    return said


# --- campaigns, submissions, payouts ---


def campaigns(rows: Sequence[Json]) -> Table:
    """Campaigns; their money for whoever may see it."""
    said = table(
        "id",
        "name",
        "status",
        "per 1,000",
        "budget",
        "reserved",
        "spent",
        "left",
        "used",
        "submissions",
        "from",
        "created",
    )
    for row in rows:
        amounts = (dollars(row.get(name)) for name in ("budgetCents", "reservedCents", "spentCents", "leftCents"))
        said.add_row(
            str(row.get("id")),
            escape(str(row.get("name"))),
            mark(row.get("status")),
            dollars(row.get("rateCents")),
            *amounts,
            percent(row.get("spentPercent")),
            count(row.get("submissions")),
            str(row.get("baseline")),
            moment(row.get("createdAtMs")),
        )
    return said


def campaign(answer: Json) -> str:
    """A campaign that was changed."""
    row = inner(answer, "campaign")
    paid = f", {dollars(answer.get('grantedCents'))} granted" if answer.get("grantedCents") else ""
    sums = f"{dollars(row.get('spentCents'))} spent, {dollars(row.get('leftCents'))} left{paid}"
    return f"campaign {row.get('id')} {row.get('name')!r}: {row.get('status')}, {sums} (audit {answer.get('auditId')})"


def submissions(rows: Sequence[Json]) -> Table:
    """Posts in campaigns."""
    said = table(
        "id",
        "campaign",
        "clip",
        "post",
        "creator",
        "status",
        "baseline",
        "views",
        "best",
        "earned",
        "looked at",
        "post is",
    )
    for row in rows:
        counts = (count(row.get(name)) for name in ("baselineViews", "views", "bestViews"))
        seen = row.get("lastCheckedAtMs")
        said.add_row(
            str(row.get("id")),
            escape(f"{row.get('campaignId')} {row.get('campaign')}"),
            str(row.get("clipId")),
            post(row),
            escape(str(row.get("creator"))),
            mark(row.get("status")),
            *counts,
            dollars(row.get("earnedCents")),
            "never" if seen is None else moment(seen),
            str(row.get("state")),
        )
    return said


def submission(answer: Json) -> str:
    """A submission that was made or judged."""
    row = inner(answer, "submission")
    paid = f", {dollars(answer.get('grantedCents'))} granted" if answer.get("grantedCents") else ""
    what = f"{row.get('platform')}:{row.get('postId')} of {row.get('creator')} in campaign {row.get('campaignId')}"
    return (
        f"submission {row.get('id')} ({what}): {row.get('status')}{paid}{_full(answer)} (audit {answer.get('auditId')})"
    )


def verdict(answer: Json) -> str:
    """What became of a count that was held."""
    also = answer.get("also")
    more = f", with {len(also)} more of the clip" if isinstance(also, list) and also else ""
    paid = f", {dollars(answer.get('grantedCents'))} granted"
    what = f"count {answer.get('observationId')} of clip {answer.get('clipId')}"
    return f"{what}: {answer.get('state')}{more}{paid}{_full(answer)} (audit {answer.get('auditId')})"


def _full(answer: Json) -> str:
    ended = answer.get("completed")
    if not isinstance(ended, list) or not ended:
        return ""
    return f", which completed campaign {', '.join(str(one) for one in ended)}"


def payouts(rows: Sequence[Json]) -> Table:
    """Requests for payouts."""
    said = table("id", "creator", "status", "amount", "fee", "net", "transaction", "asked", "changed", "note")
    for row in rows:
        amounts = (dollars(row.get(name)) for name in ("amountCents", "feeCents", "netCents"))
        said.add_row(
            str(row.get("id")),
            escape(str(row.get("creator"))),
            mark(row.get("status")),
            *amounts,
            escape(str(row.get("transactionId") or "-")),
            moment(row.get("createdAtMs")),
            moment(row.get("changedAtMs")),
            escape(str(row.get("note") or "")),
        )
    return said


def payout(answer: Json) -> str:
    """A request that was made or turned."""
    row = inner(answer, "payout")
    net = "" if row.get("netCents") is None else f", {dollars(row.get('netCents'))} after fees"
    paid = f", transaction {row['transactionId']}" if row.get("transactionId") else ""
    amount = f"{dollars(row.get('amountCents'))}{net}{paid}"
    return (
        f"payout {row.get('id')} of {row.get('creator')}: {row.get('status')}, {amount} (audit {answer.get('auditId')})"
    )


def balance(answer: Json) -> str:
    """What a creator has earned, and what of it can be paid out."""
    words = (
        f"{dollars(answer.get('earnedCents'))} earned in all",
        f"{dollars(answer.get('payableCents'))} payable (from {dollars(answer.get('minimumCents'))} on)",
        f"{dollars(answer.get('activeCents'))} in campaigns that go on",
        f"{dollars(answer.get('requestedCents'))} asked for",
        f"{dollars(answer.get('paidCents'))} paid",
    )
    return f"{answer.get('creator')}: {', '.join(words)}"
