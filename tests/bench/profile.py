"""`make bench-profile`: where the time of a flush goes, stage by stage, as a table.

The functions that a stage consists of are wrapped while it is measured; a stage's time is its own, without that of stages
called from it, and what belongs to none is said as `the rest`. A function that no longer exists under its name is listed,
so that a stage never goes missing unseen. What wrapping costs is measured and taken off; the whole is printed without it, too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.bench import crowds, report
from tests.bench.ours import Flush
from tests.bench.stopwatch import calibrated, wrapped
from tests.bench.suite import SEED, Run, measure

STAGES: Final[Mapping[str, Sequence[str]]] = {
    "patches: counters published": ("columns:Columns.publish", "kernel:patch", "columns:Columns.take_dirty"),
    "prepare: base scores of all events": ("kernel:prepare",),
    "sights: who is looked at, equal ones found": ("views:_Round.add",),
    "questions compiled": ("predicates:Compiler.questions",),
    "rank": ("kernel:rank",),
    "what is held gathered": ("lookout:Lookout.compare",),
    "diff": ("kernel:diff",),
    "marks and bodies": ("columns:Columns.ensure_marks", "columns:Columns.body", "views:_Press._closed"),
    "frames: put together": ("views:_Press.outcomes", "frames:batch_update", "views:_draft"),
    "hand-over": ("views:deliver",),
}
"""By stage: its functions, as stopwatch.wrapped wants them."""
REST: Final = "the rest"
ROUNDS: Final = 15


def profiled(world: Flush, pending: int, rounds: int = ROUNDS) -> tuple[dict[str, float], dict[str, int], list[str]]:
    """Median microseconds and calls of each stage of a flush, and what was not found."""
    found: dict[str, list[float]] = {stage: [] for stage in (*STAGES, REST)}
    calls: dict[str, int] = {}
    missing: list[str] = []
    for _ in range(rounds):
        world.change(pending)
        watch = calibrated()
        with wrapped(watch, STAGES) as gone:
            watch.around(REST, world.flush)()
        for stage in found:
            found[stage].append(watch.own[stage] / 1e3)
        calls, missing = dict(watch.calls), gone
    return {stage: statistics.median(times) for stage, times in found.items()}, calls, missing


def table(times: Mapping[str, float], calls: Mapping[str, int], viewers: int) -> Table:
    """The stages."""
    total = sum(times.values())
    made = Table(title=f"a flush: {viewers:,} viewers x 10,000 events, 1,000 pending (medians of {ROUNDS})")
    for heading in ("stage", "us", "share", "us a viewer", "calls"):
        made.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, micros in times.items():
        numbers = (f"{micros:,.0f}", f"{micros / total:.1%}", f"{micros / viewers:.2f}", f"{calls.get(stage, 0):,}")
        made.add_row(stage, *numbers)
    made.add_row("[bold]all[/bold]", f"{total:,.0f}", "", f"{total / viewers:.2f}", "")
    return made


def main(arguments: list[str]) -> int:
    """Print it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument("--small", action="store_true", help="few viewers, to try it out")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args(arguments)
    viewers = 50 if given.small else 1000
    crowd, views = crowds.square(given.seed, 10_000, viewers, 0.05)
    world = Flush(crowd, views, given.seed)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{report.machine()}\nseed {given.seed}")
    plain = measure({"flush": Run(world.flush, before=lambda: world.change(1000))}, ROUNDS)["flush"]
    times, calls, missing = profiled(world, 1000)
    console.print(table(times, calls, viewers))
    console.print(
        f"the same without the stopwatch: {plain.seconds * 1e6:,.0f} us CPU, at the least {plain.least * 1e6:,.0f}"
    )
    if missing:
        console.print(f"not found, so counted elsewhere: {', '.join(missing)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
