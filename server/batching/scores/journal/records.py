"""What a journal says, as values: the header, then what happened, in the order in which it did. Pure.

Viewers, questions and rounds are numbers; slots are those of the columns, which a replay gives out alike. Times are UTC ms.

    Drew      a round of the engine: who was looked at, how, with what question     Patched  what the published world followed
    Handed    of a round's drafts one that became true: seq, length and hash        Forgot   slots were given back
    Left      a viewer is gone                                                      Counted  accepted popularity, as stored
    Flushed   a turn of the batch                                                   Tuned    run-time settings
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

from server.batching.loop import TurnRecord
from server.batching.scores.audience import Held
from server.batching.scores.budget import PLAIN, Ages, Budget
from server.batching.scores.frame import Frame
from server.batching.scores.plan import Settled
from server.batching.scores.question import Question
from server.batching.scores.ranking import Rules
from server.batching.scores.views import Kind
from server.core.event import Counts


@dataclass(frozen=True, slots=True)
class Tuned:
    """Run-time settings from here on; the flush's interval as it runs is `interval_ms` (adaptive or not)."""

    interval_ms: int
    max_batch: int
    enabled: bool
    threshold: float


@dataclass(frozen=True, slots=True)
class Watching:
    """A viewer that was there when the file began."""

    viewer: int
    question: Question


@dataclass(frozen=True, slots=True)
class Header:
    """What the file is, and how the server stood when it began."""

    format: int
    program: str
    engine: str
    """"compiled" or "numpy"."""
    versions: Mapping[str, str]
    """Of Python, NumPy and Numba."""
    began_ms: int
    number: int
    """Of the file, since the server started."""
    first_draw: int
    events: int
    slots: int
    rules: Rules
    tuned: Tuned
    pending: tuple[str, ...]
    """Their stored counters are known from their next `Counted`, or from the patch that publishes them."""
    watching: tuple[Watching, ...]
    gone: tuple[int, ...]
    free: tuple[int, ...]
    turning: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Look:
    """One viewer in a round. What it holds, was last told and is behind with, and its `seq`: only where that doesn't follow from
    what was handed over before in this file."""

    viewer: int
    question: Question
    kind: Kind
    threshold: float | None
    reasons: bool = False
    ref: str | None = None
    claimed: tuple[tuple[str, int], ...] | None = None
    held: Held | None = None
    seq: int | None = None
    budget: Budget = PLAIN
    """Without the pause: that decides when there is a round, not what it says."""
    ages: Ages | None = None
    clusters: bool = False
    told: bytes | None = None


@dataclass(frozen=True, slots=True)
class Drew:
    """A round. `turned_ms`: the latest moment that has moved a recurring event on since the record before; 0: none."""

    draw: int
    now_ms: int
    turned_ms: int
    looks: tuple[Look, ...]


@dataclass(frozen=True, slots=True)
class Handed:
    """The draft at `place` of round `draw` became true; without a frame when nothing had changed for its viewer."""

    draw: int
    place: int
    seq: int = 0
    size: int = 0
    hash: int | None = None


@dataclass(frozen=True, slots=True)
class Patched:
    """The published world follows these, in this order."""

    now_ms: int
    turned_ms: int
    changes: tuple[Settled, ...]


@dataclass(frozen=True, slots=True)
class Forgot:
    """Of the slots of removed events only these are still remembered."""

    remembered: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """Counters of one event as a commit left them; `high`: they may not wait for the batch."""

    event_id: str
    counts: Counts
    high: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """Accepted popularity of one commit."""

    now_ms: int
    accepted: tuple[Accepted, ...]


@dataclass(frozen=True, slots=True)
class Left:
    """A viewer is sent nothing more."""

    now_ms: int
    viewer: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """A turn of the loop `scores`."""

    started_ms: int
    trigger: str
    events: int
    frames: int
    deferred: int

    @classmethod
    def of(cls, record: TurnRecord) -> Flushed:
        """Of the record of such a turn."""
        events, frames = (int(record.detail.get(name, 0)) for name in ("events", "frames"))
        return cls(record.started_at_ms, record.trigger, events, frames, record.deferred)


@dataclass(frozen=True, slots=True)
class Ended:
    """The file was ended on purpose, and why."""

    now_ms: int
    why: str


Record: TypeAlias = Drew | Handed | Patched | Forgot | Counted | Left | Flushed | Tuned | Ended


def hash_of(frame: Frame) -> int:
    """64 bits of a frame's text."""
    digest = blake2b(frame.head, digest_size=8)
    digest.update(frame.tail.body)
    return int.from_bytes(digest.digest(), "big")
