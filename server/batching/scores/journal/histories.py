"""What came in over some time, whatever was made of it: the input of a simulation, out of a journal or invented."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from server.batching.scores.columns import Columns
from server.batching.scores.journal.reader import Journal
from server.batching.scores.journal.records import Counted, Drew, Flushed, Left, Patched
from server.batching.scores.plan import Counted as Published
from server.batching.scores.plan import Settled
from server.batching.scores.question import Question
from server.batching.scores.ranking import Rules
from server.core.event import Counts


@dataclass(frozen=True, slots=True)
class Arrived:
    """A viewer begins to look."""

    now_ms: int
    viewer: int
    question: Question


@dataclass(frozen=True, slots=True)
class Asked:
    """It asks something else."""

    now_ms: int
    viewer: int
    question: Question


@dataclass(frozen=True, slots=True)
class Departed:
    """It is gone."""

    now_ms: int
    viewer: int


@dataclass(frozen=True, slots=True)
class Changed:
    """Content came, changed or went; always told at once."""

    now_ms: int
    changes: tuple[Settled, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """Popularity was accepted: the stored counters from now on; `high`: it may not wait."""

    now_ms: int
    event_id: str
    counts: Counts
    high: bool = False


@dataclass(frozen=True, slots=True)
class Forced:
    """Somebody had the batch sent."""

    now_ms: int


Input: TypeAlias = Arrived | Asked | Departed | Changed | Moved | Forced


@dataclass(frozen=True, slots=True)
class History:
    """Inputs in order of time, and the world that they meet; both are made anew for each run."""

    rules: Rules
    began_ms: int
    until_ms: int
    events: Callable[[], Columns]
    inputs: Callable[[], Iterable[Input]]


def history_of(journal: Journal) -> History:
    """What a journal recorded, from its first moment to its last. The file must stay open."""
    until_ms = journal.header.began_ms
    for record in journal.records():
        until_ms = max(until_ms, _moment(record))
    return History(journal.header.rules, journal.header.began_ms, until_ms, journal.columns, lambda: _inputs(journal))


def _moment(record: object) -> int:
    at = record.started_ms if isinstance(record, Flushed) else getattr(record, "now_ms", 0)
    return at if isinstance(at, int) else 0


def _inputs(journal: Journal) -> Iterator[Input]:
    """In the order of the file, with times that never run backwards."""
    now_ms = journal.header.began_ms
    yield from _waiting(journal)
    for one in journal.header.watching:
        yield Arrived(now_ms, one.viewer, one.question)
    questions = {one.viewer: one.question for one in journal.header.watching}
    for record in journal.records():
        now_ms = max(now_ms, _moment(record))
        match record:
            case Drew(looks=looks):
                for look in looks:
                    before = questions.get(look.viewer)
                    questions[look.viewer] = look.question
                    if before is None:
                        yield Arrived(now_ms, look.viewer, look.question)
                    elif before != look.question:
                        yield Asked(now_ms, look.viewer, look.question)
            case Left(viewer=viewer):
                if questions.pop(viewer, None) is not None:
                    yield Departed(now_ms, viewer)
            case Counted(accepted=accepted):
                for one_accepted in accepted:
                    yield Moved(now_ms, one_accepted.event_id, one_accepted.counts, one_accepted.high)
            case Patched(changes=changes):
                content = tuple(one for one in changes if not isinstance(one.published, Published))
                if content:
                    yield Changed(now_ms, content)
            case Flushed(trigger="forced"):
                yield Forced(now_ms)
            case _:
                pass


def _waiting(journal: Journal) -> Iterator[Moved]:
    """What was pending when the file began: its stored counters are those that were published or accepted next."""
    unknown = set(journal.header.pending)
    if not unknown:
        return
    for record in journal.records():
        if isinstance(record, Patched):
            for one in record.changes:
                if one.event_id in unknown and isinstance(one.published, Published):
                    unknown.discard(one.event_id)
                    yield Moved(journal.header.began_ms, one.event_id, one.published.counts)
        elif isinstance(record, Counted):
            unknown.difference_update(one.event_id for one in record.accepted)
        if not unknown:
            return
