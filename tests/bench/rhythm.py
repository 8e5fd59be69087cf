"""Weeks of invented activity, from a seed: a daily and a weekly rhythm, bursts that nobody could foresee, a few popular events.

The shape is that of RSVPs to meetings: quiet before dawn, a bump at noon, most in the evening, more from Monday to Thursday than
at the weekend. How popular an event is follows Zipf's law. A week is `MOVES` changes of counters, one in `HIGH_IN` urgent; on top
`BURSTS` a week, each `BURST_MOVES` changes of one neighbourhood's events within `BURST_MS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from server.batching.scores.question import Question
from server.core.event import Event
from server.protocol.values import Viewport

MONDAY_MS: Final = 1_789_948_800_000
"""2026-09-21, midnight UTC."""
HOUR_MS: Final = 3_600_000
WEEK_MS: Final = 168 * HOUR_MS
BY_HOUR: Final = (4, 3, 2, 1, 1, 1, 2, 4, 6, 8, 9, 10, 12, 11, 9, 9, 10, 14, 20, 24, 22, 17, 11, 7)
BY_DAY: Final = (1.15, 1.25, 1.2, 1.15, 0.9, 0.65, 0.7)
EVENTS: Final = 1500
VIEWERS: Final = 24
MOVES: Final = 240_000
HIGH_IN: Final = 50
BURSTS: Final = 10
BURST_MOVES: Final = 1500
BURST_MS: Final = 600_000
WIDTH: Final = 0.6
"""Degrees of the square that everything lies in."""


@dataclass(frozen=True, slots=True)
class Move:
    """One more of one counter."""

    at_ms: int
    event: int
    counter: int
    high: bool


@dataclass(frozen=True, slots=True)
class World:
    """Events, who looks where, and weeks of moves in order."""

    events: Sequence[Event]
    questions: Sequence[Question]
    moves: Sequence[Move]
    began_ms: int
    until_ms: int


def world(seed: int, weeks: int, *, moves: int = MOVES, events: int = EVENTS, viewers: int = VIEWERS) -> World:
    """So many weeks from a Monday on; `moves` a week."""
    dice = np.random.default_rng(seed)
    places = dice.random((events, 2)) * WIDTH
    starts = MONDAY_MS + dice.integers(0, weeks * WEEK_MS + 3 * 24 * HOUR_MS, events)
    made = [_event(n, *places[n].tolist(), int(starts[n])) for n in range(events)]
    found = [move for week in range(weeks) for move in _week(dice, week, moves, places)]
    found.sort(key=lambda move: move.at_ms)
    return World(made, [_question(dice) for _ in range(viewers)], found, MONDAY_MS, MONDAY_MS + weeks * WEEK_MS)


def name_of(number: int) -> str:
    """The id of an event."""
    return f"e{number:05d}"


def _event(number: int, x: float, y: float, start_ms: int) -> Event:
    created = MONDAY_MS - number % 100 * HOUR_MS
    return Event(
        name_of(number), 40 + y, 10 + x, start_ms, title=f"Meeting {number}", created_ms=created, version=number + 1
    )


def _question(dice: np.random.Generator) -> Question:
    size = 0.1 + 0.3 * dice.random()
    west, south = 10 + dice.random() * (WIDTH - size), 40 + dice.random() * (WIDTH - size)
    return Question(Viewport(west=west, south=south, east=west + size, north=south + size))


def _week(dice: np.random.Generator, week: int, moves: int, places: np.ndarray) -> list[Move]:
    began = MONDAY_MS + week * WEEK_MS
    shares = np.array([day * hour for day in BY_DAY for hour in BY_HOUR], float)
    hours = dice.choice(168, moves, p=shares / shares.sum())
    times = began + hours * HOUR_MS + dice.integers(0, HOUR_MS, moves)
    ranks = 1.0 / np.arange(1, len(places) + 1)
    chosen = dice.choice(len(places), moves, p=ranks / ranks.sum())
    ordinary = zip(times.tolist(), chosen.tolist(), strict=True)
    return [_move(dice, at, event) for at, event in ordinary] + [
        move for _ in range(BURSTS) for move in _burst(dice, began, moves, places)
    ]


def _burst(dice: np.random.Generator, began: int, moves: int, places: np.ndarray) -> list[Move]:
    """Something happens somewhere: a neighbourhood's events move at once."""
    begins = began + int(dice.integers(0, WEEK_MS - BURST_MS))
    near = np.argsort(((places - dice.random(2) * WIDTH) ** 2).sum(axis=1))[:60]
    count = BURST_MOVES * moves // MOVES
    times = begins + dice.integers(0, BURST_MS, count)
    return [_move(dice, at, int(near[dice.integers(0, len(near))])) for at in times.tolist()]


def _move(dice: np.random.Generator, at_ms: int, event: int) -> Move:
    drawn = int(dice.integers(0, 12 * HIGH_IN))
    return Move(at_ms, event, 0 if drawn % 12 < 8 else 1 if drawn % 12 < 11 else 2, drawn < 12)
