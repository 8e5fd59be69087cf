"""What-if, the arithmetic: from what a sample of viewers would be sent to what all cost in an hour. Pure.

    next    the very next flush, from what each viewer holds now: exact for the sample, and for all when all are in it
    steady  a flush of many: from the view of an interval ago to that of now, with the events that moved in that interval
    hour    steady times flushes an hour times viewers over sample

A flush comes after the interval, or when MAX_BATCH_SIZE events wait, so many events make the *effective* interval shorter
than the one that is set. Counters wait for half of it on average, and never longer than all of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HOUR_MS: Final = 3_600_000
TOP: Final = 10
"""Of two views so many of the best are compared."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one viewer would be sent by one flush; no frame: nothing has changed for it."""

    bytes: int = 0
    new: int = 0
    updated: int = 0
    deleted: int = 0

    @property
    def entries(self) -> int:
        """Creates, updates and deletes."""
        return self.new + self.updated + self.deleted


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one viewer under one setting: its next frame, one of many, and the ids' numbers in its view, best first."""

    next: Sent
    steady: Sent
    view: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pulse:
    """How often flushes come: the interval as it works out (None: never), and the events that one takes.

    `lower_bound`: more may move in the interval than has been watched for."""

    interval_ms: float | None
    events: int
    lower_bound: bool = False

    @property
    def an_hour(self) -> float:
        """Flushes an hour."""
        return 0.0 if self.interval_ms is None else HOUR_MS / self.interval_ms


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the upper end of something over viewers."""

    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class NextFlush:
    """The next flush: of the sample, and as it would be of all."""

    frames: int
    bytes: int
    new_events: int
    updated_events: int
    deleted_events: int
    all_frames: int
    all_bytes: int


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour of batches, to all viewers; `bytes` are those of the messages as text."""

    flushes: float
    messages: float
    bytes: float
    messages_per_viewer: Spread
    bytes_per_viewer: Spread


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of many. `updates_per_frame`: creates, updates and deletes; `cpu_seconds`: ranking and putting together
    for all viewers, without SQL and sockets."""

    interval_ms: float | None
    events: int
    lower_bound: bool
    frames: float
    updates_per_frame: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a moved counter waits for its batch (ms)."""

    mean: float | None
    worst: float | None


@dataclass(frozen=True, slots=True)
class Side:
    """What one setting costs."""

    next: NextFlush
    hour: Hour
    batch: Batch
    staleness_ms: Waits


@dataclass(frozen=True, slots=True)
class Change:
    """What the asked setting changes in what is seen, over the sample: the fresh views of now, side by side.

    `top_overlap`: the part of the best ten that stay among them, on average."""

    viewers_differing: int
    entering: int
    leaving: int
    top_overlap: float


def sample(count: int, most: int, seed: int) -> list[int]:
    """At most so many of `count` places, ascending, the same for the same seed."""
    if count <= most:
        return list(range(count))
    chosen: set[int] = set()
    draw = 0
    while len(chosen) < most:
        text = hashlib.blake2b(b"%d/%d" % (seed, draw), digest_size=8).digest()
        chosen.add(int.from_bytes(text, "big") % count)
        draw += 1
    return sorted(chosen)


def pulse(interval_ms: int | None, moved: int, watched_ms: int, max_batch: int, gap_ms: int) -> Pulse:
    """How often flushes come when `moved` distinct events moved within the interval, of which `watched_ms` were watched."""
    if interval_ms is None:
        return Pulse(None, 0)
    if moved <= max_batch:
        return Pulse(float(interval_ms), moved, watched_ms < interval_ms)
    window = min(interval_ms, max(watched_ms, 1))
    full_ms = max(window * max_batch / moved, float(gap_ms), 1.0)
    if full_ms >= interval_ms:
        return Pulse(float(interval_ms), moved, watched_ms < interval_ms)
    return Pulse(full_ms, max(max_batch, math.ceil(moved * full_ms / window)))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them do not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> Spread:
    """Median and 95th percentile."""
    return Spread(quantile(values, 0.5), quantile(values, 0.95))


def side(costs: Sequence[Cost], beat: Pulse, viewers: int, deferred: int, cpu_s: float) -> Side:
    """What one setting costs; `costs` are those of the sample, but for `deferred` of it, whom a flush now would skip;
    `cpu_s` is what its steady frames took."""
    scale = viewers / len(costs) if costs else 0.0
    at_once = viewers / (len(costs) + deferred) if costs else 0.0
    return Side(_next(costs, at_once), _hour(costs, beat, scale), _batch(costs, beat, scale, cpu_s), waits(beat))


def _next(costs: Sequence[Cost], scale: float) -> NextFlush:
    sent = [cost.next for cost in costs]
    frames, size = sum(one.bytes > 0 for one in sent), sum(one.bytes for one in sent)
    return NextFlush(
        frames,
        size,
        sum(one.new for one in sent),
        sum(one.updated for one in sent),
        sum(one.deleted for one in sent),
        round(frames * scale),
        round(size * scale),
    )


def _hour(costs: Sequence[Cost], beat: Pulse, scale: float) -> Hour:
    messages = [beat.an_hour * (cost.steady.bytes > 0) for cost in costs]
    sizes = [beat.an_hour * cost.steady.bytes for cost in costs]
    return Hour(beat.an_hour, scale * sum(messages), scale * sum(sizes), spread(messages), spread(sizes))


def _batch(costs: Sequence[Cost], beat: Pulse, scale: float, cpu_s: float) -> Batch:
    framed = [cost.steady for cost in costs if cost.steady.bytes]
    entries = sum(one.entries for one in framed) / len(framed) if framed else 0.0
    return Batch(beat.interval_ms, beat.events, beat.lower_bound, scale * len(framed), entries, scale * cpu_s)


def waits(beat: Pulse) -> Waits:
    """How long counters wait when they move at any moment of the interval alike."""
    return Waits(None, None) if beat.interval_ms is None else Waits(beat.interval_ms / 2, beat.interval_ms)


def change(present: Sequence[Cost], asked: Sequence[Cost]) -> Change:
    """Viewer by viewer: what enters, what leaves, what stays at the top."""
    differing = entering = leaving = 0
    overlaps = []
    for before, after in zip(present, asked, strict=True):
        old, new = set(before.view), set(after.view)
        differing += before.view != after.view
        entering += len(new - old)
        leaving += len(old - new)
        overlaps.append(overlap(before.view, after.view))
    return Change(differing, entering, leaving, sum(overlaps) / len(overlaps) if overlaps else 1.0)


def overlap(before: Sequence[int], after: Sequence[int]) -> float:
    """Which part of the best ten of one view is among the best ten of the other; 1 of two empty views."""
    best = max(len(before[:TOP]), len(after[:TOP]))
    return len(set(before[:TOP]) & set(after[:TOP])) / best if best else 1.0
