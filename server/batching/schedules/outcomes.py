"""What is decided about runs at the provider and about what they failed for. Pure: values in, values out.

    intended --claimed--> starting --answered--> running --ended--> succeeded | failed | aborted | timed_out --> processed
        ^                    |  \\--refused--> refused
        |                    v  nobody knows, or we died
        '--- not there --- unknown --- found at the provider ---> running

A run is asked for once. What nobody knows is looked for at the provider (`match`), for long enough that a late start must have
shown (`grace_s`); only then is it asked for again.

A business that a run has brought nothing for waits (5 minutes), is tried alone, waits (15), is tried, waits (45), is tried, and
has then failed. A run that somebody aborted says nothing against a business: what it lacks comes with the next slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from server.batching.schedules.plan import Platform, Type

State: TypeAlias = Literal[
    "intended",
    "starting",
    "unknown",
    "running",
    "succeeded",
    "failed",
    "aborted",
    "timed_out",
    "refused",
    "skipped",
]
Kind: TypeAlias = Literal["scheduled", "triggered", "retry"]

ENDED: Final[dict[str, State]] = {
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "ABORTED": "aborted",
    "TIMED-OUT": "timed_out",
}
"""The provider's words for how a run ended, and ours."""
HESITATION_S: Final = 20.0
"""A start that was claimed longer ago than this is not made any more."""
SETTLING_S: Final = 60.0
"""What the provider may take to show a run in its list, with much to spare."""
SKEW_S: Final = 300.0
"""By how much the provider's clock may be behind ours."""
ERROR_MOST: Final = 500
"""Longer error texts are cut."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """How long a business waits before each retry, and how many there are."""

    first_s: float = 300.0
    factor: float = 3.0
    retries: int = 3

    def wait_s(self, failures: int) -> float | None:
        """The wait after the `failures`-th failure (from 1); None: it was the last, the business has failed."""
        assert failures >= 1, f"a wait follows a failure, not {failures}"
        return self.first_s * self.factor ** (failures - 1) if failures <= self.retries else None

    @property
    def after_retries(self) -> list[float | None]:
        """The wait after a retry that failed, by how many were started by then."""
        return [self.wait_s(started + 1) for started in range(self.retries + 1)]


@dataclass(frozen=True, slots=True)
class Intent:
    """A run that is to be started, or was: what of it everybody needs."""

    id: int
    key: str
    kind: Kind
    platform: Platform
    type: Type
    identifiers: tuple[str, ...] = ()
    schedule_id: int | None = None
    business_id: int | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """A run in the provider's list, with what it was started with."""

    run_id: str
    input: object


def stale_s(call_s: float) -> float:
    """A start without an answer after this has lost its process: it was made before, if at all, and a call lasts `call_s`."""
    return HESITATION_S + call_s + SETTLING_S


def grace_s(call_s: float) -> float:
    """A start of which nobody knows is in the provider's list after this, or was not taken."""
    return 2 * stale_s(call_s)


def match(wanted: Sequence[tuple[int, Mapping[str, object]]], seen: Sequence[Seen]) -> dict[int, str]:
    """Which run belongs to which intent: (intent, input) -> run, each run once, the oldest to the oldest.

    Runs of the same input are one as good as the other. An input that differs in numbers alone is taken when nothing better
    is there: limits may have been set anew since."""
    left = list(seen)
    found: dict[int, str] = {}
    for same in (_equal, _alike):
        for intent, run_input in wanted:
            one = next((run for run in left if same(run_input, run.input)), None)
            if intent not in found and one is not None:
                found[intent] = one.run_id
                left.remove(one)
    return found


def _equal(ours: Mapping[str, object], theirs: object) -> bool:
    return ours == theirs


def _alike(ours: Mapping[str, object], theirs: object) -> bool:
    return isinstance(theirs, Mapping) and _words(ours) == _words(theirs)


def _words(value: Mapping[str, object]) -> dict[str, object]:
    return {name: part for name, part in value.items() if not isinstance(part, int | float)}


def fails(kind: Kind, state: State) -> bool:
    """Does what this ended run lacks count against the businesses? A retry that was aborted has not brought anything either."""
    return state != "aborted" or kind == "retry"


def why(state: State, message: str | None = None) -> str:
    """What is noted with a business that a run has brought nothing for."""
    text = {
        "succeeded": "the run has ended well and brought nothing for it",
        "failed": "the run has failed",
        "aborted": "the run was aborted",
        "timed_out": "the run has timed out",
        "refused": "the provider has refused the run",
    }.get(state, f"the run has ended ({state})")
    return f"{text}: {message}"[:ERROR_MOST] if message else text
