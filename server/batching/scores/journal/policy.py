"""How a simulated server would publish: the settings of batching that may be asked about. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from server.batching.scores.journal.records import Tuned
from server.batching.scores.ranking import Rules


class Pacer(Protocol):
    """An interval that follows something; what the loop `adapt` asks."""

    interval_ms: int

    def look(self, moved: int, max_batch: int, now_ms: int) -> bool:
        """So many have moved since the start; True when that asks for another interval."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One way of publishing; times in ms."""

    name: str
    interval_ms: int = 900_000
    max_batch: int = 1000
    min_gap_ms: int = 5_000
    threshold: float = 0.01
    urgent: bool = True
    """False: `priority: high` waits for the batch, too."""
    urgent_gap_ms: int = 2_000
    growth: float = 0.0
    """Popularity (0..1) gained since it was published that makes an event urgent; 0: none does."""
    pacer: Callable[[], Pacer] | None = None
    """Made anew for each run; None: the interval stays."""
    max_events: int | None = None
    """Another cut for every viewer; None: each one's own."""
    rules: Rules | None = None
    """Other weights, another window or spacing; None: those of the history."""

    @classmethod
    def of(cls, name: str, tuned: Tuned) -> Policy:
        """What a journal says was set when it began."""
        return cls(name, tuned.interval_ms, tuned.max_batch, threshold=tuned.threshold)
