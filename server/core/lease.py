"""Arithmetic of leases: how often to renew one, how long to wait for an answer, when to look for those that ended. Pure.

A lease is time that others grant: it ends by the clock of the database, never by the holder's. So nothing in here says
whether a lease holds; it says how a holder behaves in order to keep it, and how soon others may notice that it did not.
"""

from __future__ import annotations

BEATS_A_LEASE = 3
"""Two heartbeats may be lost on the way before the lease ends."""
LOOKS_A_LEASE = 6
"""Somebody else's lease that has ended is noticed within this part of its length."""


def beat_every_s(lease_s: float) -> float:
    """The time from one heartbeat to the next."""
    assert lease_s > 0, f"a lease lasts, not {lease_s} s"
    return lease_s / BEATS_A_LEASE


def beat_limit_s(lease_s: float) -> float:
    """How long a heartbeat may take; a later answer would come too late for the one after it."""
    return beat_every_s(lease_s) * 0.9


def beat_again_s(lease_s: float) -> float:
    """The wait after a heartbeat that failed: several fit into what is left of the lease."""
    return beat_every_s(lease_s) / 10


def look_every_s(lease_s: float) -> float:
    """The time from one look for ended leases to the next."""
    return lease_s / LOOKS_A_LEASE


def noticed_within_s(lease_s: float) -> float:
    """The longest that a job of a killed worker waits for its rescue while somebody looks."""
    return lease_s + look_every_s(lease_s)
