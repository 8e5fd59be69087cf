"""The oracle: the "Score" section of the protocol in plain Python, slow and obvious. The server must equal it.

It shares no code with the server: events and questions are plain dicts as they stand on the wire, times are epoch ms.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from typing import Any
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr

EARTH = 6371.0088
HOUR = 3_600_000


def great_circle_km(a_lat: float, a_lon: float, b_lat: float, b_lon: float) -> float:
    """Haversine."""
    f1, f2 = math.radians(a_lat), math.radians(b_lat)
    half = math.sin((f2 - f1) / 2) ** 2
    half += math.cos(f1) * math.cos(f2) * math.sin(math.radians(b_lon - a_lon) / 2) ** 2
    return 2 * EARTH * math.asin(min(1.0, math.sqrt(half)))


def occurrence(event: dict[str, Any], now: int) -> tuple[int, int | None]:
    start, end = event["start"], event.get("end")
    if not event.get("recurrence"):
        return start, end
    zone = ZoneInfo(event.get("timezone") or "UTC")
    first = dt.datetime.fromtimestamp(start / 1000, tz=zone).replace(tzinfo=None)
    length = None if end is None else end - start
    last = (start, end)
    for index, local in enumerate(rrulestr(event["recurrence"], dtstart=first)):
        begins = round(local.replace(tzinfo=zone).timestamp() * 1000)
        last = (begins, None if length is None else begins + length)
        running = length is not None and begins <= now < begins + length
        if running or begins >= now or index > 5000:
            return last
    return last


def terms(event: dict[str, Any], question: dict[str, Any], now: int) -> dict[str, float]:
    start, _ = occurrence(event, now)
    h = (start - now) / HOUR
    if h < 0:
        time = max(0.0, 1 + h / 24)
    elif h <= 2:
        time = 1.0
    elif h <= 24:
        time = 0.8
    elif h <= 72:
        time = 0.8 + (0.3 - 0.8) * (h - 24) / (72 - 24)
    else:
        time = 0.1
    lat, lon = origin(question)
    d = great_circle_km(lat, lon, event["latitude"], event["longitude"])
    if d <= 1:
        distance = 1.0
    elif d <= 5:
        distance = 0.8
    elif d <= 15:
        distance = 0.6
    elif d <= 50:
        distance = 0.6 + (0.2 - 0.6) * (d - 15) / (50 - 15)
    else:
        distance = 0.1
    popularity = 1 * min(event["scan"] / 10, 1) + 3 * min(event["save"] / 5, 1) + 5 * min(event["rsvp"] / 3, 1)
    age = (now - event["created"]) / HOUR
    recency = 0.1
    for bound, value in ((168, 0.3), (72, 0.5), (24, 0.7), (6, 0.9), (1, 1.0)):
        if age <= bound:
            recency = value
    confidence = 0.5 if event.get("confidence") is None else event["confidence"]
    return {
        "time": time,
        "distance": distance,
        "popularity": popularity / 9,
        "recency": recency,
        "confidence": confidence,
    }


def raw(event: dict[str, Any], question: dict[str, Any], now: int) -> float:
    t = terms(event, question, now)
    total = 0.25 * t["time"] + 0.20 * t["distance"] + 0.30 * t["popularity"]
    total += 0.15 * t["recency"] + 0.10 * t["confidence"]
    return round(total * 1e9) / 1e9


def origin(question: dict[str, Any]) -> tuple[float, float]:
    if question.get("location"):
        return question["location"]["latitude"], question["location"]["longitude"]
    v = question["viewport"]
    east = v["east"] if v["east"] > v["west"] else v["east"] + 360
    lon = (v["west"] + east) / 2
    return (v["south"] + v["north"]) / 2, lon if lon <= 180 else lon - 360


def inside(viewport: dict[str, float], lat: float, lon: float) -> bool:
    if not viewport["south"] <= lat <= viewport["north"]:
        return False
    if viewport["west"] < viewport["east"]:
        return viewport["west"] <= lon <= viewport["east"]
    return lon >= viewport["west"] or lon <= viewport["east"]


def visible(event: dict[str, Any], user: str | None) -> bool:
    if not event.get("private"):
        return True
    return user is not None and (event.get("creator") == user or user in event.get("shared", ()))


def local_day(day: str, zone: str | None) -> tuple[int, int]:
    z = ZoneInfo(zone or "UTC")
    d = dt.date.fromisoformat(day)
    begins = dt.datetime(d.year, d.month, d.day, tzinfo=z)
    n = d + dt.timedelta(days=1)
    ends = dt.datetime(n.year, n.month, n.day, tzinfo=z)
    return round(begins.timestamp() * 1000), round(ends.timestamp() * 1000)


def matches(one: dict[str, Any], event: dict[str, Any], now: int) -> bool:
    start, end = occurrence(event, now)
    end = start if end is None else end
    if one.get("status") and event["status"] not in one["status"]:
        return False
    if "categories" in one:
        have = set(event.get("categories", ()))
        include, exclude = one["categories"].get("include") or [], one["categories"].get("exclude") or []
        if (include and not have & set(include)) or have & set(exclude):
            return False
    if "location" in one:
        around = one["location"]
        d = great_circle_km(around["latitude"], around["longitude"], event["latitude"], event["longitude"])
        if d * 1000 > around["radius"]:
            return False
    if "dateRange" in one:
        lo, hi = one["dateRange"].get("start"), one["dateRange"].get("end")
        if isinstance(lo, str):
            lo = local_day(lo, event.get("timezone"))[0]
        if isinstance(hi, str):
            hi = local_day(hi, event.get("timezone"))[1] - 1
        if (lo is not None and end < lo) or (hi is not None and start > hi):
            return False
    if one.get("text"):
        hay = "\n".join(
            [event.get("title", ""), *event.get("categories", ()), event.get("description") or ""]
        ).casefold()
        if not all(word in hay for word in one["text"].casefold().split()):
            return False
    return True


def candidates(events: list[dict[str, Any]], question: dict[str, Any], now: int) -> list[dict[str, Any]]:
    found = []
    for event in events:
        start, _ = occurrence(event, now)
        if (
            visible(event, question.get("user"))
            and event["status"] in ("PENDING", "VERIFIED")
            and inside(question["viewport"], event["latitude"], event["longitude"])
            and now - 24 * HOUR <= start <= now + 30 * 24 * HOUR
            and (not question.get("filters") or any(matches(f, event, now) for f in question["filters"]))
        ):
            found.append(event)
    return found


def relative(n: int, greater: int, value: float, low: float, high: float) -> float:
    if n == 1:
        return 1.0
    p = 1 - greater / (n - 1)
    if n <= 3:
        return 0.6 + 0.4 * p
    if n <= 10:
        return 0.3 + 0.7 * p
    score = p ** (1 / min(2, 1 + n / 50))
    if high > low:
        q = min(0.3, n / 100)
        score = (1 - q) * score + q * (value - low) / (high - low)
    return float(score)


def view(
    events: list[dict[str, Any]], question: dict[str, Any], now: int, spacing_km: float = 0.5
) -> list[tuple[dict[str, Any], float]]:
    """The fresh view: (event, unrounded score), best first."""
    found = candidates(events, question, now)
    raws = {e["id"]: raw(e, question, now) for e in found}
    scored = []
    for event in found:
        greater = sum(other > raws[event["id"]] for other in raws.values())
        score = relative(len(found), greater, raws[event["id"]], min(raws.values()), max(raws.values()))
        scored.append((event, score))
    scored.sort(key=lambda pair: (-pair[1], occurrence(pair[0], now)[0], pair[0]["id"]))
    kept: list[tuple[dict[str, Any], float]] = []
    for event, score in scored:
        near = any(
            great_circle_km(event["latitude"], event["longitude"], k["latitude"], k["longitude"]) < spacing_km
            for k, _ in kept
        )
        if not near and len(kept) < question.get("maxEvents", 50):
            kept.append((event, score))
    return kept


def digest(held: dict[str, int]) -> str:
    """The digest of (id -> version)."""
    total = 0
    for event_id, version in held.items():
        total += int.from_bytes(hashlib.sha256(f"{event_id}\n{version}".encode()).digest()[:8], "big")
    return f"{total % 2**64:016x}"
