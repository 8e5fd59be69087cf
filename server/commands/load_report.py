"""What `batchcast load` found, as figures, as JSON and as a table. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from server.commands.printed import table

SHARES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of some measured values; None: there were none. In the unit of what was measured."""

    count: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One run. Seconds are of the measured time, after the ramp-up; latencies are in ms."""

    viewers: int
    connected: int
    failed: Mapping[str, int]
    lost: Mapping[str, int]
    connects_per_second: float
    ramp_seconds: float
    seconds: float
    updates_sent: int
    updates_acked: int
    updates_per_second: float
    unanswered: int
    latency_high_ms: Quantiles
    latency_batch_ms: Quantiles
    ack_ms: Quantiles
    frames: Mapping[str, int]
    frames_per_second: float
    bytes: int
    batch_entries: Quantiles
    batch_bytes: Quantiles
    digests_checked: int
    divergences: int
    first_divergence: str | None
    errors: Mapping[str, int]
    client_cpu_seconds: float
    server_cpu_seconds: float | None
    events: int
    interrupted: bool
    seed: int

    @property
    def good(self) -> bool:
        """Did every viewer connect, stay, and hold what the server says it holds?"""
        return not (self.divergences or self.failed or self.lost)


def quantiles(values: Sequence[float], count: int, factor: float = 1.0) -> Quantiles:
    """Of the values that were kept, out of `count`; each the smallest that its share does not exceed."""
    if not values:
        return Quantiles(count)
    ordered = sorted(values)
    found = [ordered[max(0, math.ceil(share * len(ordered)) - 1)] * factor for _, share in SHARES]
    return Quantiles(count, *(round(value, 3) for value in found))


def said(report: Report) -> Table:
    """The report as people read it."""
    rows = table()
    rows.show_header = False
    rows.add_column()
    rows.add_column()
    for name, text in _lines(report):
        rows.add_row(name, text)
    return rows


def _lines(r: Report) -> list[tuple[str, str]]:
    server = "not told (no /metrics)" if r.server_cpu_seconds is None else _cpu(r.server_cpu_seconds, r.seconds)
    return [
        ("viewers", f"{r.connected:,} of {r.viewers:,} connected, {r.connects_per_second:,.0f}/s{_counts(r.failed)}"),
        ("measured", f"{r.seconds:.1f} s after a ramp of {r.ramp_seconds:.1f} s, seed {r.seed}" + _cut(r)),
        ("updates", f"{r.updates_sent:,} sent, {r.updates_per_second:,.0f}/s; {r.unanswered:,} unanswered"),
        ("ack", _times(r.ack_ms)),
        ("sent -> seen, priority high", _times(r.latency_high_ms)),
        ("sent -> seen, in a batch", _times(r.latency_batch_ms)),
        ("frames", f"{sum(r.frames.values()):,}, {r.frames_per_second:,.0f}/s{_counts(r.frames)}"),
        ("bytes", f"{r.bytes / MIB:,.1f} MiB"),
        ("changes a batch", _numbers(r.batch_entries)),
        ("bytes a batch", _numbers(r.batch_bytes)),
        ("digests", f"{r.digests_checked:,} checked, {r.divergences:,} differ" + _first(r)),
        ("errors", _counts(r.errors).lstrip(" (").rstrip(")") or "none"),
        ("connections lost", _counts(r.lost).lstrip(" (").rstrip(")") or "none"),
        ("CPU of this client", _cpu(r.client_cpu_seconds, r.seconds)),
        ("CPU of the server", server),
    ]


def _cut(r: Report) -> str:
    return "; interrupted" if r.interrupted else ""


def _first(r: Report) -> str:
    return "" if r.first_divergence is None else f"; the first: {r.first_divergence}"


def _counts(counts: Mapping[str, int]) -> str:
    named = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
    return f" ({named})" if named else ""


def _times(found: Quantiles) -> str:
    if found.p50 is None:
        return "none measured"
    return (
        f"p50 {found.p50:,.1f}, p95 {found.p95:,.1f}, p99 {found.p99:,.1f}, max {found.max:,.1f} ms of {found.count:,}"
    )


def _numbers(found: Quantiles) -> str:
    if found.p50 is None:
        return "none came"
    return f"p50 {found.p50:,.0f}, p95 {found.p95:,.0f}, max {found.max:,.0f} of {found.count:,}"


def _cpu(seconds: float, of: float) -> str:
    return f"{seconds:.2f} s" + (f", {seconds / of:.0%} of a core" if of > 0 else "")
