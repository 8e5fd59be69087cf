"""What each viewer is sent: snapshots, answers to a pan, immediate changes, batches, and the one catch-up after a wait.

Every method looks, compares with what the viewer holds, hands the frame over and advances `held`, in one synchronous step:
nothing can come between what was computed and what the viewer is believed to hold. Equal questions within one `Look` share
one ranking.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from server.batching.scores import frames
from server.batching.scores.audience import Owed, Viewer
from server.batching.scores.columns import Columns, Entry
from server.batching.scores.diff import Difference, Held, Shown, apply, difference
from server.batching.scores.frames import Fresh, Head
from server.batching.scores.question import Question, admits, in_viewport
from server.batching.scores.ranking import Ranking, Rules, rank
from server.batching.scores.score import chord2, components, km_of_chord2, raw_score, unit_vector
from server.core.event import SHOWN, held_hash, visible_to


@dataclass(slots=True)
class Look:
    """One moment at which viewers are ranked; answers to equal questions are kept for its length."""

    columns: Columns
    rules: Rules
    now_ms: int
    seen: dict[Question, Ranking] = field(default_factory=dict)
    generation: int = -1

    def at(self, question: Question) -> Ranking:
        """The fresh view of a question; what was computed before the columns changed is computed anew."""
        if self.generation != self.columns.generation:
            self.seen.clear()
            self.generation = self.columns.generation
        found = self.seen.get(question)
        if found is None:
            found = self.seen[question] = rank(self.columns, question, self.rules, self.now_ms)
        return found

    def raw(self, entry: Entry, question: Question) -> float:
        """One event's raw score for one question, by the scalar rules."""
        here = unit_vector(entry.event.latitude, entry.event.longitude)
        km = km_of_chord2(chord2(here, question.origin()))
        return raw_score(components(entry.event, entry.start_ms, km, self.now_ms), self.rules.weights)

    def admits(self, entry: Entry, question: Question) -> bool:
        """Is the event a candidate?"""
        return admits(question, entry.event, entry.start_ms, entry.end_ms, self.rules.window, self.now_ms)


def snapshot(viewer: Viewer, look: Look, ref: str | None = None) -> None:
    """Everything, as `replace-all`."""
    viewer.forget()
    ranking = look.at(viewer.question)
    _advance(viewer, ranking, _all_new(ranking))
    head = _head(viewer, look, ref)
    viewer.outlet.hand(frames.replace_all(head, _fresh(ranking)))


def answer(viewer: Viewer, look: Look, threshold: float, ref: str | None, *, claimed: bool = False) -> None:
    """The answer to a pan, a filter or a resync: `changes`, also when empty.

    `claimed`: what is held is only what the client says; a reason must not betray that a private event of that id exists.
    """
    ranking = look.at(viewer.question)
    change = _compare(viewer, ranking, threshold)
    _advance(viewer, ranking, change)
    reasons = why(viewer, change, look)
    if claimed:
        reasons = {event_id: "removed" if reason == "hidden" else reason for event_id, reason in reasons.items()}
    viewer.outlet.hand(frames.changes(_head(viewer, look, ref), _fresh(ranking), change, reasons))


def batch(viewer: Viewer, look: Look, threshold: float) -> bool:
    """One consolidated `batch-update`; nothing when nothing changed. True when a frame was handed over."""
    ranking = look.at(viewer.question)
    change = _compare(viewer, ranking, threshold)
    if not change:
        return False
    _advance(viewer, ranking, change)
    head = _head(viewer, look, None)
    viewer.outlet.hand(frames.batch_update(head, _fresh(ranking), change, len(viewer.held), why(viewer, change, look)))
    return True


def immediate(viewer: Viewer, look: Look, threshold: float | None) -> bool:
    """What changed in content and membership (with a threshold: and in score). True when a frame was handed over."""
    ranking = look.at(viewer.question)
    change = _compare(viewer, ranking, threshold)
    if not change:
        return False
    _advance(viewer, ranking, change)
    viewer.outlet.hand(frames.immediate(_head(viewer, look, None), _fresh(ranking), change, why(viewer, change, look)))
    return True


def catch_up(viewer: Viewer, look: Look, threshold: float) -> None:
    """The waiting frame has drained: one difference for all that was missed meanwhile."""
    missed, viewer.owed = viewer.owed, Owed.NOTHING
    if missed is Owed.BATCH:
        batch(viewer, look, threshold)
    elif missed is Owed.CHANGES:
        immediate(viewer, look, threshold)


def touched(viewer: Viewer, changed: Collection[str], look: Look) -> bool:
    """Must these changes re-rank the viewer? It holds one, or one comes in: the view is not full, or it beats the last."""
    if any(event_id in viewer.held for event_id in changed):
        return True
    entries = (entry for event_id in changed if (entry := look.columns.get(event_id)) is not None)
    return any(look.admits(entry, viewer.question) and _enters(viewer, entry, look) for entry in entries)


def _enters(viewer: Viewer, entry: Entry, look: Look) -> bool:
    last = None if viewer.last is None else look.columns.get(viewer.last)
    if not viewer.full or last is None:
        return True
    return _place(entry, viewer.question, look) < _place(last, viewer.question, look)


def _place(entry: Entry, question: Question, look: Look) -> tuple[float, int, str]:
    return (-look.raw(entry, question), entry.start_ms, entry.event.id)


def why(viewer: Viewer, change: Difference, look: Look) -> dict[str, str]:
    """Why each deleted event left the view, when the viewer asked for reasons."""
    if not viewer.reasons:
        return {}
    return {event_id: _reason(look.columns.get(event_id), viewer.question, look) for event_id in change.deletes}


def _reason(entry: Entry | None, question: Question, look: Look) -> str:
    """The first test that the event fails, in the order in which they are made; it passes all: others are better."""
    if entry is None:
        return "removed"
    event = entry.event
    if not visible_to(event, question.user):
        return "hidden"
    over = not look.rules.window.holds(entry.start_ms, look.now_ms)
    if event.status not in SHOWN:
        return "ended" if over and event.status == "EXPIRED" else "removed"
    if over:
        return "ended"
    if not in_viewport(question.viewport, event.latitude, event.longitude):
        return "left_view"
    return "outranked" if look.admits(entry, question) else "filtered"


def hold(viewer: Viewer, held: Collection[tuple[str, int]]) -> None:
    """Believe a client that says what it holds; its scores are unknown, so every survivor is sent again."""
    viewer.forget()
    for event_id, version in held:
        viewer.held[event_id] = Held(version, -1.0, held_hash(event_id, version))
    viewer.digest = 0
    viewer.shift_digest(sum(one.mark for one in viewer.held.values()))


def _fresh(ranking: Ranking) -> Fresh:
    return Fresh(ranking.entries, ranking.scores)


def _shown(ranking: Ranking) -> list[Shown]:
    pairs = zip(ranking.entries, ranking.scores, strict=True)
    return [Shown(e.event.id, e.event.version, score, e.mark) for e, score in pairs]


def _all_new(ranking: Ranking) -> Difference:
    return Difference(creates=tuple(range(len(ranking.entries))))


def _compare(viewer: Viewer, ranking: Ranking, threshold: float | None) -> Difference:
    return difference(viewer.held, _shown(ranking), threshold)


def _advance(viewer: Viewer, ranking: Ranking, change: Difference) -> None:
    viewer.shift_digest(apply(viewer.held, _shown(ranking), change))
    viewer.seq += 1
    full = len(ranking.entries) >= viewer.question.limit
    viewer.last = ranking.entries[-1].event.id if full else None


def _head(viewer: Viewer, look: Look, ref: str | None) -> Head:
    return Head(viewer.seq, look.now_ms, viewer.digest, ref)
