"""Times functions by wrapping them where they are found: own time and calls of each stage that they belong to."""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

PACKAGE: Final = "server.batching.scores."
"""Names of functions are module:name below it."""
TRIALS: Final = 20
CALLS: Final = 500


class Stopwatch:
    """Own CPU time (ns, of this thread) and calls of each stage, less what the wrapping costs: inside what it wraps, and
    outside of it, in the caller."""

    def __init__(self, clock: Callable[[], int] = time.thread_time_ns, inside: int = 0, outside: int = 0) -> None:
        self._clock = clock
        self._inside, self._outside = inside, outside
        self._below: list[int] = []
        self.own: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def around(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""
        clock, below, own, calls = self._clock, self._below, self.own, self.calls
        inside, outside = self._inside, self._outside

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            below.append(0)
            began = clock()
            try:
                return function(*arguments, **named)
            finally:
                spent = clock() - began
                own[stage] += spent - below.pop() - inside
                calls[stage] += 1
                if below:
                    below[-1] += spent + outside

        return timed


def calibrated() -> Stopwatch:
    """One that knows what wrapping costs on this machine, at the least."""
    trials = [_cost() for _ in range(TRIALS)]
    return Stopwatch(inside=min(inside for inside, _ in trials), outside=max(0, min(outside for _, outside in trials)))


def _cost() -> tuple[int, int]:
    """ns a call that are counted to the wrapped function, and to its caller."""
    watch = Stopwatch()
    nothing = watch.around("inner", _nothing)

    def calling(function: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(CALLS):
                function()

        return call

    watch.around("outer", calling(nothing))()
    watch.around("bare", calling(_nothing))()
    return watch.own["inner"] // CALLS, (watch.own["outer"] - watch.own["bare"]) // CALLS


def _nothing() -> None:
    pass


@contextmanager
def wrapped(watch: Stopwatch, stages: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Every function of every stage timed, wherever it was imported to; yields the names that were not found."""
    undo: list[tuple[Any, str, Any]] = []
    missing = []
    for stage, names in stages.items():
        for name in names:
            places = list(_places(name))
            missing += [] if places else [name]
            for owner, attribute in places:
                function = getattr(owner, attribute)
                undo.append((owner, attribute, function))
                setattr(owner, attribute, watch.around(stage, function))
    try:
        yield missing
    finally:
        for owner, attribute, function in reversed(undo):
            setattr(owner, attribute, function)


def _places(name: str) -> Iterator[tuple[Any, str]]:
    """Where a function is to be found: in its class, or in its module and all that import it by name."""
    module, _, path = name.partition(":")
    try:
        home: Any = importlib.import_module(PACKAGE + module)
    except ModuleNotFoundError:
        return
    *classes, attribute = path.split(".")
    for one in classes:
        home = getattr(home, one, None)
    function = getattr(home, attribute, None)
    if function is None:
        return
    yield home, attribute
    if not classes:
        for other in list(sys.modules.values()):
            if other is not home and getattr(other, "__dict__", {}).get(attribute) is function:
                yield other, attribute
