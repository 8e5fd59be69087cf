"""All loops by name, and the verbs behind every control surface.

The command line, the HTTP API, the WebSocket and the pages call these few verbs and nothing else, so they agree. One line,
`panel.add(loop)`, gives a loop its name here, its history, health, totals and metrics, run-now, pause and stop.

`start` runs every loop as a task of `Tasks`. `stop` first keeps all of them from starting another turn, so that those under
way end side by side; then it stops them in reverse order of adding, each with its last turn if it was added with one. The
ledger's own loop is therefore added first: it writes down what the others did last.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from server.batching.ledger import Cursor, Health, Ledger, LoopFacts, Metric, Page, Totals, health, metrics
from server.batching.loop import Loop, TurnRecord
from server.edge.clock import Clock
from server.edge.tasks import Tasks
from server.errors import Refused

INTERVAL_MS_AT_LEAST = 100
INTERVAL_MS_AT_MOST = 86_400_000


@dataclass(frozen=True, slots=True)
class LoopState:
    """One loop as it is now. `totals` and `turns` count since this process started."""

    name: str
    health: Health
    paused: bool
    running: bool
    led_here: bool
    interval_ms: int | None
    cron: str | None
    next_at_ms: int | None
    turns: int
    last: TurnRecord | None
    totals: Totals


class Panel:
    """The loops of this node."""

    def __init__(self, ledger: Ledger, *, clock: Clock, tasks: Tasks) -> None:
        self._ledger = ledger
        self._clock = clock
        self._tasks = tasks
        self._loops: dict[str, Loop] = {}
        self._bodies: dict[str, asyncio.Task[None]] = {}
        self._with_last_turn: set[str] = set()
        self._started = False

    def add(self, loop: Loop, *, fold: bool = False, last_turn: bool = False) -> Loop:
        """Take a loop in. `fold`: one row of history a minute; `last_turn`: one more turn when the server stops."""
        assert loop.name not in self._loops, f"there are two loops named {loop.name}"
        self._loops[loop.name] = loop
        if fold:
            self._ledger.fold(loop.name)
        if last_turn:
            self._with_last_turn.add(loop.name)
        if self._started:
            self._run(loop)
        return loop

    def start(self) -> None:
        """Run all loops, and from now on each that is added."""
        self._started = True
        for loop in self._loops.values():
            self._run(loop)

    async def stop(self) -> None:
        """End all loops: the turns under way, then the last turns, those added first last."""
        for loop in self._loops.values():
            loop.pause()
        for name, loop in reversed(self._loops.items()):
            await loop.stop(last_turn=name in self._with_last_turn)
            if name in self._bodies:
                await asyncio.wait({self._bodies[name]})

    def loop(self, name: str) -> Loop:
        """The loop of that name, for what wakes it."""
        return self._loops.get(name) or self._refuse_name(name)

    def list(self) -> Sequence[LoopState]:
        """All loops as they are now, in order of their names."""
        return [self.state(name) for name in sorted(self._loops)]

    def state(self, name: str) -> LoopState:
        """One loop as it is now."""
        loop = self.loop(name)
        records = self._ledger.recent(name)
        led_here = loop.may_run()
        facts = LoopFacts(loop.paused, led_here, loop.running_since_ms, loop.interval_ms)
        return LoopState(
            name=name,
            health=health(facts, records, self._clock.now_ms()),
            paused=loop.paused,
            running=loop.running,
            led_here=led_here,
            interval_ms=loop.interval_ms,
            cron=loop.cron,
            next_at_ms=loop.next_at_ms(),
            turns=loop.turns,
            last=records[-1] if records else None,
            totals=self._ledger.totals.get(name, Totals()),
        )

    async def history(self, name: str, limit: int = 50, before: str | None = None) -> Page:
        """A page of a loop's turns, newest first; `before` is the `next` of the page before."""
        self.loop(name)
        return await self._ledger.history(name, limit, None if before is None else Cursor.parse(before))

    async def run(self, name: str) -> TurnRecord:
        """The record of the first turn that starts after this call."""
        return await self.loop(name).run_now()

    def pause(self, name: str) -> LoopState:
        """No turn but by `run`, until `resume`."""
        self.loop(name).pause()
        return self.state(name)

    def resume(self, name: str) -> LoopState:
        """Go on."""
        self.loop(name).resume()
        return self.state(name)

    def set_interval(self, name: str, interval_ms: int) -> LoopState:
        """Another interval, from the last tick."""
        loop = self.loop(name)
        _check_interval(loop, interval_ms)
        loop.set_interval(interval_ms)
        return self.state(name)

    def metrics(self) -> Sequence[Metric]:
        """The totals of all loops that took a turn, as numbers for a monitoring system."""
        return metrics(self._ledger.totals)

    def _run(self, loop: Loop) -> None:
        self._bodies[loop.name] = self._tasks.start(f"loop {loop.name}", loop.run())

    def _refuse_name(self, name: str) -> NoReturn:
        near = get_close_matches(name, self._loops, n=3, cutoff=0.4) or sorted(self._loops)
        raise Refused("not_found", f"there is no loop named {name[:60]!r}; there is {', '.join(near) or 'none at all'}")


def _check_interval(loop: Loop, interval_ms: int) -> None:
    if loop.cron is not None:
        raise Refused("bad_message", f"the loop {loop.name} runs at the times of {loop.cron!r}, not at an interval")
    if loop.interval_ms is None:
        raise Refused("bad_message", f"the loop {loop.name} has no interval: it runs when it is woken")
    if not INTERVAL_MS_AT_LEAST <= interval_ms <= INTERVAL_MS_AT_MOST:
        bounds = f"from {INTERVAL_MS_AT_LEAST} ms to {INTERVAL_MS_AT_MOST} ms (24 h)"
        limit = INTERVAL_MS_AT_LEAST if interval_ms < INTERVAL_MS_AT_LEAST else INTERVAL_MS_AT_MOST
        raise Refused("bad_message", f"an interval goes {bounds}, not {interval_ms}", field="intervalMs", limit=limit)
