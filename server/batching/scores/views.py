"""What each viewer is sent: snapshots, answers to a pan, immediate changes, batches, and the one catch-up after a wait.

A round is one moment and the viewers to look at in it. `draw` ranks their distinct questions, compares each view with what
its connection holds, and puts the frames together: everything that equal viewers have in common is done once. It runs in the
engine's thread and changes nothing; a `Draft` becomes true when the event loop hands it over (`deliver`), and only if nothing
has happened to the viewer since: then frame, `held`, `seq` and digest advance in one synchronous step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, NamedTuple, Protocol

import numpy as np

from server.batching.scores import frames
from server.batching.scores.audience import NOTHING, Held, Viewer
from server.batching.scores.budget import NO_AGES, PLAIN, Ages, Terms, terms_of
from server.batching.scores.clusters import Clusters, clusters_of
from server.batching.scores.columns import Columns
from server.batching.scores.frame import Frame, Shared
from server.batching.scores.frames import Message, Parts
from server.batching.scores.kernel import HELD, Changes, Records
from server.batching.scores.lookout import Lookout
from server.batching.scores.plan import Settled
from server.batching.scores.portions import CREATE, News, Portion, Whole, portion
from server.batching.scores.question import Question, admits, in_viewport
from server.core.event import SHOWN, held_hash, visible_to

UNKNOWN_SCORE: Final = -1.0
"""Of what a client says it holds: far from every score, so that every survivor is sent again."""


class Kind(Enum):
    """What kind of frame a viewer is due."""

    SNAPSHOT = "snapshot"
    ANSWER = "answer"
    BATCH = "batch"
    IMMEDIATE = "immediate"
    RECOUNT = "recount"
    """As an immediate one, and the clusters too: for what time has moved, or another identity."""


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


class Saved(NamedTuple):
    """What a viewer is not sent: updates below the threshold, bytes by `delta`, events put off by a bound on bytes."""

    withheld: int = 0
    spared: int = 0
    carried: int = 0


class Draft(NamedTuple):
    """What a viewer would be handed, and what it would then hold. `frame` None: nothing has changed for it.

    NamedTuples, this and the two below, because thousands are made in a round, at a third of what a frozen dataclass costs."""

    viewer: Viewer
    epoch: int
    frame: Frame | None
    held: Held
    digest: int
    last: int
    kind: Kind
    ages: Ages
    saved: Saved
    shared: bool
    """Another's frame has the same tail."""
    told: bytes
    trace: Trace | None = None
    """Where it was drawn, while a journal is kept."""


class Witness(Protocol):
    """Who writes down what the engine did and what was handed over: the journal. None of this may wait or raise."""

    def drew(self, now_ms: int, columns: Columns, seen: Sequence[Seen]) -> int:
        """A round was drawn; its number. In the engine's thread, behind the last look at a viewer."""

    def handed(self, trace: Trace, draft: Draft) -> None:
        """A draft is about to become true. On the event loop, before anything of the viewer changes."""

    def patched(self, changes: Sequence[Settled], now_ms: int, columns: Columns) -> None:
        """The world is about to follow these. In the engine's thread."""

    def forgot(self, columns: Columns) -> None:
        """Slots were given back. In the engine's thread."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Which draft of which round one is."""

    witness: Witness
    draw: int
    place: int


def deliver(draft: Draft) -> bool | None:
    """Hand a draft over, if it still holds: None when it is stale, else whether there was a frame. The outlet must be free."""
    viewer = draft.viewer
    if viewer.epoch != draft.epoch:
        return None
    if draft.trace is not None:
        draft.trace.witness.handed(draft.trace, draft)
    viewer.last, viewer.ages = draft.last, draft.ages
    if draft.frame is None:
        return False
    viewer.held, viewer.digest, viewer.told = draft.held, draft.digest, draft.told
    viewer.seq += 1
    viewer.epoch += 1
    viewer.outlet.hand(draft.frame)
    return True


class Seen(NamedTuple):
    """A sight as it was when the round began; `epoch` was read first, so what changes later makes the draft stale."""

    sight: Sight
    epoch: int
    question: Question
    number: int
    held: Held
    seq: int
    group: int
    reasons: bool
    strangers: tuple[str, ...]
    terms: Terms | None
    counted: bool
    """Is it told of clusters?"""
    told: bytes


@dataclass(slots=True)
class _Round:
    """What the sights of a round have in common: distinct questions, and distinct (question, held, kind ...) groups."""

    questions: list[Question] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    members: list[Seen] = field(default_factory=list)
    """The first sight of each group."""
    _numbers: dict[Question | int, int] = field(default_factory=dict)
    _groups: dict[tuple[object, ...], int] = field(default_factory=dict)
    _claims: dict[tuple[tuple[str, int], ...], tuple[Held, tuple[str, ...]]] = field(default_factory=dict)

    def add(self, sight: Sight, columns: Columns) -> None:
        """Take one more sight in."""
        viewer = sight.viewer
        epoch, question, held, seq, told = viewer.epoch, viewer.question, viewer.held, viewer.seq + 1, viewer.told
        reasons = viewer.reasons
        strangers: tuple[str, ...] = ()
        if sight.kind is Kind.SNAPSHOT:
            held = NOTHING
        elif sight.claimed is not None:
            held, strangers = self._claimed(columns, tuple(sight.claimed))
        number, terms = self._number(question), None if viewer.budget is PLAIN else _terms(sight)
        counted = viewer.clusters and sight.kind is not Kind.IMMEDIATE
        # What is equal is one object where walks have made it so; who comes back together may not have walked together.
        same = held if sight.kind is Kind.ANSWER else id(held)
        said = reasons, strangers, terms and terms.key, counted, told
        key = (number, same, sight.kind, sight.threshold, *said)
        group = self._groups.setdefault(key, len(self.members))
        seen = Seen(sight, epoch, question, number, held, seq, group, reasons, strangers, terms, counted, told)
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


def _terms(sight: Sight) -> Terms | None:
    """A snapshot begins anew: the best first, whatever was left out before."""
    ages = NO_AGES if sight.kind is Kind.SNAPSHOT else sight.viewer.ages
    return terms_of(sight.viewer.budget, ages, frames.longest_head(sight.ref))


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


def draw(lookout: Lookout, sights: Sequence[Sight], now_ms: int, witness: Witness | None = None) -> list[Draft]:
    """One draft per sight, in order; a witness writes down what was seen."""
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
    clusters = clusters_of(lookout, ranked, work.questions, [m.number for m in members if m.counted], now_ms)
    outcomes = _Press(lookout, changes, now_ms, clusters).outcomes(members)
    drafts = [_draft(seen, outcomes[seen.group], shared=seen is not members[seen.group]) for seen in work.seen]
    if witness is None:
        return drafts
    number = witness.drew(now_ms, columns, work.seen)
    return [draft._replace(trace=Trace(witness, number, place)) for place, draft in enumerate(drafts)]


class _Outcome(NamedTuple):
    """What the members of one group share; `message` None: nothing has changed for them."""

    message: Message | None
    tail: Shared | None
    held: Held
    digest: int
    last: int
    ages: Ages
    saved: Saved
    told: bytes


def _draft(seen: Seen, outcome: _Outcome, *, shared: bool) -> Draft:
    frame, sight = None, seen.sight
    if outcome.message is not None and outcome.tail is not None:
        frame = Frame(outcome.message.head(seen.seq, sight.ref), outcome.tail)
    return Draft(
        sight.viewer,
        seen.epoch,
        frame,
        outcome.held,
        outcome.digest,
        outcome.last,
        sight.kind,
        outcome.ages,
        outcome.saved,
        shared and frame is not None,
        outcome.told,
    )


class _Press:
    """Turns the differences of a round into messages."""

    def __init__(self, lookout: Lookout, changes: Changes, now_ms: int, clusters: Mapping[int, Clusters]) -> None:
        self._lookout = lookout
        self._columns = lookout.columns
        self._news = News(lookout.columns)
        self._changes = changes
        self._now_ms = now_ms
        self._clusters = clusters
        self._stamp = frames.stamp(now_ms)
        sent = changes.op != 0
        self._ops = changes.op[sent].tolist()
        self._slots = changes.next["slot"][sent].tolist()
        self._pieces = self._closed(self._slots, changes.tenth[sent].tolist())
        """What is sent, in the order of `next`: two pieces an event."""
        self._sent_before = np.concatenate(([0], np.cumsum(sent))).tolist()

    def _closed(self, slots: list[int], tenths: list[int]) -> list[bytes]:
        bodies: Mapping[int, bytes] = {slot: self._columns.body(slot) for slot in set(slots)}
        pieces = [b""] * (2 * len(slots))
        pieces[::2] = [bodies[slot] for slot in slots]
        pieces[1::2] = [frames.SCORES[tenth] for tenth in tenths]
        return pieces

    def outcomes(self, members: Sequence[Seen]) -> list[_Outcome]:
        """One per group."""
        changes = self._changes
        firsts, gone = changes.first.tolist(), changes.gone_first.tolist()
        digests, withheld = changes.digest.tolist(), changes.counts[:, 3].tolist()
        return [
            self._outcome(m, (firsts[v], firsts[v + 1]), (gone[v], gone[v + 1]), digests[v], withheld[v])
            for v, m in enumerate(members)
        ]

    def _outcome(
        self, seen: Seen, fresh: tuple[int, int], gone: tuple[int, int], digest: int, withheld: int
    ) -> _Outcome:
        start, end = fresh
        following = self._changes.next[start:end]
        sent = slice(self._sent_before[start], self._sent_before[end])
        ops, pieces = self._ops[sent], self._pieces[2 * sent.start : 2 * sent.stop]
        deletes, reasons = self._deletes(seen, gone)
        if seen.terms is not None:
            settles = seen.sight.threshold is not None
            op, slots = self._changes.op[start:end], self._slots[sent]
            whole = Whole(following, op, slots, ops, pieces, seen.held, digest, settles)
            return self._part(seen, whole, Parts((), (), deletes, reasons, digest), withheld)
        last = int(following["slot"][-1]) if end - start >= seen.question.limit else -1
        parts = Parts(*_split(ops, pieces), deletes, reasons, digest)
        return self._said(seen, parts, following, Saved(withheld), NO_AGES, last)

    def _part(self, seen: Seen, whole: Whole, bare: Parts, withheld: int) -> _Outcome:
        """The same within a budget; a viewer that was left something out is not full, whatever its fresh view is."""
        assert seen.terms is not None
        total = len(whole.fresh)
        part = portion(self._news, whole, seen.terms, lambda: self._measured(seen, bare, total))
        full = not part.ages and total >= seen.question.limit
        last = int(whole.fresh["slot"][-1]) if full else -1
        parts = Parts(*_split(part.ops, part.pieces), bare.deletes, bare.reasons, part.digest)
        return self._said(seen, parts, part.after, Saved(withheld, part.spared, _first_time(part)), part.ages, last)

    def _said(self, seen: Seen, parts: Parts, after: Records, saved: Saved, ages: Ages, last: int) -> _Outcome:
        kind, clusters = seen.sight.kind, self._clusters[seen.number] if seen.counted else None
        told = seen.told if clusters is None else clusters.mark
        if not len(parts) and told == seen.told and kind not in (Kind.SNAPSHOT, Kind.ANSWER):
            return _Outcome(None, None, seen.held, parts.digest, last, ages, saved, seen.told)
        message = self._message(kind, replace(parts, clusters=self._told(seen)), len(after))
        return _Outcome(message, Shared(message.tail), after.tobytes(), parts.digest, last, ages, saved, told)

    def _told(self, seen: Seen) -> bytes:
        """The clusters that go with a message to it."""
        if not seen.counted:
            return b""
        clusters = self._clusters[seen.number]
        return clusters.json if clusters.mark != seen.told or seen.sight.kind is not Kind.RECOUNT else b""

    def _deletes(self, seen: Seen, gone: tuple[int, int]) -> tuple[list[str], dict[str, str]]:
        slots = self._changes.gone[gone[0] : gone[1]].tolist()
        deletes = [self._columns.id_of(slot) for slot in slots] + list(seen.strangers)
        return deletes, self._reasons(seen, slots) if deletes and seen.reasons else {}

    def _measured(self, seen: Seen, bare: Parts, total: int) -> int:
        """Bytes of the message's tail without an event; of one that is as long as any of its kind."""
        kind, bare = seen.sight.kind, replace(bare, clusters=self._told(seen))
        single = kind in (Kind.IMMEDIATE, Kind.RECOUNT)
        message = frames.changes(self._stamp, bare) if single else self._message(kind, bare, total)
        return len(message.tail) + frames.DIGITS

    def _message(self, kind: Kind, parts: Parts, total: int) -> Message:
        match kind:
            case Kind.SNAPSHOT:
                return frames.replace_all(self._stamp, parts)
            case Kind.ANSWER:
                return frames.changes(self._stamp, parts)
            case Kind.BATCH:
                return frames.batch_update(self._stamp, parts, total)
            case Kind.IMMEDIATE | Kind.RECOUNT:
                return frames.immediate(self._stamp, parts)

    def _reasons(self, seen: Seen, slots: list[int]) -> dict[str, str]:
        """Why each deleted event left the view. What is only claimed gets `removed` in place of `hidden`."""
        found = {self._columns.id_of(slot): reason(self._lookout, slot, seen.question, self._now_ms) for slot in slots}
        if seen.sight.claimed is not None:
            found = {event_id: "removed" if why == "hidden" else why for event_id, why in found.items()}
        return {**found, **dict.fromkeys(seen.strangers, "removed")}


def _split(ops: Sequence[int], pieces: Sequence[bytes]) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Creates and updates apart; mostly there is only one of them."""
    created = ops.count(CREATE)
    if not created:
        return (), pieces
    if created == len(ops):
        return pieces, ()
    apart: tuple[list[bytes], list[bytes]] = ([], [])
    for place, op in enumerate(ops):
        apart[op - CREATE].extend(pieces[2 * place : 2 * place + 2])
    return apart


def _first_time(part: Portion) -> int:
    return sum(age == 1 for age in part.ages.values())


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
