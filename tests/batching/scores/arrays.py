"""A kernel.World built from plain event dicts, the slow and obvious way: what Columns keeps up to date, made at once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from server.batching.scores import kernel
from server.batching.scores import question as q
from server.batching.scores.question import Question
from server.batching.scores.score import chord2_of_km, confidence_term, popularity_term, unit_vector
from server.core.event import SHOWN, STATUSES, held_hash, visible_to
from server.core.recurrence import occurrence
from tests.batching.scores.test_ranking import as_event, as_question

Asked: TypeAlias = tuple[np.ndarray, kernel.Clauses, np.ndarray]
LEAST, GREATEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
WEIGHTS = np.array([0.25, 0.20, 0.30, 0.15, 0.10])
ZONES = [None, "UTC", "Europe/Berlin", "Asia/Kolkata", "Pacific/Auckland"]


def empty_world(capacity: int, slots: int) -> kernel.World:
    """Room for so many rows and slots; nothing in it."""
    nodes = kernel.nodes_for(capacity)
    f8 = {n: np.zeros(capacity) for n in ("latitude", "longitude", "popularity", "confidence", "base")}
    i8 = {n: np.zeros(capacity, np.int64) for n in ("start", "end", "created", "label")}
    return kernel.World(
        sizes=np.zeros(4, np.int64),
        vector=np.zeros((3, capacity)),
        state=np.zeros(capacity, np.uint8),
        zone=np.zeros(capacity, np.int32),
        slot=np.full(capacity, -1, np.int32),
        row_of=np.full(slots, -1, np.int32),
        version=np.zeros(slots, np.int64),
        mark=np.zeros(slots, np.uint64),
        first=np.zeros(kernel.MAX_LEVELS + 1, np.int64),
        box=np.zeros((nodes, 4)),
        ball=np.zeros((nodes, 4)),
        live=np.zeros(nodes, np.int32),
        best=np.zeros(nodes),
        least=np.zeros(nodes),
        **f8,
        **i8,
    )


def write(world: kernel.World, row: int, one: dict[str, Any], now: int) -> None:
    """Everything of one event but its slot and label."""
    event = as_event(one)
    start, end = event.start_ms, event.end_ms
    if event.recurrence is not None:
        found = occurrence(event.recurrence, event.start_ms, event.end_ms, event.timezone, now)
        start, end = found.start_ms, found.end_ms
    world.latitude[row], world.longitude[row] = event.latitude, event.longitude
    world.vector[:, row] = unit_vector(event.latitude, event.longitude)
    world.start[row], world.end[row], world.created[row] = start, start if end is None else end, event.created_ms
    world.popularity[row] = popularity_term(event.counts)
    world.confidence[row] = confidence_term(event.confidence)
    shown = kernel.SHOWN if event.status in SHOWN else 0
    private = kernel.PRIVATE if event.private else 0
    world.state[row] = shown | private | STATUSES.index(event.status) << kernel.STATUS_SHIFT
    world.zone[row] = ZONES.index(event.timezone)


def world_of(events: list[dict[str, Any]], now: int, tail: int = 0, holes: int = 0, room: int = 0) -> kernel.World:
    """Slot i is event i. The last `tail` events are the unsorted tail; `holes` tombstones stand among the sorted rows."""
    count = len(events)
    world = empty_world(count + holes + room, count + room)
    head = count - min(tail, count)
    order = sorted(range(head), key=lambda i: _curve(events[i]))
    places: list[int | None] = [*order]
    for hole in range(holes):
        places.insert(hole * 7 % (len(places) + 1), None)
    labels = {e["id"]: 10 * n for n, e in enumerate(sorted(events, key=lambda e: str(e["id"])))}
    for row, index in enumerate([*places, *range(head, count)]):
        write(world, row, events[index if index is not None else 0], now) if events else None
        if index is not None:
            world.slot[row], world.row_of[index] = index, row
            world.label[row] = labels[events[index]["id"]]
            version = events[index].get("version", 1)
            world.version[index], world.mark[index] = version, held_hash(events[index]["id"], version)
    world.sizes[0], world.sizes[1] = len(places), len(places) + count - head
    kernel.build(world)
    return world


def _curve(one: dict[str, Any]) -> int:
    return int(kernel.hilbert(np.array([float(one["latitude"])]), np.array([float(one["longitude"])]))[0])


def asked_of(wanted: list[dict[str, Any]], events: list[dict[str, Any]]) -> Asked:
    """Questions as they stand on the wire, compiled."""
    return compiled_questions([as_question(one) for one in wanted], events)


def compiled_questions(asked: list[Question], events: list[dict[str, Any]]) -> Asked:
    """Questions, their filters and the private slots of their users."""
    table = np.zeros(len(asked), kernel.QUESTION)
    filters, private = [], []
    for record, one in zip(table, asked, strict=True):
        view = one.viewport
        for name in ("west", "south", "east", "north"):
            record[name] = getattr(view, name)
        record["x"], record["y"], record["z"] = one.origin()
        record["limit"], record["filter"] = one.limit, -1
        if one.filters:
            record["filter"] = len(filters)
            filters.append(one.filters)
        seen = [i for i, e in enumerate(events) if e["private"] and visible_to(as_event(e), one.user)]
        record["private_first"], record["private_count"] = len(private), len(seen)
        private += seen
    return table, clauses_of(filters, events), np.array(private, np.int32)


def clauses_of(filters: list[Any], events: list[dict[str, Any]]) -> kernel.Clauses:
    """Each filter list as clauses; categories and text by bitmaps."""
    flat = [(n, one) for n, many in enumerate(filters) for one in many]
    count = len(flat)
    first = np.zeros(len(filters) + 1, np.int32)
    for n, _ in flat:
        first[n + 1 :] += 1
    out = kernel.Clauses(
        first,
        np.full(count, 255, np.uint8),
        np.full((count, 4), -1.0),
        np.full((count, len(ZONES)), LEAST),
        np.full((count, len(ZONES)), GREATEST),
        np.full((count, 2), -1, np.int32),
        np.zeros((2 * count, len(events) // 8 + 1), np.uint8),
    )
    for c, (_, one) in enumerate(flat):
        if one.status:
            out.status[c] = sum(1 << STATUSES.index(s) for s in one.status)
        if one.location is not None:
            place = one.location
            out.place[c, :3] = unit_vector(place.latitude, place.longitude)
            out.place[c, 3] = chord2_of_km(place.radius / 1000)
        if one.date_range is not None:
            for z, zone in enumerate(ZONES):
                lo, hi = one.date_range.start, one.date_range.end
                if lo is not None:
                    out.begins[c, z] = q.day_start_ms(lo, zone) if isinstance(lo, str) else lo
                if hi is not None:
                    out.ends[c, z] = q.day_start_ms(hi, zone, after=True) - 1 if isinstance(hi, str) else hi
        tests = (
            one.categories and (lambda e, one=one: q._categorised(one, e)),
            one.text and (lambda e, one=one: q._says(one.text, e)),
        )
        for t, test in enumerate(tests):
            if test:
                out.bitmap[c, t] = 2 * c + t
                for slot, e in enumerate(events):
                    if test(as_event(e)):
                        out.bits[2 * c + t, slot >> 3] |= 1 << (slot & 7)
    return out
