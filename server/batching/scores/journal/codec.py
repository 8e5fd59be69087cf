"""Records as bytes and back: each a JSON array behind its length, the first element says which. Pure.

Questions are written once, under a number, before the first round that asks them; so a `Decoder` keeps a table; a number
that is given out again means the newer question from then on.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from struct import Struct
from typing import Any, Final, TypeAlias

import orjson

from server.batching.scores.budget import PLAIN, Budget
from server.batching.scores.journal.records import (
    Accepted,
    Counted,
    Drew,
    Ended,
    Flushed,
    Forgot,
    Handed,
    Header,
    Left,
    Look,
    Patched,
    Record,
    Tuned,
    Watching,
)
from server.batching.scores.plan import Change, Gone, Settled
from server.batching.scores.plan import Counted as Published
from server.batching.scores.question import Question, Window
from server.batching.scores.ranking import Rules
from server.batching.scores.score import Weights
from server.batching.scores.views import Kind
from server.core.event import Event
from server.protocol.values import Filter, Location, Viewport

Row: TypeAlias = list[Any]  # what orjson gives

LENGTH: Final = Struct(">I")
KINDS: Final = tuple(Kind)
KIND_NUMBERS: Final = {kind: number for number, kind in enumerate(KINDS)}
FIELDS: Final = tuple(Event.__dataclass_fields__)
VALUES: Final[Callable[[Event], tuple[Any, ...]]] = attrgetter(*FIELDS)
_TUPLES: Final = [FIELDS.index(name) for name in ("categories", "counts", "shared_with")]
_PENDING, _HIGH, _IMMEDIATE = 1, 2, 4


def framed(row: Sequence[object]) -> bytes:
    """A record behind its length."""
    text = orjson.dumps(row)
    return LENGTH.pack(len(text)) + text


def rows(payload: bytes) -> Iterator[Row]:
    """The records of a block."""
    at = 0
    while at < len(payload):
        (length,) = LENGTH.unpack_from(payload, at)
        at += LENGTH.size
        yield orjson.loads(payload[at : at + length])
        at += length


# --- questions ---


def question_row(question: Question) -> Row:
    """A question as JSON."""
    view, here = question.viewport, question.location
    return [
        [view.west, view.south, view.east, view.north],
        [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in question.filters],
        None if here is None else [here.latitude, here.longitude],
        question.user,
        question.limit,
    ]


def question_of(row: Row) -> Question:
    """And back."""
    (west, south, east, north), filters, here, user, limit = row
    return Question(
        Viewport(west=west, south=south, east=east, north=north),
        tuple(Filter.model_validate(one) for one in filters),
        None if here is None else Location(latitude=here[0], longitude=here[1]),
        user,
        limit,
    )


# --- changes of the world ---


def settled_row(one: Settled) -> Row:
    """What a transaction means for one event."""
    flags = _PENDING * one.pending | _HIGH * one.high | _IMMEDIATE * one.immediate
    match one.published:
        case Published(counts, version):
            return [one.event_id, flags, "c", *counts, version]
        case Gone(version):
            return [one.event_id, flags, "g", version]
        case Event() as event:
            return [one.event_id, flags, "e", VALUES(event)]
        case None:
            return [one.event_id, flags, ""]


def settled_of(row: Row) -> Settled:
    """And back."""
    event_id, flags, kind, *rest = row
    published: Change | None = None
    if kind == "c":
        scan, save, rsvp, version = rest
        published = Published((scan, save, rsvp), version)
    elif kind == "g":
        published = Gone(rest[0])
    elif kind == "e":
        published = event_of(rest[0])
    return Settled(event_id, published, bool(flags & _PENDING), bool(flags & _HIGH), bool(flags & _IMMEDIATE))


def event_of(values: Row) -> Event:
    """An event from its values."""
    for place in _TUPLES:
        values[place] = tuple(values[place])
    return Event(*values)


# --- the header ---


def header_row(header: Header) -> dict[str, object]:
    """As JSON."""
    weights, window = header.rules.weights, header.rules.window
    return {
        "format": header.format,
        "program": header.program,
        "engine": header.engine,
        "versions": dict(header.versions),
        "beganMs": header.began_ms,
        "number": header.number,
        "firstDraw": header.first_draw,
        "events": header.events,
        "slots": header.slots,
        "weights": [weights.time, weights.distance, weights.popularity, weights.recency, weights.confidence],
        "window": [window.past_ms, window.ahead_ms],
        "spacingKm": header.rules.spacing_km,
        "tuned": tuned_row(header.tuned),
        "pending": header.pending,
        "watching": [[one.viewer, question_row(one.question)] for one in header.watching],
        "gone": header.gone,
        "free": header.free,
        "turning": list(header.turning.items()),
    }


def header_of(row: Mapping[str, Any]) -> Header:
    """And back."""
    return Header(
        format=row["format"],
        program=row["program"],
        engine=row["engine"],
        versions=row["versions"],
        began_ms=row["beganMs"],
        number=row["number"],
        first_draw=row["firstDraw"],
        events=row["events"],
        slots=row["slots"],
        rules=Rules(Weights(*row["weights"]), Window(*row["window"]), row["spacingKm"]),
        tuned=Tuned(*row["tuned"]),
        pending=tuple(row["pending"]),
        watching=tuple(Watching(viewer, question_of(asked)) for viewer, asked in row["watching"]),
        gone=tuple(row["gone"]),
        free=tuple(row["free"]),
        turning=dict(row["turning"]),
    )


def tuned_row(tuned: Tuned) -> Row:
    """Run-time settings."""
    return [tuned.interval_ms, tuned.max_batch, tuned.enabled, tuned.threshold]


# --- rounds ---


def drew_row(drew: Drew, number: Callable[[Question], int]) -> Row:
    """A round: what all its looks share is written once."""
    looks = drew.looks
    alike = len({(look.kind, look.threshold) for look in looks}) == 1
    how: list[Row] = [[KIND_NUMBERS[look.kind], look.threshold] for look in (looks[:1] if alike else looks)]
    own = [[place, *_own_row(look)] for place, look in enumerate(looks) if _has_own(look)]
    asked = [number(look.question) for look in looks]
    return ["d", drew.draw, drew.now_ms, drew.turned_ms, [look.viewer for look in looks], asked, how, own]


def _has_own(look: Look) -> bool:
    said = (look.ref, look.claimed, look.held, look.seq, look.ages, look.told)
    return look.reasons or look.clusters or look.budget is not PLAIN or said != (None,) * len(said)


def _own_row(look: Look) -> Row:
    budget = None if look.budget is PLAIN else [look.budget.delta, look.budget.max_bytes]
    ages = None if look.ages is None else list(look.ages.items())
    asked = [look.reasons, look.ref, look.claimed, look.clusters, budget]
    return [*asked, _text(look.held), look.seq, ages, _text(look.told)]


def _text(value: bytes | None) -> str | None:
    return None if value is None else b2a_base64(value, newline=False).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else a2b_base64(text)


def drew_of(row: Row, questions: Mapping[int, Question]) -> Drew:
    """And back."""
    draw, now_ms, turned_ms, viewers, asked, how, own = row
    if len(how) == 1:
        how *= len(viewers)
    owned = {place: rest for place, *rest in own}
    looks = (
        _look(viewer, questions[question], KINDS[kind], threshold, owned.get(place))
        for place, (viewer, question, (kind, threshold)) in enumerate(zip(viewers, asked, how, strict=True))
    )
    return Drew(draw, now_ms, turned_ms, tuple(looks))


def _look(viewer: int, question: Question, kind: Kind, threshold: float | None, own: Row | None) -> Look:
    if own is None:
        return Look(viewer, question, kind, threshold)
    reasons, ref, claimed, clusters, budget, held, seq, ages, told = own
    known = None if claimed is None else tuple((event_id, version) for event_id, version in claimed)
    return Look(
        viewer,
        question,
        kind,
        threshold,
        reasons,
        ref,
        known,
        _bytes(held),
        seq,
        PLAIN if budget is None else Budget(budget[0], 0, budget[1]),
        None if ages is None else dict(ages),
        clusters,
        _bytes(told),
    )


def handed_row(draw: int, handed: Iterable[Handed]) -> Row:
    """What became true of one round, in a row."""
    return ["h", draw, [[h.place] if h.hash is None else [h.place, h.seq, h.size, h.hash] for h in handed]]


# --- the rest ---


def row_of(record: Patched | Forgot | Counted | Left | Flushed | Tuned | Ended) -> Row:
    """A record that refers to nothing before it."""
    match record:
        case Patched(now_ms, turned_ms, changes):
            return ["p", now_ms, turned_ms, [settled_row(one) for one in changes]]
        case Forgot(remembered):
            return ["f", remembered]
        case Counted(now_ms, accepted):
            return ["a", now_ms, [[one.event_id, *one.counts, int(one.high)] for one in accepted]]
        case Left(now_ms, viewer):
            return ["l", now_ms, viewer]
        case Flushed(started_ms, trigger, events, frames, deferred):
            return ["t", started_ms, trigger, events, frames, deferred]
        case Tuned():
            return ["c", *tuned_row(record)]
        case Ended(now_ms, why):
            return ["z", now_ms, why]


class Decoder:
    """Records of one file, in order."""

    def __init__(self) -> None:
        self._questions: dict[int, Question] = {}

    def records(self, payload: bytes) -> Iterator[Record]:
        """Those of one block."""
        for tag, *rest in rows(payload):
            if tag == "q":
                self._questions[rest[0]] = question_of(rest[1])
            elif tag == "d":
                yield drew_of(rest, self._questions)
            elif tag == "h":
                yield from _handed(*rest)
            else:
                yield _PLAIN[tag](*rest)


def _handed(draw: int, handed: Iterable[Row]) -> Iterator[Handed]:
    for place, *rest in handed:
        yield Handed(draw, place, *rest)


def _patched(now_ms: int, turned_ms: int, changes: Iterable[Row]) -> Patched:
    return Patched(now_ms, turned_ms, tuple(settled_of(row) for row in changes))


def _counted(now_ms: int, accepted: Iterable[Row]) -> Counted:
    return Counted(now_ms, tuple(Accepted(one, (a, b, c), bool(high)) for one, a, b, c, high in accepted))


_PLAIN: Final[Mapping[str, Callable[..., Record]]] = {
    "p": _patched,
    "f": lambda remembered: Forgot(tuple(remembered)),
    "a": _counted,
    "l": Left,
    "t": Flushed,
    "c": Tuned,
    "z": Ended,
}
