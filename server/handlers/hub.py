"""Who is connected: limits at the door, topics, and the sweep that closes what has expired, stalled or flooded.

One loop sweeps all connections once a second; nobody has a timer of their own. Being over a limit at the door is answered
by HTTP 503 before the WebSocket is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, Protocol

import orjson
import structlog

from server.batching.loop import Occasion, Turn
from server.core.identity import Identity
from server.core.loopback import is_loopback
from server.edge.clock import Clock
from server.errors import FLOODING, TOKEN_EXPIRED, TOO_SLOW, Code, Refused
from server.settings import Settings

SWEEP_MS: Final = 1000

log = structlog.get_logger()


class Member(Protocol):
    """What the hub knows of a connection."""

    @property
    def who(self) -> Identity:
        """Whose it is."""

    @property
    def flooding(self) -> bool:
        """Has it sent twice its limit for ten seconds?"""

    def waiting_s(self, now: float) -> float:
        """How long its oldest frame or answer has waited."""

    def offer(self, payload: bytes) -> bool:
        """Send a hint if there is room."""

    def close(self, code: int, reason: str) -> None:
        """Begin to close it."""


class Hub:
    """The connections of this node."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._members: dict[Member, str] = {}
        self._by_key: Counter[str] = Counter()
        self._topics: dict[str, dict[Member, None]] = {}
        self.hints_dropped = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members))

    def refusal(self, key: str) -> Refused | None:
        """Why one more connection of this user or address may not come in, if so."""
        if len(self._members) >= self._settings.max_connections:
            return Refused(Code.TOO_MANY, "the server is full", limit=self._settings.max_connections)
        return self._too_many_of(key)

    def _too_many_of(self, key: str) -> Refused | None:
        if key and self._by_key[key] >= self._settings.connections_per_user:
            most = self._settings.connections_per_user
            return Refused(Code.TOO_MANY, f"at most {most} connections for {key}; close another first", limit=most)
        return None

    def add(self, member: Member, key: str) -> None:
        """A connection has come in."""
        self._members[member] = key
        self._by_key[key] += 1

    def rename(self, member: Member, key: str) -> None:
        """It has become somebody else's; Refused when that user has too many."""
        if self._members[member] == key:
            return
        refusal = self._too_many_of(key)
        if refusal is not None:
            raise refusal
        self._forget(self._members[member])
        self._members[member] = key
        self._by_key[key] += 1

    def remove(self, member: Member) -> None:
        """It is gone."""
        key = self._members.pop(member, None)
        if key is not None:
            self._forget(key)
        for followers in self._topics.values():
            followers.pop(member, None)

    def _forget(self, key: str) -> None:
        self._by_key[key] -= 1
        if not self._by_key[key]:
            del self._by_key[key]

    def follow(self, member: Member, topic: str, *, on: bool) -> None:
        """Send the topic's messages to this connection, or no more."""
        followers = self._topics.setdefault(topic, {})
        if on:
            followers[member] = None
        else:
            followers.pop(member, None)

    def publish(self, topic: str, message: dict[str, object]) -> int:
        """A message to all who follow a topic; where there is no room it is dropped and counted. Returns how many got it."""
        payload = orjson.dumps(message)
        sent = [member.offer(payload) for member in list(self._topics.get(topic, ()))]
        self.hints_dropped += sent.count(False)
        return sent.count(True)

    async def sweep(self, occasion: Occasion) -> Turn:
        """Close what has expired, stalled or flooded."""
        now, closed = self._clock.monotonic(), 0
        slow_s = self._settings.slow_client_timeout_ms / 1000
        for member in self:
            code = _verdict(member, now, occasion.now_ms, slow_s)
            if code is not None:
                closed += 1
                member.close(code, _REASONS[code])
        return Turn(closed, closed)


_REASONS: Final = {
    TOKEN_EXPIRED: "the token has expired; come back with a new one",
    TOO_SLOW: "a frame waited too long; come back when you can read faster",
    FLOODING: "twice the message limit for ten seconds",
}


def _verdict(member: Member, now: float, now_ms: int, slow_s: float) -> int | None:
    expires = member.who.expires_ms
    if expires is not None and expires <= now_ms:
        return TOKEN_EXPIRED
    if member.waiting_s(now) > slow_s:
        return TOO_SLOW
    return FLOODING if member.flooding else None


def key_of(who: Identity, address: str) -> str:
    """What the limit per user counts: the user, else the address, else (anonymous on loopback) nothing."""
    if who.user is not None:
        return f"user {who.user}"
    return "" if is_loopback(address) else f"address {address}"
