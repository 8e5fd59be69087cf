"""Tiers: people classified, priced, planned for a month and verified by a whole server over HTTP, on its own PostgreSQL.

Rates are of the time that passes, by the runs' own stamps. Ratios are of CPU, that of the server and of PostgreSQL's
connections, so that what else the machine does spoils them less; vacuum in the background, which comes once a minute whatever
was done by then, is in the rates only.
"""

from __future__ import annotations

import datetime as dt
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from tests.bench.processes import Cpu, cpu
from tests.bench.served import Server, serving
from tests.bench.suite import Context, Row
from tests.bench.tier_people import lines

FEW: Final = 10_000
MANY: Final = 100_000
MOST: Final = 1_000_000
TIERS: Final = "SABCD"
FILE: Final = 50_000
"""People in one imported file."""
ROUNDS: Final = 3
"""Of the few, and of verifying; all else is done once."""
MONTHS_AHEAD: Final = 3
"""The month that is planned: no lead time reaches it."""
LOOK_S: Final = 0.25
CONNECTION: Final = "[local]"
"""In the command line of what serves a connection of PostgreSQL by its socket."""
MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of the work, for so many people."""

    people: int
    seconds: float
    cpu: Cpu
    lag_s: float

    @property
    def rate(self) -> float:
        """People a second."""
        return self.people / self.seconds

    def note(self) -> str:
        """Who spent how much on a person."""
        each = (x / self.people * 1e6 for x in (self.cpu.own, self.cpu.below))
        return "CPU a person: server {:.0f} us, PostgreSQL {:.0f} us".format(*each)


@dataclass(frozen=True, slots=True)
class Month:
    """Everything, once."""

    imported: Phase
    classified: Phase
    planned: Phase
    verified: Phase
    slots: int

    @property
    def lag_s(self) -> float:
        """The worst there was."""
        return max(one.lag_s for one in (self.imported, self.classified, self.planned, self.verified))


class Market:
    """A server whose people are taken through a month."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.seed = seed
        self.people = 0
        self.month = _month_ahead()

    def bring(self, people: int, rounds: int = 1) -> Month:
        """Have that many people in all, the new ones classified and planned, and everybody verified (the median of rounds)."""
        new = people - self.people
        return Month(
            imported=self._phase(new, lambda: self._import(people)),
            classified=self._phase(new, self._classify),
            planned=self._phase(new, self._plan),
            verified=sorted((self._phase(people, self._verify) for _ in range(rounds)), key=_cpu)[rounds // 2],
            slots=sum(one["slots"] for one in self.ask("GET", f"/tiers/report?month={self.month}")["availability"]),
        )

    def ask(self, method: str, path: str, body: dict[str, object] | None = None) -> Any:
        """A request as an admin."""
        return self.server.ask(method, path, None if body is None else orjson.dumps(body))

    def _phase(self, people: int, work: Callable[[], float]) -> Phase:
        self.server.worst_lag_s()
        before = cpu(self.server.pid, CONNECTION)
        seconds = work()
        spent = cpu(self.server.pid, CONNECTION) - before
        time.sleep(LOOK_S)  # the lag is looked for every 100 ms
        return Phase(people, seconds, spent, self.server.worst_lag_s())

    def _import(self, people: int) -> float:
        spent = 0.0
        for first in range(self.people, people, FILE):
            body = lines(self.seed, range(first, min(first + FILE, people)))
            began = time.monotonic()
            report = self.server.ask("POST", "/tiers/people", body, "application/x-ndjson")
            spent += time.monotonic() - began
            assert report["rejected"] == 0, report["errors"][:1]
        self.people = people
        return spent

    def _classify(self) -> float:
        return self._finished("/tiers/classify", {"mode": "new-only"})

    def _plan(self) -> float:
        """Tier after tier; the gate between two is passed by the override, as everybody is verified at the end."""
        given = {"month": self.month, "override": "a bench verifies at the end"}
        return sum(self._finished("/tiers/generate", {**given, "tier": tier}) for tier in TIERS)

    def _finished(self, path: str, body: dict[str, object]) -> float:
        """Begin a run and see it through; the seconds between its own stamps."""
        run = self.ask("POST", path, body)["run"]
        while run["status"] == "running":
            time.sleep(LOOK_S)
            run = self.ask("GET", f"/tiers/runs/{run['id']}")
        assert run["status"] == "done", run
        assert run["failed"] == 0, run
        seconds: float = (run["finishedAtMs"] - run["startedAtMs"]) / 1e3
        return seconds

    def _verify(self) -> float:
        began = time.monotonic()
        found = self.ask("POST", "/tiers/verify", {"month": self.month})
        assert found["passed"], [one["examples"][:2] for one in found["verifications"] if not one["passed"]]
        return time.monotonic() - began


def _cpu(phase: Phase) -> float:
    return phase.cpu.all


@contextmanager
def market(context: Context) -> Iterator[Market]:
    """An empty one; nothing is planned by itself."""
    with serving(TIERS_MONTHLY="false", HTTP_BODY_BYTES=1 << 30) as server:
        yield Market(server, context.seed)


def _month_ahead() -> str:
    today = dt.datetime.now(dt.UTC).date()
    years, month = divmod(12 * today.year + today.month - 1 + MONTHS_AHEAD, 12)
    return f"{years:04d}-{month + 1:02d}"


def month(context: Context) -> Iterator[Row]:
    """A month of very many people, and of a tenth of them."""
    few, many = context.size(FEW, 300), context.size(MANY, 3_000)
    small = []
    for _ in range(context.size(ROUNDS, 1)):
        with market(context) as one:
            small.append(one.bring(few, ROUNDS))
    with market(context) as one:
        large = one.bring(many, ROUNDS)
        looks = {path: _look(one, f"/tiers/{path}?month={one.month}") for path in ("state", "report")}
    yield _rate("import", "rows of an NDJSON file", large.imported, None, None)
    yield _rate("classify and price", "a tier, six packages, a country", large.classified, 5_000, 15_000)
    slots = f"one month of availability, {large.slots / many:.1f} slots each, rotations, cooldowns, pools"
    yield _rate("plan a month", slots, large.planned, 1_000, 3_000)
    yield _verified(large)
    yield from _ratios(small, large)
    yield _lag(large)
    for path, seconds in looks.items():
        yield Row(f"/tiers/{path}", f"answered for {many:,} people with a month", seconds * 1e3, "ms")


def _rate(name: str, work: str, phase: Phase, bar: float | None, goal: float | None) -> Row:
    work = f"{work}; people a second, {phase.people:,} of them, everything committed"
    return Row(f"tiers, {name}", work, phase.rate, "/s", bar, goal, more=True, machine=True, note=phase.note())


def _verified(large: Month) -> Row:
    work = f"the foundation and the month of five tiers, {large.verified.people:,} people, {large.slots:,} slots"
    return Row("tiers, verify", work, large.verified.seconds, "s", 20, 5, machine=True, note=large.verified.note())


def _ratios(small: list[Month], large: Month) -> Iterator[Row]:
    for name in ("classified", "planned", "verified"):
        few, many = [getattr(one, name) for one in small], getattr(large, name)
        spent, seconds = statistics.median(one.cpu.all for one in few), statistics.median(one.seconds for one in few)
        yield Row(
            f"tiers, {name}: ten times the people",
            f"CPU of the server and its connections, {many.people:,} people / {few[0].people:,} (median of {len(few)})",
            many.cpu.all / spent,
            "",
            12,
            10,
            note=f"time that passes: {many.seconds / seconds:.1f}; people a second {few[0].people / seconds:,.0f} and "
            f"{many.rate:,.0f}",
        )


def _lag(large: Month) -> Row:
    phases = ((name, getattr(large, name).lag_s) for name in ("imported", "classified", "planned", "verified"))
    return Row(
        "tiers, event-loop lag",
        "the worst lag of the server's event loop in all of it",
        large.lag_s * 1e3,
        "ms",
        50,
        20,
        machine=True,
        note=", ".join(f"{name} {lag_s * 1e3:.0f} ms" for name, lag_s in phases),
    )


def _look(one: Market, path: str) -> float:
    """Seconds of one answer, the median of a few."""
    found = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        one.ask("GET", path)
        found.append(time.monotonic() - began)
    return statistics.median(found)


def million(context: Context) -> Iterator[Row]:
    """The memory of a server that takes a million people through a month, against what a tenth of them took."""
    tenth, whole = context.size(MANY, 300), context.size(MOST, 3_000)
    with market(context) as one:
        one.bring(tenth)
        before = _peak(one.server.pid)
        rest = one.bring(whole)
        grown = _peak(one.server.pid) - before
    said = (f"{name} {getattr(rest, name).rate:,.0f}/s" for name in ("imported", "classified", "planned", "verified"))
    yield Row(
        "tiers, memory of a million",
        f"growth of the server's greatest resident memory from {tenth:,} to {whole:,} people, all of it done",
        grown / MEBIBYTE,
        "MiB",
        64,
        16,
        note=f"{', '.join(said)}; {before / MEBIBYTE:.0f} MiB before; worst lag {rest.lag_s * 1e3:.0f} ms",
    )


def _peak(pid: int) -> int:
    """The most that was resident of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


BENCHES: Final = (month, million)
