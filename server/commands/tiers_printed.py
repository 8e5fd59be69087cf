"""How `batchcast tiers` prints what the server answered: tables and sentences, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.markup import escape
from rich.table import Table

from server.commands.calling import Json, out
from server.commands.operating import inner, moment, number
from server.commands.printed import table, whole

TIERS: Final = ("S", "A", "B", "C", "D")
ERRORS_SHOWN: Final = 50
MARKS: Final = {"done": "[green]done[/]", "running": "[yellow]running[/]", "stopped": "[red]stopped[/]"}


def dollars(cents: object) -> str:
    """An amount; `-` when there is none."""
    return "-" if cents is None else f"${number(cents) / 100:,.0f}"


def _list(value: object) -> list[Json]:
    return value if isinstance(value, list) else []


def imported(report: Json) -> None:
    """What became of a file."""
    counts = ", ".join(f"{whole(report.get(name))} {name}" for name in ("created", "updated", "unchanged", "rejected"))
    out.print(f"{whole(report.get('rows'))} rows: {counts}", markup=False)
    errors = _list(report.get("errors"))
    if not errors:
        return
    rows = table("line", "field", "reason")
    for error in errors[:ERRORS_SHOWN]:
        rows.add_row(str(error.get("line")), str(error.get("field") or ""), escape(str(error.get("reason"))))
    out.print(rows)
    if int(number(report.get("rejected"))) > ERRORS_SHOWN:
        out.print("more with --json", markup=False)


def what(run: Json) -> str:
    """A run in a few words."""
    whom = f"tier {run['tier']}" if run.get("tier") else str(run.get("scope"))
    if run.get("person"):
        whom = f"person {run['person']}"
    return " ".join(str(part) for part in (run.get("kind"), whom, run.get("month") or "") if part)


def pace(run: Json) -> str:
    """How far and how fast."""
    words = [f"{whole(run.get('taken'))} of {whole(run.get('total'))}"]
    if run.get("rate"):
        words.append(f"{number(run.get('rate')):,.0f}/s")
    if run.get("etaMs") is not None:
        words.append(f"{number(run.get('etaMs')) / 1000:,.0f} s left")
    return ", ".join(words)


def sentence(run: Json) -> str:
    """A run and its counts."""
    names = ("done", "unchanged", "failed", "skipped")
    counts = ", ".join(f"{whole(run.get(name))} {name}" for name in names)
    slots = f", {whole(run.get('slots'))} slots" if run.get("kind") == "generate" else ""
    return f"run {run.get('id')} ({what(run)}) {run.get('status')}: {counts}{slots}"


def reasons(rows: Sequence[Json]) -> None:
    """Why people failed or were skipped."""
    if not rows:
        return
    said = table("people", "", "why")
    for row in rows:
        said.add_row(whole(row.get("people")), str(row.get("status")), escape(str(row.get("reason"))))
    out.print(said)


def runs(rows: Sequence[Json]) -> Table:
    """Runs."""
    said = table("run", "what", "status", "done", "unchanged", "failed", "skipped", "slots", "began", "people/s")
    for row in rows:
        status = str(row.get("status"))
        counts = (whole(row.get(name)) for name in ("done", "unchanged", "failed", "skipped", "slots"))
        said.add_row(
            str(row.get("id")),
            escape(what(row)),
            MARKS.get(status, status),
            *counts,
            moment(row.get("startedAtMs")),
            f"{number(row.get('rate')):,.0f}",
        )
    return said


def verified(rows: Sequence[Json]) -> None:
    """What verification found: person and rule."""
    for row in rows:
        mark = "[green]passed[/]" if row.get("passed") else "[red]failed[/]"
        name = "foundation" if row.get("tier") is None else f"tier {row['tier']} {row.get('month')}"
        found = f", {whole(row.get('violations'))} violations" if row.get("violations") else ""
        out.print(f"{name}: {mark} ({whole(row.get('people'))} people{found}, {number(row.get('seconds')):.2f} s)")
        if _list(row.get("examples")):
            out.print(_examples(_list(row.get("examples"))))


def _examples(rows: Sequence[Json]) -> Table:
    said = table("person", "name", "rule", "what")
    for row in rows:
        names = (escape(str(row.get("name") or "")), str(row.get("rule")), escape(str(row.get("detail") or "")))
        said.add_row(str(row.get("person")), *names)
    return said


def report(answer: Json) -> None:
    """The four reports."""
    out.print(_distribution(_list(answer.get("distribution"))))
    out.print(_pricing(_list(answer.get("pricing"))))
    out.print(f"month {answer.get('month')}", markup=False)
    out.print(_availability(_list(answer.get("availability"))))
    flagged = inner(answer, "flagged")
    counts = ", ".join(f"{whole(count)} {name}" for name, count in inner(flagged, "byFlag").items())
    out.print(f"flagged for review: {whole(flagged.get('total'))}" + (f" ({counts})" if counts else ""), markup=False)


def _distribution(rows: Sequence[Json]) -> Table:
    said = table("tier", "people", "share", "least slots", "most slots", "average", "")
    for row in rows:
        average = row.get("avgSlots")
        said.add_row(
            str(row.get("tier")),
            whole(row.get("people")),
            f"{number(row.get('share')) * 100:.1f} %",
            str(row.get("minSlots") or "-"),
            str(row.get("maxSlots") or "-"),
            "-" if average is None else f"{number(average):.1f}",
            f"[yellow]{escape(str(row['warning']))}[/]" if row.get("warning") else "",
        )
    return said


def _pricing(rows: Sequence[Json]) -> Table:
    said = table("tier", "people", "priced", "packages", "from", "middle", "to")
    for row in rows:
        counts = (whole(row.get(name)) for name in ("people", "priced", "packages"))
        amounts = (dollars(row.get(name)) for name in ("minCents", "medianCents", "maxCents"))
        said.add_row(str(row.get("tier")), *counts, *amounts)
    return said


def _availability(rows: Sequence[Json]) -> Table:
    said = table("tier", "people", "with slots", "slots", "per person", "rotation days")
    for row in rows:
        counts = (whole(row.get(name)) for name in ("people", "withSlots", "slots"))
        days = row.get("avgRotationDays")
        average = f"{number(row.get('avgPerPerson')):.2f}"
        said.add_row(str(row.get("tier")), *counts, average, "-" if days is None else f"{number(days):.1f}")
    return said


def state(answer: Json) -> None:
    """How far a month is."""
    people_ = inner(answer, "people")
    counts = ("active", "excluded", "missingTier", "needsReview")
    words = ", ".join(f"{whole(people_.get(name))} {label}" for name, label in zip(counts, LABELS, strict=True))
    out.print(f"{answer.get('month')}: {words}", markup=False)
    said = table("tier", "people", "run", "verified", "gate")
    for row in _list(answer.get("tiers")):
        run, verification = inner(row, "run"), inner(row, "verification")
        seen = "-" if not verification else "passed" if row.get("verified") else "failed"
        if verification.get("stale"):
            seen = "changed since"
        gate = "open" if row.get("open") else escape(str(row.get("why")))
        said.add_row(str(row.get("tier")), whole(row.get("people")), str(run.get("status") or "-"), seen, gate)
    out.print(said)
    out.print(f"next: {inner(answer, 'next').get('text')}", markup=False)


LABELS: Final = ("people", "left out", "without a tier", "for review")


def people(rows: Sequence[Json]) -> Table:
    """People and why they have their tier."""
    said = table("id", "name", "tier", "country", "slots", "flags", "why")
    for row in rows:
        flags = row.get("flags")
        said.add_row(
            str(row.get("id")),
            escape(str(row.get("name"))),
            str(row.get("tier") or "-"),
            str(row.get("country") or "-"),
            str(row.get("maxMonthlySlots") or "-"),
            ", ".join(flags) if isinstance(flags, list) else "",
            escape(str(row.get("excluded") or row.get("reason") or "")),
        )
    return said


def person(answer: Json) -> None:
    """One person."""
    facts = Table(show_header=False, box=None, pad_edge=False)
    for name in ("id", "key", "name", "tier", "source", "reason", "country", "timezone", "maxMonthlySlots", "excluded"):
        facts.add_row(name, escape("-" if answer.get(name) is None else str(answer[name])))
    for name, rating in inner(answer, "ratings").items():
        facts.add_row(name, str(rating or "-"))
    out.print(facts)
    packages = table("package", "minutes", "price", "")
    for row in _list(answer.get("packages")):
        active = "" if row.get("active") else "not offered"
        packages.add_row(str(row.get("meetingType")), str(row.get("duration")), dollars(row.get("priceCents")), active)
    out.print(packages)
    history = table("when", "from", "to", "why", "by")
    for row in _list(answer.get("history")):
        tiers = (str(row.get("from") or "-"), str(row.get("to")))
        why = (escape(str(row.get("reason"))), escape(str(row.get("who") or "")))
        history.add_row(moment(row.get("atMs")), *tiers, *why)
    out.print(history)
