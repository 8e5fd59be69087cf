"""Which clips a run takes, said slowly: one clip after the other is asked for, and each time all of them are looked through.

Clips are plain dictionaries; hours are exact fractions. Nothing of the server is used.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

Clip = dict[str, Any]


def hours(span: dt.timedelta) -> Fraction:
    return Fraction(span.days * 86_400_000_000 + span.seconds * 1_000_000 + span.microseconds, 3_600_000_000)


def score(clip: Clip, now: dt.datetime) -> Fraction:
    """Hours since the last look, by how long ago it was, and half as much again for a new campaign."""
    if clip["last_checked_at"] is None:
        points = Fraction(999)
    else:
        points = hours(now - clip["last_checked_at"])
        if points >= 8:
            points *= 2
        elif points < 4:
            points /= 2
    began = clip["newest_campaign_at"]
    if began is not None and hours(now - began) < 7 * 24:
        points *= Fraction(3, 2)
    return points


def may(clip: Clip, now: dt.datetime) -> bool:
    """Is it needed, readable, due, and nobody's?"""
    if clip["tracked"] == "none" or clip["state"] != "ok":
        return False
    if clip["next_due_at"] > now:
        return False
    return clip["lease_until"] is None or clip["lease_until"] <= now


def before(one: Clip, other: Clip, now: dt.datetime) -> bool:
    """Is the one more urgent?"""
    if one["tracked"] != other["tracked"]:
        return bool(one["tracked"] == "active")
    never = one["last_checked_at"] is None, other["last_checked_at"] is None
    if never[0] != never[1]:
        return never[0]
    points = score(one, now), score(other, now)
    if points[0] != points[1]:
        return points[0] > points[1]
    since = one["last_checked_at"] or one["created_at"], other["last_checked_at"] or other["created_at"]
    if since[0] != since[1]:
        return bool(since[0] < since[1])
    return bool(one["id"] < other["id"])


def most_urgent(clips: Sequence[Clip], now: dt.datetime, limit: int) -> list[int]:
    """The ids that a run of so many takes, in order."""
    left, taken = [clip for clip in clips if may(clip, now)], []
    while left and len(taken) < limit:
        best = left[0]
        for clip in left:
            if before(clip, best, now):
                best = clip
        taken.append(int(best["id"]))
        left.remove(best)
    return taken
