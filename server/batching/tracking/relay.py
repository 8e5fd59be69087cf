"""What has changed in tracking, told to those who follow the topic `tracking` (../hints.py), with how far the newest run is.

hints = tell(parts, follow, read_run)       its loop `tracking-tell` on the panel, the topic on the bus
hints.note("campaigns", "submissions")      committed: these have changed
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, TypeAlias, get_args

from server.batching.hints import GAP_MS, Hints, News
from server.batching.loop import Loop
from server.batching.parts import Follow, Parts

Area: TypeAlias = Literal["runs", "campaigns", "submissions", "held", "payouts", "failed"]
AREAS: Final[tuple[Area, ...]] = get_args(Area)
TOPIC: Final = "tracking"
TELL: Final = "tracking-tell"

ReadRun: TypeAlias = Callable[[], Awaitable[Mapping[str, object] | None]]
"""The newest run, as its followers see it."""


def tell(parts: Parts, follow: Follow, read_run: ReadRun) -> Hints:
    """One node's end of the topic."""

    async def more(news: News) -> Mapping[str, object]:
        return {"run": await read_run() if "runs" in news.areas else None}

    hints = Hints(TOPIC, AREAS, db=parts.db, bus=parts.bus, clock=parts.clock, follow=follow, more=more)
    loop = Loop(TELL, hints.turn, clock=parts.clock, record=parts.record, min_gap_ms=GAP_MS)
    hints.woken = parts.panel.add(loop, fold=True).wake
    parts.bus.subscribe([TOPIC], hints.heard, lost=hints.lost)
    return hints
