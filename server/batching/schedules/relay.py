"""What has changed in the schedules, told to those who follow the topic `schedules`: areas, and which schedules (../hints.py)."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from server.batching.hints import Hints
from server.batching.parts import Follow
from server.edge.bus import Bus
from server.edge.clock import Clock
from server.edge.postgres import Database

Area: TypeAlias = Literal["schedules", "runs", "retries", "teams", "businesses"]
AREAS: Final[tuple[Area, ...]] = get_args(Area)
TOPIC: Final = "schedules"
TELL: Final = "schedules-tell"


def relay(db: Database, bus: Bus, clock: Clock, follow: Follow) -> Hints:
    """One node's end."""
    return Hints(TOPIC, AREAS, db=db, bus=bus, clock=clock, follow=follow, named="schedules")
