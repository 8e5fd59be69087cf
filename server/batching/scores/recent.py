"""Which events' counters have moved lately, and when last. Pure: the time is handed in.

One entry an event, the newest move last, so "how many distinct events moved within any time that ends now" is read from
the end. That is what a flush of that interval would find waiting: a hundred scans of one event are one entry of a batch.
At RECENT_MOST events the one that has rested longest is forgotten, and only the time since then is known.
"""

from __future__ import annotations

from typing import Final

RECENT_MOST: Final = 50_000
"""Some 5 MB at the bound; the ids themselves are the columns' own."""


class Recent:
    """When each event last moved."""

    def __init__(self, most: int = RECENT_MOST) -> None:
        self._most = most
        self._moved_ms: dict[str, int] = {}
        self._forgotten_ms: int | None = None

    def __len__(self) -> int:
        return len(self._moved_ms)

    def move(self, event_id: str, now_ms: int) -> None:
        """An event's counters have moved."""
        moved = self._moved_ms
        moved.pop(event_id, None)
        moved[event_id] = now_ms
        if len(moved) > self._most:
            oldest = next(iter(moved))
            self._forgotten_ms = moved.pop(oldest)

    def after(self, since_ms: int) -> list[str]:
        """The events that moved after that time, the newest first."""
        found = []
        for event_id, at_ms in reversed(self._moved_ms.items()):
            if at_ms <= since_ms:
                break
            found.append(event_id)
        return found

    def known_since(self, started_ms: int) -> int:
        """Since when every move is known, by whoever has listened since `started_ms`."""
        return started_ms if self._forgotten_ms is None else max(started_ms, self._forgotten_ms)
