"""The live feed's work under way, as gauges: what each counts is zero again as soon as nobody has anything left to do.

A number that stays above zero while the server rests is a leak, so a test that has done its worst looks at all of them.
They are counted when somebody scrapes; the only ones that cost more than a look are those that ask each viewer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from server.batching.scores.desk import Desk
from server.batching.scores.engine import Engine
from server.batching.scores.ingest import Writer

GAUGES: Final[Mapping[str, str]] = {
    "pending": "events whose popularity waits for a flush",
    "frames_waiting": "viewers one of whose frames has not left yet",
    "frames_owed": "viewers that missed a frame while another waited",
    "answers_expected": "viewers for which an answer is being made",
    "changes_waiting": "published events of which viewers have not been told yet",
    "rows_waiting": "rows that wait for the writer",
    "rows_doubtful": "events in a transaction under way, or in one of which nobody knows whether it was committed",
    "drawing": "rounds of frames asked for and not handed over yet",
    "engine_waiting": "patches, questions and slices that wait for the engine",
}


class Measure(Protocol):
    """How a number gets among the server's."""

    def __call__(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Read it so when somebody scrapes."""


def measure(gauge: Measure, desk: Desk, engine: Engine, writer: Writer) -> None:
    """Put them among the server's numbers."""
    for name, read in reads(desk, engine, writer).items():
        gauge(name, GAUGES[name], read)


def reads(desk: Desk, engine: Engine, writer: Writer) -> dict[str, Callable[[], float]]:
    """How each is read."""
    audience = desk.audience
    return {
        "pending": lambda: len(desk.pending),
        "frames_waiting": lambda: sum(not viewer.outlet.free for viewer in audience),
        "frames_owed": lambda: sum(bool(viewer.owed) for viewer in audience),
        "answers_expected": lambda: sum(viewer.expecting for viewer in audience),
        "changes_waiting": lambda: len(desk.changed) + len(desk.urgent),
        "rows_waiting": lambda: writer.rows,
        "rows_doubtful": lambda: writer.doubtful,
        "drawing": lambda: engine.drawing,
        "engine_waiting": lambda: engine.waiting,
    }
