"""Filters, compiled: what the kernel tests per row without Python, and bitmaps over slots for what is said in words.

Status, place and dates become numbers (`Clauses`); a bare date is a local day, so its bounds stand once per time zone.
Categories and text need an event's words, which lie encoded in its content: each such predicate has a bitmap over slots,
and a second one of the slots that it has been asked about (*known*). Only what lies in the viewports of the questions is
asked about, so a filter over a city costs the city's events once, and nothing afterwards.

Kept right: a slot that was put (new, changed, moved) is asked about again by every predicate at the next compilation, or,
when that would be many tests, is known no longer. At most PREDICATES are kept, the least recently used one goes first; a
compilation that needs more at once gets them, and they go with the next (each costs slots / 4 bytes: slice the questions).
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from server.batching.scores.columns import Columns
from server.batching.scores.kernel import FANOUT, LEAF, QUESTION, Bytes, Clauses, Flags, Ints, Longs, World
from server.batching.scores.question import Question, day_start_ms, haystack
from server.batching.scores.score import chord2_of_km, unit_vector
from server.core.event import STATUSES
from server.protocol.values import DateRange, Filter

PREDICATES: Final = 256
"""Bitmaps kept from one compilation to the next."""
COMPILED: Final = 4096
"""Filters kept compiled."""
TESTS_MOST: Final = 20_000
"""So many tests (slots put, times predicates) are made at once after changes; more are left until they are needed."""
VIEWPORTS_MOST: Final = 4096
"""Viewports noted per predicate as known; at one more they are asked about anew."""
SAID_MOST: Final = 16_384
"""Events whose words are kept decoded; at one more all are dropped."""
_EVER: Final = np.iinfo(np.int64)
_ANY_STATUS: Final = (1 << len(STATUSES)) - 1
View: TypeAlias = tuple[float, float, float, float]
Records: TypeAlias = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Said:
    """What an event says of itself."""

    categories: frozenset[str]
    hay: str


@dataclass(frozen=True, slots=True)
class Tagged:
    """A test of categories: one of `include`, when given, and none of `exclude`."""

    include: frozenset[str]
    exclude: frozenset[str]

    def holds(self, said: Said) -> bool:
        """Does the event pass?"""
        included = not self.include or not self.include.isdisjoint(said.categories)
        return included and self.exclude.isdisjoint(said.categories)

    def glance(self, held: bytes) -> bool | None:
        """What the encoded event tells without being read, in a twentieth of the time; None: read it."""
        if not self.include:
            return None if _occur(self.exclude, held) else True
        return None if _occur(self.include, held) else False


@dataclass(frozen=True, slots=True)
class Saying:
    """A test of text: all of these case-folded words."""

    words: tuple[str, ...]

    def holds(self, said: Said) -> bool:
        """Does the event pass?"""
        return all(word in said.hay for word in self.words)

    def glance(self, held: bytes) -> bool | None:
        """None: case folding needs the words."""
        return None


Predicate: TypeAlias = Tagged | Saying


def _occur(texts: Collection[str], held: bytes) -> bool:
    """May one of the texts stand in the bytes? JSON leaves all but a few characters as they are."""
    return any(not _plain(text) or text.encode() in held for text in texts)


@lru_cache(maxsize=COMPILED)
def _plain(text: str) -> bool:
    return text.isprintable() and '"' not in text and "\\" not in text


@dataclass(frozen=True, slots=True)
class Clause:
    """One filter."""

    status: int
    """Bit i: the i-th of STATUSES passes."""
    place: tuple[float, float, float, float]
    """A unit vector, and the greatest squared chord from it that passes; negative: anywhere."""
    span: DateRange | None
    tagged: Tagged | None
    saying: Saying | None


@lru_cache(maxsize=COMPILED)
def clause_of(one: Filter) -> Clause:
    """A filter, compiled as far as it depends on nothing else."""
    wanted, around = one.categories, one.location
    words = tuple(sorted(set((one.text or "").casefold().split())))
    tagged = wanted is not None and (wanted.include or wanted.exclude)
    here = None if around is None else unit_vector(around.latitude, around.longitude)
    return Clause(
        sum(1 << STATUSES.index(status) for status in set(one.status)) or _ANY_STATUS,
        (0.0, 0.0, 0.0, -1.0) if here is None or around is None else (*here, chord2_of_km(around.radius / 1000)),
        one.date_range,
        Tagged(frozenset(wanted.include), frozenset(wanted.exclude)) if wanted is not None and tagged else None,
        Saying(words) if words else None,
    )


def bounds_of(span: DateRange | None, zones: Sequence[str]) -> tuple[Longs, Longs]:
    """By zone: the least end and the greatest start that pass."""
    begins = None if span is None else span.start
    ends = None if span is None else span.end
    least: Longs = np.full(len(zones), _EVER.min)
    most: Longs = np.full(len(zones), _EVER.max)
    if begins is not None:
        least[:] = [day_start_ms(begins, zone) for zone in zones] if isinstance(begins, str) else begins
    if ends is not None:
        most[:] = [day_start_ms(ends, zone, after=True) - 1 for zone in zones] if isinstance(ends, str) else ends
    return least, most


class Compiler:
    """Compiles questions over these columns. One per Columns: it takes the note of what was put."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._bitmaps = Bitmaps(columns)
        self._spans: dict[tuple[int | str | None, int | str | None], tuple[Longs, Longs]] = {}
        self._zones = 0

    def questions(self, asked: Sequence[Question]) -> tuple[Records, Clauses, Ints]:
        """Questions in their order, their filters, and the slots of the private events of their users."""
        filters: dict[tuple[Filter, ...], int] = {}
        # Looked up once a question: to hash a filter costs microseconds.
        numbers = [filters.setdefault(one.filters, len(filters)) if one.filters else -1 for one in asked]
        private = _Private(self._columns)
        rows = [(*fixed(one), number, *private.range_of(one.user)) for one, number in zip(asked, numbers, strict=True)]
        clauses = self._clauses(list(filters), _views(asked, numbers, len(filters)))
        return np.array(rows, QUESTION), clauses, private.slots()

    def ready(self, asked: Sequence[Question], most: int) -> bool:
        """Ask about at most `most` events of what `questions` would; False: more is left, call again.

        So that words which nobody has asked for yet, over a million events in view, need not hold up everybody else.
        """
        filters = dict.fromkeys(one.filters for one in asked if one.filters)
        numbers = {group: number for number, group in enumerate(filters)}
        views = _views(asked, [numbers[one.filters] if one.filters else -1 for one in asked], len(numbers))
        wanted = _places([[clause_of(one) for one in group] for group in numbers], views)
        return not wanted or self._bitmaps.learn(wanted, most)

    def _clauses(self, filters: Sequence[tuple[Filter, ...]], views: Sequence[set[View]]) -> Clauses:
        groups = [[clause_of(one) for one in group] for group in filters]
        every = [clause for group in groups for clause in group]
        row_of = self._bitmaps.rows_for(_places(groups, views))
        spans = [self._span(one.span) for one in every]
        zones = len(self._columns.zones)
        return Clauses(
            first=np.cumsum([0, *map(len, groups)], dtype=np.int32),
            status=np.array([one.status for one in every], np.uint8),
            place=np.array([one.place for one in every], np.float64).reshape(-1, 4),
            begins=np.array([least for least, _ in spans], np.int64).reshape(-1, zones),
            ends=np.array([most for _, most in spans], np.int64).reshape(-1, zones),
            bitmap=np.array([(row_of[c.tagged], row_of[c.saying]) for c in every], np.int32).reshape(-1, 2),
            bits=self._bitmaps.bits,
        )

    def _span(self, span: DateRange | None) -> tuple[Longs, Longs]:
        """The bounds of a span, made once while the zones are the same."""
        zones = self._columns.zones
        if self._zones != len(zones) or len(self._spans) >= COMPILED:
            self._spans.clear()
            self._zones = len(zones)
        key = (None, None) if span is None else (span.start, span.end)
        found = self._spans.get(key)
        if found is None:
            found = self._spans[key] = bounds_of(span, zones)
        return found


def fixed(one: Question) -> tuple[float, float, float, float, float, float, float, int]:
    """What of a compiled question depends on nothing else."""
    view = one.viewport
    return (view.west, view.south, view.east, view.north, *one.origin(), one.limit)


def _views(asked: Sequence[Question], numbers: Sequence[int], count: int) -> list[set[View]]:
    """By number of filters: the viewports in which they are asked."""
    views: list[set[View]] = [set() for _ in range(count)]
    for one, number in zip(asked, numbers, strict=True):
        if number >= 0:
            view = one.viewport
            views[number].add((view.west, view.south, view.east, view.north))
    return views


def _places(groups: Sequence[Sequence[Clause]], views: Sequence[set[View]]) -> dict[Predicate, set[View]]:
    """By predicate: the viewports in which it is asked."""
    found: dict[Predicate, set[View]] = {}
    for group, asked in zip(groups, views, strict=True):
        for clause in group:
            for predicate in (clause.tagged, clause.saying):
                if predicate is not None:
                    found.setdefault(predicate, set()).update(asked)
    return found


class _Private:
    """The private slots of the users of one compilation, each user's once."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._ranges: dict[str, tuple[int, int]] = {}
        self._parts: list[Ints] = [np.empty(0, np.int32)]
        self._count = 0

    def range_of(self, user: str | None) -> tuple[int, int]:
        """Where a user's slots begin, and how many they are."""
        if user is None:
            return (0, 0)
        found = self._ranges.get(user)
        if found is None:
            slots = self._columns.private_slots(user)
            found = self._ranges[user] = (self._count, len(slots))
            self._parts.append(slots)
            self._count += len(slots)
        return found

    def slots(self) -> Ints:
        """All of them."""
        return np.concatenate(self._parts)


class Bitmaps:
    """By predicate, which slots pass (`bits`), as far as they were asked about (`_known`). A set bit is known."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._lexicon = Lexicon(columns)
        self._clear()

    def rows_for(self, wanted: Mapping[Predicate, set[View]]) -> dict[Predicate | None, int]:
        """The rows of `bits` of these predicates, right for what lies in their viewports now; -1 for None."""
        if wanted:
            self.learn(wanted, sys.maxsize)
        return {None: -1, **{predicate: self._rows[predicate] for predicate in wanted}}

    def learn(self, wanted: Mapping[Predicate, set[View]], most: int) -> bool:
        """Ask each predicate about what lies in its viewports, at most so many times; False: there is more to ask."""
        self._take_changes()
        self._admit(wanted)
        seen: dict[View, Ints] = {}
        for predicate, views in wanted.items():
            for view in views - self._views[predicate]:
                if view not in seen:
                    seen[view] = slots_in(self._columns.world, view)
                fresh = self._unknown(predicate, seen[view])
                self._ask(predicate, fresh[:most])
                if len(fresh) > most:
                    return False
                most -= len(fresh)
            self._note(predicate, views)
        return True

    def _clear(self) -> None:
        self.bits: Bytes = np.zeros((0, 0), np.uint8)
        self._known: Bytes = self.bits
        self._rows: OrderedDict[Predicate, int] = OrderedDict()
        self._free: list[int] = []
        self._views: dict[Predicate, set[View]] = {}
        """By predicate: viewports all of whose slots are known."""

    def _take_changes(self) -> None:
        """Ask anew about slots that were put; those beyond the old end of the bitmaps are not known yet."""
        changed = self._columns.take_reworded()
        if changed is None:
            self._lexicon.clear()
            self._clear()
        else:
            self._lexicon.drop(changed.tolist())
        self._widen()
        if changed is None or not len(changed) or not self._rows:
            return
        self._unlearn(changed)
        here = changed[self._columns.world.row_of[changed] >= 0]  # What has gone since may be forgotten, words and all.
        if len(here) * len(self._rows) <= TESTS_MOST:
            for predicate in self._rows:
                self._ask(predicate, here)
        else:
            for views in self._views.values():
                views.clear()

    def _widen(self) -> None:
        width = (len(self._columns.world.row_of) + 7) // 8
        if self.bits.shape[1] < width:
            self._reshape(len(self.bits), width)

    def _reshape(self, rows: int, width: int) -> None:
        before = self.bits.shape
        for name in ("bits", "_known"):
            larger = np.zeros((rows, width), np.uint8)
            larger[: before[0], : before[1]] = getattr(self, name)
            setattr(self, name, larger)

    def _admit(self, wanted: Collection[Predicate]) -> None:
        """A row for each of them; the least recently used others make room."""
        if len(self.bits) > PREDICATES >= len(wanted):
            self._clear()
            self._widen()
        for predicate in self._rows.keys() & wanted:
            self._rows.move_to_end(predicate)
        fresh = [predicate for predicate in wanted if predicate not in self._rows]
        others = len(self._rows) + len(fresh) - len(wanted)
        for _ in range(min(others, len(self._rows) + len(fresh) - PREDICATES)):
            self._drop()
        for predicate in fresh:
            self._rows[predicate] = self._take_row()
            self._views[predicate] = set()

    def _drop(self) -> None:
        predicate, row = self._rows.popitem(last=False)
        del self._views[predicate]
        self.bits[row] = self._known[row] = 0
        self._free.append(row)

    def _take_row(self) -> int:
        if not self._free:
            count = len(self.bits)
            self._reshape(max(8, 2 * count), self.bits.shape[1])
            self._free = list(range(len(self.bits) - 1, count - 1, -1))
        return self._free.pop()

    def _unknown(self, predicate: Predicate, slots: Ints) -> Ints:
        """Those of the slots that the predicate was not asked about."""
        return np.asarray(slots[~bit_set(self._known[self._rows[predicate]], slots)])

    def _ask(self, predicate: Predicate, slots: Ints) -> None:
        """Which of these slots pass?"""
        row = self._rows[predicate]
        passed = np.fromiter(self._lexicon.tested(predicate, slots.tolist()), np.bool_, len(slots))
        set_bits(self._known[row], slots)
        set_bits(self.bits[row], slots[passed])

    def _unlearn(self, slots: Ints) -> None:
        mask = np.zeros(self.bits.shape[1], np.uint8)
        set_bits(mask, slots)
        places = np.flatnonzero(mask)
        self.bits[:, places] &= ~mask[places]
        self._known[:, places] &= ~mask[places]

    def _note(self, predicate: Predicate, views: set[View]) -> None:
        known = self._views[predicate]
        if len(known) + len(views) > VIEWPORTS_MOST:
            known.clear()
        known |= views


class Lexicon:
    """Decoded words of events that were asked about lately."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._said: dict[int, Said] = {}

    def tested(self, predicate: Predicate, slots: Sequence[int]) -> Iterator[bool]:
        """Which of these events pass. Where they are many, only what can't be told at a glance is decoded."""
        many = len(slots) > SAID_MOST // 4
        for slot in slots:
            told = predicate.glance(self._columns.content(slot)) if many else None
            yield predicate.holds(self._of(slot)) if told is None else told

    def _of(self, slot: int) -> Said:
        said = self._said.get(slot)
        if said is None:
            if len(self._said) >= SAID_MOST:
                self._said.clear()
            said = self._said[slot] = said_of(self._columns, slot)
        return said

    def drop(self, slots: Sequence[int]) -> None:
        """These were put anew."""
        for slot in slots:
            self._said.pop(slot, None)

    def clear(self) -> None:
        """All may have changed."""
        self._said.clear()


def said_of(columns: Columns, slot: int) -> Said:
    """The words of an event."""
    title, categories, description = columns.words(slot)
    return Said(frozenset(categories), haystack.__wrapped__(title, categories, description))


def bit_set(bits: Bytes, slots: Ints) -> Flags:
    """Which of the slots have their bit set."""
    return np.asarray((bits[slots >> 3] >> (slots & 7)) & 1, np.bool_)


def set_bits(bits: Bytes, slots: Ints) -> None:
    """Set the bits of these slots."""
    np.bitwise_or.at(bits, slots >> 3, (1 << (slots & 7)).astype(np.uint8))


def slots_in(world: World, view: View) -> Ints:
    """The slots of all events in a viewport, whatever their state; by the tree, where there is one."""
    ordered, used, _, levels = world.sizes.tolist()
    rows = _sorted_rows(world, view, levels) if levels else np.arange(ordered)
    rows = np.concatenate([rows, np.arange(ordered, used)])
    rows = rows[(world.slot[rows] >= 0) & _inside(world.longitude[rows], world.latitude[rows], view)]
    return np.asarray(world.slot[rows])


def _sorted_rows(world: World, view: View, levels: int) -> Longs:
    """Sorted rows of the leaves that meet the viewport."""
    nodes: Longs = np.arange(world.first[levels - 1], world.first[levels])
    for level in range(levels - 1, -1, -1):
        nodes = nodes[_meets(world.box[nodes], view)]
        if level:
            places = ((nodes - world.first[level])[:, None] * FANOUT + np.arange(FANOUT)).ravel()
            nodes = world.first[level - 1] + places
            nodes = nodes[nodes < world.first[level]]
    rows: Longs = (nodes[:, None] * LEAF + np.arange(LEAF)).ravel()
    return np.asarray(rows[rows < world.sizes[0]])


def _meets(boxes: npt.NDArray[np.float64], view: View) -> Flags:
    west, south, east, north = view
    meets: Flags = (boxes[:, 1] <= north) & (boxes[:, 3] >= south)
    if west < east:
        return meets & (boxes[:, 0] <= east) & (boxes[:, 2] >= west)
    return meets & ((boxes[:, 2] >= west) | (boxes[:, 0] <= east))


def _inside(longitude: npt.NDArray[np.float64], latitude: npt.NDArray[np.float64], view: View) -> Flags:
    west, south, east, north = view
    inside: Flags = (latitude >= south) & (latitude <= north)
    if west < east:
        return inside & (longitude >= west) & (longitude <= east)
    return inside & ((longitude >= west) | (longitude <= east))
