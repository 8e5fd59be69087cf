"""Notes as records: who asks and what is asked is named once in a file, then numbered. In the writer's thread.

What a round says of a viewer is the little that a replay can't know: its question's number and budget, and what it holds only
where that doesn't follow from what was handed over before in the same file (its first round, a resume, a departure in between).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from server.batching.scores import frames
from server.batching.scores.audience import NOTHING, Held, Viewer
from server.batching.scores.budget import NO_AGES, PLAIN, Ages, Budget
from server.batching.scores.journal.codec import drew_row, framed, handed_row, question_row, row_of
from server.batching.scores.journal.recorder import Gone, Hand, Note, Round, Start, Tallied
from server.batching.scores.journal.records import Accepted, Counted, Drew, Handed, Left, Look, hash_of
from server.batching.scores.question import Question
from server.batching.scores.views import Kind, Seen

BLOCK_BYTES: Final = 4 << 20
"""A block ends with the record that reaches it."""
QUESTIONS_MOST: Final = 50_000
"""Questions that a file knows by number; a round that finds more has numbers given out anew, which says so by itself."""


@dataclass(slots=True)
class Known:
    """What the file says of a viewer so far."""

    number: int
    held: Held = NOTHING
    seq: int = 0
    ages: Ages = field(default_factory=lambda: NO_AGES)
    told: bytes = b""


class Encoder:
    """The records of one file."""

    def __init__(self, first_draw: int) -> None:
        self._first_draw = first_draw
        self._viewers: dict[Viewer, Known] = {}
        self._numbered = 0
        self._questions: dict[Question, int] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._run: list[Handed] = []
        self._run_of = 0
        self.records = 0
        self.frames = 0

    def number(self, viewer: Viewer) -> int:
        """The viewer's number in this file."""
        return self._known(viewer).number

    def _known(self, viewer: Viewer) -> Known:
        known = self._viewers.get(viewer)
        if known is None:
            self._numbered += 1
            known = self._viewers[viewer] = Known(self._numbered)
        return known

    def payloads(self, notes: Sequence[Note]) -> Iterator[bytes]:
        """These notes as the contents of blocks, one mostly."""
        for note in notes:
            self._take(note)
            if self._size >= BLOCK_BYTES:
                yield self._joined()
        self._end_run()
        if self._parts:
            yield self._joined()

    def _joined(self) -> bytes:
        parts, self._parts, self._size = self._parts, [], 0
        return b"".join(parts)

    def _take(self, note: Note) -> None:
        if isinstance(note, Hand):
            self._handed(note)
            return
        self._end_run()
        match note:
            case Round():
                if len(self._questions) >= QUESTIONS_MOST:
                    self._questions.clear()
                drew = Drew(note.draw, note.now_ms, note.turned_ms, tuple(self._look(one) for one in note.seen))
                self._write(drew_row(drew, self._question))
            case Tallied(now_ms, tallies, urgent):
                accepted = tuple(Accepted(i, t.counts, i in urgent or t.high) for i, t in tallies.items())
                self._write(row_of(Counted(now_ms, accepted)))
            case Gone(now_ms, viewer):
                known = self._viewers.pop(viewer, None)
                if known is not None:
                    self._write(row_of(Left(now_ms, known.number)))
            case Start():
                raise AssertionError("a file begins only at its beginning")
            case _:
                self._write(row_of(note))

    def _look(self, seen: Seen) -> Look:
        sight = seen.sight
        known = self._known(sight.viewer)
        fresh = sight.kind is Kind.SNAPSHOT or sight.claimed is not None
        held = seen.held if not fresh and seen.held != known.held else None
        seq = seen.seq if seen.seq != known.seq + 1 else None
        if held is not None:
            known.held = held
        known.seq = seen.seq - 1
        budget, behind = _budget(seen)
        ages = behind if sight.kind is not Kind.SNAPSHOT and behind != known.ages else None
        if ages is not None:
            known.ages = ages
        told = seen.told if seen.told != known.told else None
        known.told = seen.told
        claimed = None if sight.claimed is None else tuple((event_id, version) for event_id, version in sight.claimed)
        return Look(
            known.number,
            seen.question,
            sight.kind,
            sight.threshold,
            seen.reasons,
            sight.ref,
            claimed,
            held,
            seq,
            budget,
            ages,
            seen.counted,
            told,
        )

    def _question(self, question: Question) -> int:
        number = self._questions.get(question)
        if number is None:
            number = self._questions[question] = len(self._questions)
            self._write(["q", number, question_row(question)])
        return number

    def _handed(self, note: Hand) -> None:
        if note.draw < self._first_draw:
            return  # Drawn before this file began: the viewer's next round says what it holds.
        if note.draw != self._run_of:
            self._end_run()
            self._run_of = note.draw
        known = self._known(note.viewer)
        known.ages = note.ages
        if note.frame is None:
            self._run.append(Handed(note.draw, note.place))
            return
        known.held, known.seq, known.told = note.held, note.seq, note.told
        self.frames += 1
        self._run.append(Handed(note.draw, note.place, note.seq, len(note.frame), hash_of(note.frame)))

    def _end_run(self) -> None:
        if self._run:
            self._write(handed_row(self._run_of, self._run))
            self._run = []

    def _write(self, row: Sequence[object]) -> None:
        record = framed(row)
        self.records += 1
        self._size += len(record)
        self._parts.append(record)


def _budget(seen: Seen) -> tuple[Budget, Ages]:
    """The budget that a viewer was looked at with, and what it was behind with."""
    terms = seen.terms
    if terms is None:
        return PLAIN, NO_AGES
    most = None if terms.room is None else terms.room + frames.longest_head(seen.sight.ref)
    return Budget(terms.delta, 0, most), terms.ages
