"""`python -m tests.bench [SUITE] [--small] [--seed N]`: runs the benches, prints the table, writes build/bench.json.

Exits 1 when a row falls short of its bar or could not be measured, 2 when there is no such suite.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench import calibration, report
from tests.bench.suite import SEED, Bench, Context, Row, Suite

ROOT: Final = Path(__file__).resolve().parents[2]
SUITES: Final[Mapping[str, tuple[str, ...]]] = {
    "engine": ("bench_engine", "bench_delivery", "bench_ingest", "bench_server"),
    "imports": ("bench_imports",),
    "schedules": ("bench_schedules",),
    "tiers": ("bench_tiers",),
    "tracking": ("bench_tracking",),
    "policies": ("bench_policies",),
    "cluster": ("bench_cluster",),
}
"""By suite: its files in this folder. Those that don't exist yet are passed over."""


def benches_of(suite: str) -> list[Bench]:
    """The benches of one suite, in order."""
    names = [f"tests.bench.{name}" for name in SUITES[suite]]
    return [bench for name in names if importlib.util.find_spec(name) for bench in _benches_in(name)]


def _benches_in(module: str) -> Sequence[Bench]:
    """A file that cannot be imported costs its own benches only."""
    try:
        return importlib.import_module(module).BENCHES  # type: ignore[no-any-return]
    except Exception as error:
        return (_broken(module, error),)


def _broken(module: str, error: Exception) -> Bench:
    def broken(context: Context) -> Iterator[Row]:
        raise error
        yield

    broken.__name__ = module.rpartition(".")[2]
    return broken


def main(arguments: list[str]) -> int:
    """Run; the exit code."""
    given = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and clients started here are taken down
    console = Console(width=None if sys.stdout.isatty() else 160)
    chosen = [given.suite] if given.suite else list(SUITES)
    benches = [b for suite in chosen for b in benches_of(suite) if not given.bench or b.__name__ in given.bench]
    if not benches:
        console.print(f"there is no bench in {', '.join(chosen)} yet")
        return 2
    console.print(f"{report.machine()}\nseed {given.seed}{' (small: no bar is judged)' if given.small else ''}")
    calibrated = calibration.Calibration()
    context = Context(ROOT / "build" / "bench", given.seed, given.small)
    context.folder.mkdir(parents=True, exist_ok=True)
    suite = Suite(context, calibrated.factor, lambda judged: report.line(console, judged))
    for bench in benches:
        suite.run(bench)
    suite.add(calibration_row(calibrated))
    console.print(report.table(suite.rows))
    report.save(suite.rows, ROOT / "build" / ("bench-small.json" if given.small else "bench.json"))
    return suite.exit_code


def calibration_row(calibrated: calibration.Calibration) -> Row:
    """How this machine compares with the recorded one; bars of time were stretched by it, before each bench anew."""
    return Row(
        "calibration",
        "a fixed piece of NumPy and Python work",
        calibrated.typical,
        "s",
        against={"recorded": calibration.RECORDED_S},
        note=f"recorded on {calibration.RECORDED_ON}; a slower machine has its bars of time stretched by the ratio",
    )


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("suite", nargs="?", default="", choices=["", *SUITES])
    parser.add_argument("--bench", action="append", default=[], help="only the bench of this name (may be repeated)")
    parser.add_argument("--small", action="store_true", help="tiny worlds, to try the benches out")
    parser.add_argument("--seed", type=int, default=SEED)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
