"""Who is connected: limits at the door, topics, and the sweep that closes what has expired, stalled or flooded.

One loop sweeps all connections once a second; nobody has a timer of their own. The sweep also keeps them alive: who has
said nothing for PING_INTERVAL_MS is pinged, who has said nothing for two is closed; and it cuts off who is late: a handshake that
does not come to its end, a close that is not answered. So all these times are a second coarse. Being over a limit at the door
is answered by HTTP 503 before the WebSocket is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, Protocol

import orjson
import structlog

from server.batching.loop import Occasion, Turn
from server.core.forwarded import Client
from server.core.identity import Identity
from server.core.loopback import is_loopback
from server.edge.clock import Clock
from server.errors import FLOODING, INTERNAL, TOKEN_EXPIRED, TOO_SLOW, Code, Refused
from server.settings import Settings

SWEEP_MS: Final = 1000
LATE_S: Final = 2 * SWEEP_MS / 1000
"""A sweep that comes this long after the last one closes nobody for silence: it was we who did not listen."""
SLICE: Final = 500
"""Connections looked at before others are let in between."""
AT_THE_DOOR: Final = 4096
"""Connections whose handshake or end is awaited; above, a new one is cut off unheard."""

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

    def tend(self, now: float, interval_s: float) -> bool:
        """Ping it when it is time to; True when it has been silent for too long."""


class Guest(Protocol):
    """What the hub knows of a connection that has not come in yet, or is about to go."""

    def abort(self) -> None:
        """Reset it."""


class Hub:
    """The connections of this node."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._members: dict[Member, str] = {}
        self._by_key: Counter[str] = Counter()
        self._topics: dict[str, dict[Member, None]] = {}
        self._expected: dict[Guest, float] = {}
        self._swept_at = clock.monotonic()
        self.hints_dropped = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members))

    @property
    def expected(self) -> list[Guest]:
        """Those of whom something is awaited: the end of their handshake, or their end."""
        return list(self._expected)

    @property
    def crowded(self) -> bool:
        """Is there no room at the door?"""
        return len(self._expected) >= AT_THE_DOOR

    def expect(self, guest: Guest, within_s: float) -> None:
        """It must come in, or be gone, within that time; else it is cut off."""
        self._expected[guest] = self._clock.monotonic() + within_s

    def met(self, guest: Guest) -> None:
        """What was expected has happened."""
        self._expected.pop(guest, None)

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
        for topic in [topic for topic, followers in self._topics.items() if member in followers]:
            self.follow(member, topic, on=False)

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
        if not followers:  # There are as many topics as jobs.
            del self._topics[topic]

    @property
    def topics(self) -> list[str]:
        """Those that somebody follows."""
        return list(self._topics)

    def publish(self, topic: str, message: dict[str, object]) -> int:
        """A message to all who follow a topic; where there is no room it is dropped and counted. Returns how many got it."""
        payload = orjson.dumps(message)
        sent = [member.offer(payload) for member in list(self._topics.get(topic, ()))]
        self.hints_dropped += sent.count(False)
        return sent.count(True)

    async def sweep(self, occasion: Occasion) -> Turn:
        """Close what has expired, stalled, flooded or fallen silent; cut off who is late."""
        now, closed = self._clock.monotonic(), 0
        listened, self._swept_at = now - self._swept_at < LATE_S, now
        for number, member in enumerate(self):
            code = self._verdict(member, now, occasion.now_ms, listened)
            if code is not None:
                closed += 1
                member.close(code, _REASONS[code])
            if number % SLICE == SLICE - 1:
                await self._clock.sleep(0)
        for guest in [guest for guest, until in self._expected.items() if until <= now]:
            closed += 1
            guest.abort()
        return Turn(closed, closed)

    def _verdict(self, member: Member, now: float, now_ms: int, listened: bool) -> int | None:
        expires = member.who.expires_ms
        if expires is not None and expires <= now_ms:
            return TOKEN_EXPIRED
        if member.waiting_s(now) > self._settings.slow_client_timeout_ms / 1000:
            return TOO_SLOW
        if member.flooding:
            return FLOODING
        return INTERNAL if listened and member.tend(now, self._settings.ping_interval_ms / 1000) else None


_REASONS: Final = {
    TOKEN_EXPIRED: "the token has expired; come back with a new one",
    TOO_SLOW: "a frame waited too long; come back when you can read faster",
    FLOODING: "twice the message limit for ten seconds",
    INTERNAL: "a keep-alive ping was not answered in time",
}


def key_of(who: Identity, client: Client) -> str:
    """What the limit per user counts: the user, else the address, else (anonymous on loopback, by no proxy) nothing."""
    if who.user is not None:
        return f"user {who.user}"
    return "" if is_loopback(client.address) and not client.proxied else f"address {client.address}"
