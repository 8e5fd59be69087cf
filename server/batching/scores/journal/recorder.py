"""The hooks: what the engine's thread and the event loop note for the journal, in the order in which it happens.

Nothing here waits, and nothing here looks into what it notes: references go into one queue, and the writer makes records of
them later. The queue is bounded, by notes and by the bytes of frames that it keeps alive; when it is full the recorder ends:
`overrun` says so, everything after is dropped, and the journal begins anew with a fresh file.

The order is right although two threads write: the engine notes a round behind its last look at a viewer, and the event loop
notes a frame before anything of its viewer changes. So what a round has seen stands before it in the queue; what it has not
seen moved the viewer's epoch, and then none of its drafts becomes true.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from server.batching.scores.audience import Viewer
from server.batching.scores.budget import Ages
from server.batching.scores.columns import Columns
from server.batching.scores.frame import Frame
from server.batching.scores.journal.records import Ended, Flushed, Forgot, Patched, Tuned
from server.batching.scores.plan import Settled, Tally
from server.batching.scores.question import Question
from server.batching.scores.rows import Copy
from server.batching.scores.views import Draft, Seen, Trace

NOTES: Final = 200_000
"""Notes that wait to be written; a draft that becomes true is one."""
NOTED_BYTES: Final = 128 << 20
"""Bytes of frames that the notes keep alive."""
EAGER_BYTES: Final = 4 << 20
"""So many waiting, and the writer is woken before its time."""


class Standing(NamedTuple):
    """How the event loop stood when a file began."""

    now_ms: int
    pending: Sequence[str]
    watching: Sequence[tuple[Viewer, Question]]
    tuned: Tuned


class Start(NamedTuple):
    """Behind this begins a new file: the world as it was here."""

    copy: Copy
    first_draw: int
    standing: list[Standing]
    """One, put in by the event loop before anybody writes what comes behind."""


class Round(NamedTuple):
    """The engine has drawn."""

    draw: int
    now_ms: int
    turned_ms: int
    seen: Sequence[Seen]


class Hand(NamedTuple):
    """A draft becomes true."""

    draw: int
    place: int
    viewer: Viewer
    seq: int
    held: bytes
    ages: Ages
    told: bytes
    frame: Frame | None


class Tallied(NamedTuple):
    """A commit has left these counters."""

    now_ms: int
    tallies: Mapping[str, Tally]
    urgent: frozenset[str]


class Gone(NamedTuple):
    """A viewer has left."""

    now_ms: int
    viewer: Viewer


Note: TypeAlias = Start | Round | Hand | Patched | Forgot | Tallied | Gone | Flushed | Tuned | Ended


class Recorder:
    """One per node, as long as it records without a gap; `views.Witness`."""

    def __init__(self, notes: int = NOTES, noted_bytes: int = NOTED_BYTES) -> None:
        self._queue: deque[Note] = deque()
        self._notes, self._noted_bytes = notes, noted_bytes
        self._draws = 0
        self.frame_bytes = 0
        """Of frames in the queue; only the event loop adds and takes away."""
        self.overrun = False

    def __len__(self) -> int:
        return len(self._queue)

    def _note(self, note: Note) -> None:
        if self.overrun:
            return
        if len(self._queue) >= self._notes or self.frame_bytes > self._noted_bytes:
            self.overrun = True  # What waits goes with this recorder.
            return
        self._queue.append(note)

    # In the engine's thread.

    def begin(self, columns: Columns) -> Start:
        """A new file begins here."""
        columns.take_turned()
        start = Start(columns.copied(), self._draws + 1, [])
        self._note(start)
        return start

    def drew(self, now_ms: int, columns: Columns, seen: Sequence[Seen]) -> int:
        """A round, behind its last look at a viewer."""
        self._draws += 1
        self._note(Round(self._draws, now_ms, columns.take_turned(), seen))
        return self._draws

    def patched(self, changes: Sequence[Settled], now_ms: int, columns: Columns) -> None:
        """The world follows these."""
        self._note(Patched(now_ms, columns.take_turned(), tuple(changes)))

    def forgot(self, columns: Columns) -> None:
        """Slots were given back."""
        self._note(Forgot(tuple(columns.remembered())))

    # On the event loop.

    def handed(self, trace: Trace, draft: Draft) -> None:
        """A draft becomes true; its viewer has not changed yet."""
        viewer, frame = draft.viewer, draft.frame
        if frame is None:
            self._note(Hand(trace.draw, trace.place, viewer, viewer.seq, viewer.held, draft.ages, viewer.told, None))
            return
        self.frame_bytes += len(frame)
        after = draft.held, draft.ages, draft.told
        self._note(Hand(trace.draw, trace.place, viewer, viewer.seq + 1, *after, frame))

    def counted(self, tallies: Mapping[str, Tally], urgent: set[str], now_ms: int) -> None:
        """A commit has left these counters."""
        if tallies:
            self._note(Tallied(now_ms, tallies, frozenset(urgent)))

    def left(self, viewer: Viewer, now_ms: int) -> None:
        """A viewer is gone."""
        self._note(Gone(now_ms, viewer))

    def told(self, what: Flushed | Tuned | Ended) -> None:
        """A turn of the batch, other settings, the end."""
        self._note(what)

    def take(self, most: int) -> list[Note]:
        """The oldest notes, at most so many, and never any behind a `Start` that is not the first."""
        taken: list[Note] = []
        while self._queue and len(taken) < most and not (taken and isinstance(self._queue[0], Start)):
            taken.append(self._queue.popleft())
        self.frame_bytes -= sum(len(one.frame) for one in taken if type(one) is Hand and one.frame is not None)
        return taken
