"""What each viewer is sent: snapshots, answers to a pan, immediate changes, batches, and the one catch-up after a wait.

A round is one moment and the viewers to look at in it. `draw` ranks their distinct questions, compares each view with what
its connection holds, and puts the frames together: everything that equal viewers have in common is done once. It runs in the
engine's thread and changes nothing; a `Draft` becomes true when the event loop hands it over (`deliver`), and only if nothing
has happened to the viewer since: then frame, `held`, `seq` and digest advance in one synchronous step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import numpy as np

from server.batching.scores import frames
from server.batching.scores.audience import NOTHING, Held, Viewer
from server.batching.scores.columns import Columns
from server.batching.scores.frame import Frame, Shared
from server.batching.scores.frames import Message, Parts
from server.batching.scores.kernel import HELD, Changes
from server.batching.scores.lookout import Lookout
from server.batching.scores.question import Question, admits, in_viewport
from server.core.event import SHOWN, held_hash, visible_to

CREATE: Final = 1
UNKNOWN_SCORE: Final = -1.0
"""Of what a client says it holds: far from every score, so that every survivor is sent again."""


class Kind(Enum):
    """What kind of frame a viewer is due."""

    SNAPSHOT = "snapshot"
    ANSWER = "answer"
    BATCH = "batch"
    IMMEDIATE = "immediate"


@dataclass(frozen=True, slots=True)
class Sight:
    """One viewer to look at. `threshold` None: only content and membership count, scores wait for the next batch.

    `claimed`: what the client says it holds, instead of what we know; a reason then must not betray that a private event of
    that id exists.
    """

    viewer: Viewer
    kind: Kind
    threshold: float | None
    ref: str | None = None
    claimed: Sequence[tuple[str, int]] | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What a viewer would be handed, and what it would then hold. `frame` None: nothing has changed for it."""

    viewer: Viewer
    epoch: int
    frame: Frame | None
    held: Held
    digest: int
    last: int


def deliver(draft: Draft) -> bool | None:
    """Hand a draft over, if it still holds: None when it is stale, else whether there was a frame. The outlet must be free."""
    viewer = draft.viewer
    if viewer.epoch != draft.epoch:
        return None
    viewer.last = draft.last
    if draft.frame is None:
        return False
    viewer.held, viewer.digest = draft.held, draft.digest
    viewer.seq += 1
    viewer.epoch += 1
    viewer.outlet.hand(draft.frame)
    return True


@dataclass(frozen=True, slots=True)
class _Seen:
    """A sight as it was when the round began; `epoch` was read first, so what changes later makes the draft stale."""

    sight: Sight
    epoch: int
    question: Question
    number: int
    held: Held
    seq: int
    group: int
    strangers: tuple[str, ...] = ()


@dataclass(slots=True)
class _Round:
    """What the sights of a round have in common: distinct questions, and distinct (question, held, kind ...) groups."""

    questions: list[Question] = field(default_factory=list)
    seen: list[_Seen] = field(default_factory=list)
    members: list[_Seen] = field(default_factory=list)
    """The first sight of each group."""
    _numbers: dict[Question | int, int] = field(default_factory=dict)
    _groups: dict[tuple[object, ...], int] = field(default_factory=dict)
    _claims: dict[tuple[tuple[str, int], ...], tuple[Held, tuple[str, ...]]] = field(default_factory=dict)

    def add(self, sight: Sight, columns: Columns) -> None:
        """Take one more sight in."""
        viewer = sight.viewer
        epoch, question, held, seq = viewer.epoch, viewer.question, viewer.held, viewer.seq + 1
        strangers: tuple[str, ...] = ()
        if sight.kind is Kind.SNAPSHOT:
            held = NOTHING
        elif sight.claimed is not None:
            held, strangers = self._claimed(columns, tuple(sight.claimed))
        number = self._number(question)
        # What is equal is one object where walks have made it so; who comes back together may not have walked together.
        same = held if sight.kind is Kind.ANSWER else id(held)
        key = (number, same, sight.kind, sight.threshold, viewer.reasons, strangers)
        group = self._groups.setdefault(key, len(self.members))
        seen = _Seen(sight, epoch, question, number, held, seq, group, strangers)
        if group == len(self.members):
            self.members.append(seen)
        self.seen.append(seen)

    def _claimed(self, columns: Columns, said: tuple[tuple[str, int], ...]) -> tuple[Held, tuple[str, ...]]:
        """Equal claims are read once and are one object: after a cut many say the same, and then they share the rest too."""
        known = self._claims.get(said)
        if known is None:
            known = self._claims[said] = claims(columns, said)
        return known

    def _number(self, question: Question) -> int:
        """Questions are interned as long as viewers ask them: mostly it is the same object, and its hash is not needed."""
        number = self._numbers.get(id(question))
        if number is None:
            number = self._numbers.setdefault(question, len(self.questions))
            if number == len(self.questions):
                self.questions.append(question)
            self._numbers[id(question)] = number
        return number


def claims(columns: Columns, held: Sequence[tuple[str, int]]) -> tuple[Held, tuple[str, ...]]:
    """What a client says it holds, as an array; and the ids of it that nobody knows."""
    known: dict[int, tuple[int, int, int, float]] = {}
    strangers: list[str] = []
    for event_id, version in held:
        slot = columns.slot_of(event_id)
        if slot is None:
            strangers.append(event_id)
        else:
            known[slot] = (slot, held_hash(event_id, version), version, UNKNOWN_SCORE)
    return np.array(list(known.values()), HELD).tobytes(), tuple(dict.fromkeys(strangers))


def draw(lookout: Lookout, sights: Sequence[Sight], now_ms: int) -> list[Draft]:
    """One draft per sight, in order."""
    columns = lookout.columns
    work = _Round()
    for sight in sights:
        work.add(sight, columns)
    ranked = lookout.rank(work.questions, now_ms)
    columns.ensure_marks(columns.world.slot[ranked.row])
    members = work.members
    changes = lookout.compare(
        ranked,
        [m.number for m in members],
        [m.held for m in members],
        [m.sight.threshold for m in members],
    )
    outcomes = _Press(lookout, changes, now_ms).outcomes(members)
    return [_draft(seen, outcomes[seen.group]) for seen in work.seen]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the members of one group share; `message` None: nothing has changed for them."""

    message: Message | None
    tail: Shared | None
    held: Held
    digest: int
    last: int


def _draft(seen: _Seen, outcome: _Outcome) -> Draft:
    frame = None
    if outcome.message is not None and outcome.tail is not None:
        frame = Frame(outcome.message.head(seen.seq, seen.sight.ref), outcome.tail)
    return Draft(seen.sight.viewer, seen.epoch, frame, outcome.held, outcome.digest, outcome.last)


class _Press:
    """Turns the differences of a round into messages."""

    def __init__(self, lookout: Lookout, changes: Changes, now_ms: int) -> None:
        self._lookout = lookout
        self._columns = lookout.columns
        self._changes = changes
        self._now_ms = now_ms
        self._stamp = frames.stamp(now_ms)
        sent = changes.op != 0
        self._ops = changes.op[sent].tolist()
        self._pieces = self._closed(changes.next["slot"][sent].tolist(), changes.tenth[sent].tolist())
        """What is sent, in the order of `next`: two pieces an event."""
        self._sent_before = np.concatenate(([0], np.cumsum(sent))).tolist()

    def _closed(self, slots: list[int], tenths: list[int]) -> list[bytes]:
        bodies: Mapping[int, bytes] = {slot: self._columns.body(slot) for slot in set(slots)}
        pieces = [b""] * (2 * len(slots))
        pieces[::2] = [bodies[slot] for slot in slots]
        pieces[1::2] = [frames.SCORES[tenth] for tenth in tenths]
        return pieces

    def outcomes(self, members: Sequence[_Seen]) -> list[_Outcome]:
        """One per group."""
        changes = self._changes
        firsts, gone = changes.first.tolist(), changes.gone_first.tolist()
        digests = changes.digest.tolist()
        return [
            self._outcome(m, (firsts[v], firsts[v + 1]), (gone[v], gone[v + 1]), digests[v])
            for v, m in enumerate(members)
        ]

    def _outcome(self, seen: _Seen, fresh: tuple[int, int], gone: tuple[int, int], digest: int) -> _Outcome:
        start, end = fresh
        following = self._changes.next[start:end]
        last = int(following["slot"][-1]) if end - start >= seen.question.limit else -1
        parts = self._parts(seen, (self._sent_before[start], self._sent_before[end]), gone, digest)
        kind = seen.sight.kind
        if not len(parts) and kind in (Kind.BATCH, Kind.IMMEDIATE):
            return _Outcome(None, None, seen.held, digest, last)
        message = self._message(kind, parts, end - start)
        return _Outcome(message, Shared(message.tail), following.tobytes(), digest, last)

    def _parts(self, seen: _Seen, sent: tuple[int, int], gone: tuple[int, int], digest: int) -> Parts:
        creates, updates = self._split(*sent)
        slots = self._changes.gone[gone[0] : gone[1]].tolist()
        deletes = [self._columns.id_of(slot) for slot in slots] + list(seen.strangers)
        return Parts(
            creates,
            updates,
            deletes,
            self._reasons(seen, slots) if deletes and seen.sight.viewer.reasons else {},
            digest,
        )

    def _split(self, start: int, end: int) -> tuple[list[bytes], list[bytes]]:
        """Creates and updates apart; mostly there is only one of them."""
        ops, pieces = self._ops[start:end], self._pieces[2 * start : 2 * end]
        created = ops.count(CREATE)
        if not created:
            return [], pieces
        if created == len(ops):
            return pieces, []
        apart: tuple[list[bytes], list[bytes]] = ([], [])
        for place, op in enumerate(ops):
            apart[op - CREATE].extend(pieces[2 * place : 2 * place + 2])
        return apart

    def _message(self, kind: Kind, parts: Parts, total: int) -> Message:
        match kind:
            case Kind.SNAPSHOT:
                return frames.replace_all(self._stamp, parts)
            case Kind.ANSWER:
                return frames.changes(self._stamp, parts)
            case Kind.BATCH:
                return frames.batch_update(self._stamp, parts, total)
            case Kind.IMMEDIATE:
                return frames.immediate(self._stamp, parts)

    def _reasons(self, seen: _Seen, slots: list[int]) -> dict[str, str]:
        """Why each deleted event left the view. What is only claimed gets `removed` in place of `hidden`."""
        found = {self._columns.id_of(slot): reason(self._lookout, slot, seen.question, self._now_ms) for slot in slots}
        if seen.sight.claimed is not None:
            found = {event_id: "removed" if why == "hidden" else why for event_id, why in found.items()}
        return {**found, **dict.fromkeys(seen.strangers, "removed")}


def reason(lookout: Lookout, slot: int, question: Question, now_ms: int) -> str:
    """The first test that the event fails, in the order in which they are made; it passes all: others are better."""
    columns, window = lookout.columns, lookout.rules.window
    if not columns.exists(slot):
        return "removed"
    event = columns.event(slot)
    start_ms, end_ms = columns.starts(slot)
    if not visible_to(event, question.user):
        return "hidden"
    over = not window.holds(start_ms, now_ms)
    if event.status not in SHOWN:
        return "ended" if over and event.status == "EXPIRED" else "removed"
    if over:
        return "ended"
    if not in_viewport(question.viewport, event.latitude, event.longitude):
        return "left_view"
    return "outranked" if admits(question, event, start_ms, end_ms, window, now_ms) else "filtered"
