"""The published world in memory: the owner of the kernel's arrays and of each event's content.

    rows    [0, sorted)       in Hilbert order, under the tree; changed in place, never inserted into
            [sorted, used)    the tail: what is new or has moved since the last merge
            slot -1           a tombstone: what was removed, or moved to the tail
    slots   an event's number for as long as anybody may remember it; `row_of[slot]` is where it stands, -1 when it is gone

`put`, `publish` and `remove` change one event in microseconds. `merge` takes the tail and the tombstones into the sorted part;
it renumbers rows, so its owner chooses the moment (`merge_due`), unless the tail is full. Slots never move: a removed id keeps
its slot, and gets it back when it is created again, until `forget` says that nobody holds it.

Recurring events stand with the occurrence that counts now; `refresh(now)` moves on those whose time has come.

PostgreSQL is the truth and this is a copy: it can be thrown away and loaded again. Not thread-safe: one owner, the engine.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from server.batching.scores import content, kernel
from server.batching.scores.content import Content
from server.batching.scores.kernel import Bytes, Ints, Longs, Words
from server.batching.scores.labels import Labels
from server.batching.scores.rows import (
    BY_ROW,
    BY_SLOT,
    STATES,
    Copy,
    Counters,
    blank_world,
    grown,
    popularity_terms,
    rearrange,
    unit_vectors,
    with_nodes,
)
from server.batching.scores.score import confidence_term, popularity_term, unit_vector
from server.core.event import STATUSES, Counts, Event, held_hash
from server.core.recurrence import Occurrence, occurrence

if TYPE_CHECKING:
    from server.batching.scores.loading import Page

FIRST_ROWS: Final = 1024
TAIL: Final = 4096
"""Rows of the tail, which every question scans; one more merges first."""
SOME: Final = 256
"""Fewer rows in the tail, or tombstones, are not worth a merge."""
REWORDED_MOST: Final = 65_536
"""Slots noted for `take_reworded`; beyond that it says that any may have changed."""
ALWAYS_MS: Final = 1 << 62
"""Later than any occurrence."""
UTC: Final = "UTC"
_STATE_OF: Final[dict[str, int]] = dict(zip(STATUSES, STATES.tolist(), strict=True))


class Columns:
    """All published events. `world` is replaced when it grows: never keep it across a call that changes Columns."""

    def __init__(self) -> None:
        self.world = blank_world(FIRST_ROWS, FIRST_ROWS)
        self.generation = 0
        """Grows with every change, so that what was computed from an older state can be told."""
        self.merges = 0
        """Grows with every renumbering of rows."""
        self.dirty: set[int] = set()
        """Rows whose base must be computed anew, since the last `take_dirty` or merge."""
        self.zones = [UTC]
        """Names of the time zones by their index; no zone is UTC."""
        self._zone_index: dict[str | None, int] = {None: 0, UTC: 0}
        self._by_id: dict[str, int] = {}
        """Slots, also of removed ids that are remembered."""
        self._ids: list[str] = []
        self._contents: list[Content | None] = []
        self._ended: Bytes = np.zeros(FIRST_ROWS, np.uint8)
        """By slot: does the event have an end?"""
        self._worded: Longs = np.zeros(FIRST_ROWS, np.int64)
        """By slot: the version since which nothing but its counters has changed, as far as we know."""
        self._key: Words = np.zeros(FIRST_ROWS, np.uint64)
        """By sorted row: its place on the curve."""
        self._count = 0
        self._free: list[int] = []
        self._gone: set[int] = set()
        self._labels = Labels()
        self._labelled = True
        self._private = Private()
        self._turning: list[tuple[int, int]] = []
        self._turn: dict[int, int] = {}
        """By slot: when its occurrence ends to count. What stands otherwise in the heap is old."""
        self._reworded: set[int] | None = set()
        self._turned_ms = 0
        """The latest moment that has moved an occurrence on, since the last `take_turned`."""

    def __len__(self) -> int:
        """Events that exist."""
        return self._count

    # Looking.

    def slot_of(self, event_id: str) -> int | None:
        """The slot of an id, also of a removed one that is remembered."""
        return self._by_id.get(event_id)

    def exists(self, slot: int) -> bool:
        """Does the slot hold an event now?"""
        return bool(self.world.row_of[slot] >= 0)

    def id_of(self, slot: int) -> str:
        """The id, also of a removed event that is remembered."""
        return self._ids[slot]

    def ids(self) -> list[str]:
        """Of every event that exists."""
        return [event_id for slot, event_id in enumerate(self._ids) if self.exists(slot)]

    def content(self, slot: int) -> Content:
        """What the event is made of, in either form."""
        held = self._contents[slot]
        assert held is not None, "the slot is free"
        return held

    def event(self, slot: int) -> Event:
        """The event as published."""
        return content.event_of(self.content(slot))

    def body(self, slot: int) -> bytes:
        """The event's JSON without its closing brace, made once per version."""
        held = self._contents[slot] = content.encoded(self.content(slot))
        return content.body_of(held)

    def news(self, slot: int, held: int) -> bytes | None:
        """What `body` says that a connection which holds this version may not know; None: that may be anything."""
        version = self.world.version.item(slot)
        if not self._worded.item(slot) <= held <= version:
            return None
        return content.news_of(self.body(slot), self._ids[slot], version, counted=held != version)

    def words(self, slot: int) -> tuple[str, tuple[str, ...], str | None]:
        """Title, categories and description."""
        return content.words(self.content(slot))

    def mark(self, slot: int) -> int:
        """Its part of a digest."""
        mark = int(self.world.mark[slot])
        if not mark:
            mark = held_hash(self._ids[slot], int(self.world.version[slot]))
            self.world.mark[slot] = mark
        return mark

    def ensure_marks(self, slots: Ints) -> None:
        """Compute the marks of these slots where nobody has yet."""
        for slot in slots[self.world.mark[slots] == 0].tolist():
            self.mark(slot)

    def starts(self, slot: int) -> tuple[int, int | None]:
        """Start and end of the occurrence that counts, of an event that exists."""
        row = int(self.world.row_of[slot])
        assert row >= 0, "a removed event has no occurrence"
        return int(self.world.start[row]), int(self.world.end[row]) if self._ended[slot] else None

    def private_slots(self, user: str) -> Ints:
        """Slots of the private events that this user may see."""
        return self._private.slots_of(user)

    # Changing one event.

    def put(self, event: Event, now_ms: int) -> int:
        """Publish a new state of an event; its slot."""
        # What could fail on an event that should never have been let in comes before anything is changed.
        held, counting = content.of_event(event), counting_at(event, now_ms)
        self.generation += 1
        slot = self._by_id.get(event.id)
        if slot is None:
            slot = self._take_slot(event.id)
        self._gone.discard(slot)
        self._contents[slot] = held
        self._note_reworded(slot)
        row = self._place(slot, event)
        self._write(row, slot, event)
        self._turn_to(row, slot, counting)
        self.dirty.add(row)
        return slot

    def publish(self, event_id: str, counts: Counts, version: int) -> bool:
        """New counters under a new version, in place; False: the event is unknown, or the version is not newer."""
        slot, world = self._by_id.get(event_id), self.world
        if slot is None or (row := world.row_of.item(slot)) < 0 or version <= world.version.item(slot):
            return False
        self.generation += 1
        self._contents[slot] = content.with_counts(self.content(slot), counts, version)
        world.version[slot] = version
        world.mark[slot] = 0
        world.popularity[row] = popularity_term(counts)
        self.dirty.add(row)
        return True

    def exchange(self, other: Counters) -> Counters:
        """Other counters for many events that exist, at once; returns what was there, to be given back the same way."""
        world, slots, numbers = self.world, other.slots, other.slots.tolist()
        rows, contents = world.row_of[slots], self._contents
        before = Counters(
            slots,
            [contents[slot] for slot in numbers],
            world.popularity[rows],
            world.version[slots],
            world.mark[slots],
        )
        self.generation += 1
        world.popularity[rows], world.version[slots], world.mark[slots] = other.popularity, other.version, other.mark
        for slot, held in zip(numbers, other.contents, strict=True):
            contents[slot] = held
        self.dirty.update(rows.tolist())
        return before

    def remove(self, event_id: str) -> bool:
        """The event is gone; its slot and id stay until they are forgotten. False: it wasn't there."""
        slot = self._by_id.get(event_id)
        if slot is None or (row := self.world.row_of.item(slot)) < 0:
            return False
        self.generation += 1
        self._bury(slot, row)
        self._labels.remove(event_id)
        self._private.see(slot, ())
        self._turn.pop(slot, None)
        self._gone.add(slot)
        self._count -= 1
        return True

    def forget(self, held: Ints) -> int:
        """Slots of removed events that are not in `held` may be used again; how many these are."""
        gone = np.fromiter(self._gone, np.int32, len(self._gone))
        free = sorted(gone[~np.isin(gone, held)].tolist())
        for slot in free:
            del self._by_id[self._ids[slot]]
            self._ids[slot], self._contents[slot] = "", None
        self._gone.difference_update(free)
        self._free += reversed(free)
        return len(free)

    def _place(self, slot: int, event: Event) -> int:
        """The row that the event gets: its own, when it may stay there, else a new one in the tail."""
        world = self.world
        row, latitude, longitude = world.row_of.item(slot), event.latitude, event.longitude
        if row >= world.sizes[0] or (
            row >= 0 and world.latitude[row] == latitude and world.longitude[row] == longitude
        ):
            return row
        new = self._take_row()
        world, row = self.world, self.world.row_of.item(slot)
        world.slot[new] = slot
        if row >= 0:
            world.label[new] = world.label[row]
            self._bury(slot, row)
            world.row_of[slot] = new
        else:
            self._count += 1
            world.row_of[slot] = new
            self._label(event.id)
        return new

    def _write(self, row: int, slot: int, event: Event) -> None:
        """All of the row but the occurrence, the slot and the label."""
        world = self.world
        world.latitude[row], world.longitude[row] = event.latitude, event.longitude
        world.vector[0, row], world.vector[1, row], world.vector[2, row] = unit_vector(event.latitude, event.longitude)
        world.created[row] = event.created_ms
        world.popularity[row] = popularity_term(event.counts)
        world.confidence[row] = confidence_term(event.confidence)
        world.state[row] = _STATE_OF[event.status] | (kernel.PRIVATE if event.private else 0)
        world.zone[row] = self._zone(event.timezone)
        world.version[slot], world.mark[slot] = event.version, 0
        self._worded[slot] = event.version
        self._private.see(slot, viewers(event.creator_id, event.shared_with) if event.private else ())

    def _bury(self, slot: int, row: int) -> None:
        world = self.world
        world.slot[row], world.row_of[slot], world.state[row] = -1, -1, 0
        self.dirty.add(row)

    def _label(self, event_id: str) -> None:
        world = self.world
        for one, label in self._labels.insert(event_id):
            world.label[world.row_of[self._by_id[one]]] = label

    def _zone(self, name: str | None) -> int:
        found = self._zone_index.get(name)
        if found is None:
            found = self._zone_index[name] = len(self.zones)
            self.zones.append(name or UTC)
        return found

    # Notes for others.

    def take_dirty(self) -> Ints:
        """The rows whose base must be computed anew; they are noted no longer."""
        rows = np.fromiter(self.dirty, np.int32, len(self.dirty))
        self.dirty.clear()
        rows.sort()
        return rows

    def take_reworded(self) -> Ints | None:
        """Slots that were put since the last call, None: it may be any."""
        noted, self._reworded = self._reworded, set()
        return None if noted is None else np.array(sorted(noted), np.int32)

    def _note_reworded(self, slot: int) -> None:
        if self._reworded is not None:
            self._reworded.add(slot)
            if len(self._reworded) > REWORDED_MOST:
                self._reworded = None

    def take_turned(self) -> int:
        """The latest moment that `refresh` has moved an occurrence on for, since the last call; 0: none."""
        turned_ms, self._turned_ms = self._turned_ms, 0
        return turned_ms

    # Recurrence.

    def refresh(self, now_ms: int) -> None:
        """Bring recurring events to the occurrence that counts at `now_ms`."""
        while self._turning and self._turning[0][0] <= now_ms:
            until, slot = heapq.heappop(self._turning)
            if self._turn.get(slot) == until:
                self._turned_ms = max(self._turned_ms, now_ms)
                row = self.world.row_of.item(slot)
                self._turn_to(row, slot, counting_at(self.event(slot), now_ms))
                self.dirty.add(row)
                self.generation += 1

    def _turn_to(self, row: int, slot: int, counting: Occurrence) -> None:
        """Write the occurrence that counts, and note until when."""
        world, start, end = self.world, counting.start_ms, counting.end_ms
        world.start[row], world.end[row] = start, start if end is None else end
        self._ended[slot] = end is not None
        self._turn.pop(slot, None)
        if counting.until_ms is not None:
            self._turn_at(counting.until_ms, slot)

    def _turn_at(self, until_ms: int, slot: int) -> None:
        self._turn[slot] = until_ms
        heapq.heappush(self._turning, (until_ms, slot))
        if len(self._turning) > 2 * len(self._turn) + SOME:
            self._turning = [(until, slot) for slot, until in self._turn.items()]
            heapq.heapify(self._turning)

    # Many at once.

    def load(self, page: Page, now_ms: int) -> None:
        """Take in a page of events; what is known already is newer and stays. `merge` once after the last page."""
        chosen = self._fresh(page.ids)
        if not len(chosen):
            return
        self.generation += 1
        self._labelled, self._reworded = False, None
        slots = self._take_slots([page.ids[i] for i in chosen], [page.contents[i] for i in chosen])
        self._write_page(self._take_rows(slots), slots, page, np.array(chosen))
        self._count += len(chosen)
        for place in page.recurrence.keys() & chosen:
            slot = self._by_id[page.ids[place]]
            self._turn_to(self.world.row_of.item(slot), slot, counting_at(self.event(slot), now_ms))
        for place in page.people.keys() & chosen:
            self._private.see(self._by_id[page.ids[place]], viewers(*page.people[place]))

    def copied(self) -> Copy:
        """All that a later state of the world follows from: references, so that it takes a million events some milliseconds."""
        ids, contents, worded = list(self._ids), list(self._contents), self._worded[: len(self._ids)].tolist()
        return Copy(ids, contents, frozenset(self._gone), list(self._free), dict(self._turn), worded)

    def remembered(self) -> list[int]:
        """Slots of removed events that are not forgotten yet."""
        return sorted(self._gone)

    def restore(self, copy: Copy) -> None:
        """Become the columns that were copied, slot by slot. Only into empty ones: a replay's."""
        assert not self._ids, "there are events here already"
        self.generation += 1
        self._labelled, self._reworded = False, None
        count, blank = len(copy.ids), {*copy.gone, *copy.free}
        self._reserve_slots(count)
        self._ids, self._contents = list(copy.ids), list(copy.contents)
        self._by_id = {event_id: slot for slot, event_id in enumerate(copy.ids) if event_id}
        self._gone, self._free, self._count = set(copy.gone), list(copy.free), count - len(blank)
        self._take_rows(slice(0, count))
        for slot in range(count):
            if slot in blank:
                self.world.slot[slot] = self.world.row_of[slot] = -1
                continue
            event = self.event(slot)
            self._write(slot, slot, event)
            self._worded[slot] = copy.worded[slot]
            # An occurrence counts at the last moment before the one that ends it; without such an end it is the last of all.
            self._turn_to(slot, slot, counting_at(event, copy.turning.get(slot, ALWAYS_MS) - 1))
        self.merge()

    def _fresh(self, ids: Sequence[str]) -> Sequence[int]:
        """Places of the ids that are unknown."""
        if self._by_id.keys().isdisjoint(ids):
            return range(len(ids))
        return [i for i, event_id in enumerate(ids) if event_id not in self._by_id]

    def _write_page(self, rows: slice, slots: slice, page: Page, chosen: Longs) -> None:
        world = self.world
        world.latitude[rows], world.longitude[rows] = page.latitude[chosen], page.longitude[chosen]
        world.vector[:, rows] = unit_vectors(world.latitude[rows], world.longitude[rows])
        world.start[rows], world.end[rows] = page.start[chosen], page.end[chosen]
        world.created[rows] = page.created[chosen]
        world.popularity[rows] = popularity_terms(page.published[chosen])
        confidence = page.confidence[chosen]
        world.confidence[rows] = np.where(np.isnan(confidence), confidence_term(None), confidence)
        world.state[rows] = STATES[page.status[chosen]] | page.private[chosen] * np.uint8(kernel.PRIVATE)
        world.zone[rows] = self._zone_numbers(page.zones)[chosen]
        world.version[slots] = self._worded[slots] = page.version[chosen]
        self._ended[slots] = page.ends[chosen]

    def _zone_numbers(self, names: Sequence[str | None]) -> Ints:
        for name in set(names):
            self._zone(name)
        return np.fromiter(map(self._zone_index.__getitem__, names), np.int32, len(names))

    # Rows and slots.

    def _bounds(self) -> tuple[int, int]:
        """How many rows are sorted, and how many are used."""
        return self.world.sizes.item(0), self.world.sizes.item(1)

    @property
    def merge_due(self) -> bool:
        """Does a merge pay now?"""
        ordered, used = self._bounds()
        tail, dead = used - ordered, used - self._count
        return tail >= TAIL or (tail >= SOME and 8 * tail > ordered) or (dead >= SOME and 4 * dead > used)

    def merge(self) -> None:
        """Tail and tombstones into the sorted part. Rows are renumbered; every base has to be prepared anew."""
        self.merges += 1
        self.generation += 1
        if not self._labelled:
            self._label_all()
        rearrange(self.world, self._key, self._merged_order())
        self.dirty.clear()
        if kernel.NUMBA:
            self.world = with_nodes(self.world)
            kernel.build(self.world)

    def _merged_order(self) -> Longs:
        """The rows that live, as they shall stand; without the kernel nobody needs their order."""
        world, key = self.world, self._key
        ordered, used = self._bounds()
        live = np.flatnonzero(world.slot[:ordered] >= 0)
        tail = ordered + np.flatnonzero(world.slot[ordered:used] >= 0)
        if not kernel.NUMBA:
            return np.concatenate([live, tail])
        key[tail] = kernel.hilbert(world.latitude[tail], world.longitude[tail])
        tail = tail[np.argsort(key[tail], kind="stable")]
        return np.insert(live, np.searchsorted(key[live], key[tail], side="right"), tail)

    def _label_all(self) -> None:
        """Labels for all that live, from the ids alone: after a load, and only then."""
        world = self.world
        slots = np.flatnonzero(world.row_of >= 0).tolist()
        slots.sort(key=self._ids.__getitem__)
        self._labels.spread([self._ids[slot] for slot in slots])
        labels = [np.frombuffer(labels, np.int64) for _, labels in self._labels.pages()]
        world.label[world.row_of[slots]] = np.concatenate(labels)
        self._labelled = True

    def _take_row(self) -> int:
        """A new row at the end of the tail."""
        ordered, used = self._bounds()
        if used - ordered >= TAIL:
            self.merge()
            used = self.world.sizes.item(1)
        self._reserve_rows(used + 1)
        self.world.sizes[1] = used + 1
        self.world.base[used] = math.nan
        return int(used)

    def _take_rows(self, slots: slice) -> slice:
        """New rows for these slots; the tail may grow beyond its bound until the merge that follows."""
        used, count = self.world.sizes.item(1), slots.stop - slots.start
        self._reserve_rows(used + count)
        rows, world = slice(used, used + count), self.world
        world.slot[rows] = np.arange(slots.start, slots.stop)
        world.row_of[slots] = np.arange(used, used + count)
        world.base[rows] = math.nan
        world.sizes[1] = used + count
        return rows

    def _take_slot(self, event_id: str) -> int:
        if self._free:
            slot = self._free.pop()
            self._ids[slot] = event_id
        else:
            slot = len(self._ids)
            self._reserve_slots(slot + 1)
            self._ids.append(event_id)
            self._contents.append(None)
        self._by_id[event_id] = slot
        return slot

    def _take_slots(self, ids: Sequence[str], contents: Sequence[Content]) -> slice:
        first = len(self._ids)
        self._reserve_slots(first + len(ids))
        self._by_id.update(zip(ids, range(first, first + len(ids)), strict=True))
        self._ids.extend(ids)
        self._contents.extend(contents)
        return slice(first, first + len(ids))

    def _reserve_rows(self, count: int) -> None:
        size = len(self._key)
        if count > size:
            size = max(2 * size, count)
            columns = {name: grown(getattr(self.world, name), size) for name in (*BY_ROW, "vector")}
            self.world = self.world._replace(**columns)
            self._key = grown(self._key, size)

    def _reserve_slots(self, count: int) -> None:
        size = len(self._ended)
        if count > size:
            size = max(2 * size, count)
            self.world = self.world._replace(**{name: grown(getattr(self.world, name), size) for name in BY_SLOT})
            self.world.row_of[len(self._ended) :] = -1
            self._ended, self._worded = grown(self._ended, size), grown(self._worded, size)


class Private:
    """Who may see which private events, both ways."""

    def __init__(self) -> None:
        self._viewers: dict[int, tuple[str, ...]] = {}
        self._slots: dict[str, set[int]] = {}
        self._arrays: dict[str, Ints] = {}

    def see(self, slot: int, users: tuple[str, ...]) -> None:
        """From now on these users, and no others, may see the slot."""
        before = self._viewers.pop(slot, ())
        if before == users:
            if users:
                self._viewers[slot] = users
            return
        for user in before:
            self._slots[user].discard(slot)
            self._arrays.pop(user, None)
            if not self._slots[user]:
                del self._slots[user]
        for user in users:
            self._slots.setdefault(user, set()).add(slot)
            self._arrays.pop(user, None)
        if users:
            self._viewers[slot] = users

    def slots_of(self, user: str) -> Ints:
        """The slots that the user may see, ascending."""
        found = self._arrays.get(user)
        if found is None:
            slots = self._slots.get(user)
            if slots is None:
                return np.empty(0, np.int32)
            found = self._arrays[user] = np.array(sorted(slots), np.int32)
        return found


def counting_at(event: Event, now_ms: int) -> Occurrence:
    """The occurrence of the event that counts."""
    if event.recurrence is None:
        return Occurrence(event.start_ms, event.end_ms, None)
    return occurrence(event.recurrence, event.start_ms, event.end_ms, event.timezone, now_ms)


def viewers(creator: str | None, shared_with: Sequence[str]) -> tuple[str, ...]:
    """The users who may see a private event."""
    return tuple(sorted({*shared_with, *(() if creator is None else (creator,))}))
