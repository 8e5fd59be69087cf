"""A journal played again: the same world, the same rounds, the same frames to the byte.

    with opened(path) as journal:  report = replayed(journal, verify=True)

The rounds run in the order in which the engine's thread ran them, on the moments that they were given: nothing here reads a
clock. A draft counts when the journal says that it became true; what was thrown away then is computed and thrown away again.
The first frame that differs ends the replay: what follows would only follow from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from server.batching.scores.audience import Held, Viewer
from server.batching.scores.budget import Ages
from server.batching.scores.columns import Columns
from server.batching.scores.desk import follow
from server.batching.scores.frame import Frame
from server.batching.scores.journal.reader import Journal
from server.batching.scores.journal.records import (
    Drew,
    Ended,
    Forgot,
    Handed,
    Header,
    Left,
    Look,
    Patched,
    Record,
    hash_of,
)
from server.batching.scores.kernel import NUMBA
from server.batching.scores.lookout import Lookout
from server.batching.scores.views import Draft, Kind, Sight, draw
from server.errors import Code, Refused
from server.protocol.values import to_iso

ROUNDS_KEPT: Final = 2048
"""Rounds whose drafts may still become true; a server has far fewer under way."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Difference:
    """The first frame that is not what was recorded; a length of None: no frame."""

    now_ms: int
    viewer: int
    kind: Kind
    seq: int
    recorded: int | None
    replayed: int | None


@dataclass(slots=True)
class Report:
    """How a replay went."""

    began_ms: int
    until_ms: int
    records: int = 0
    rounds: int = 0
    frames: int = 0
    nothing: int = 0
    """Drafts that became true without a frame: their viewers were up to date."""
    bytes: int = 0
    viewers: int = 0
    failed: int = 0
    """Patches that raised, as they did then."""
    ended: str | None = None
    """Why the file was ended; None: it was cut off, or goes on."""
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """A draft, without its text."""

    viewer: int
    kind: Kind
    seq: int
    held: Held
    ages: Ages
    told: bytes
    frame: tuple[int, int] | None
    """Length and hash."""


class Nowhere:
    """Where nothing is handed to: a replay compares, and throws away."""

    free = True

    def hand(self, frame: Frame) -> None:
        """Take one frame."""

    async def until_free(self) -> None:
        """It is."""

    def supersede(self) -> None:
        """Nobody comes back here."""


class Stage:
    """The world and its viewers, moved on by records."""

    def __init__(self, header: Header, columns: Columns) -> None:
        self.lookout = Lookout(columns, header.rules)
        self.columns = columns
        self.viewers: dict[int, Viewer] = {}
        self.failed = 0
        self._drawn: dict[int, tuple[int, list[Drawn]]] = {}
        self._order: deque[int] = deque()

    def draw(self, drew: Drew) -> None:
        """Draw a round again."""
        self._turn(drew.turned_ms)
        sights = [self._sight(look) for look in drew.looks]
        try:
            drafts = draw(self.lookout, sights, drew.now_ms)
        except Exception as error:  # It worked then: the world is not the one of that moment.
            where = f"round {drew.draw} of {to_iso(drew.now_ms)}"
            raise Refused(
                Code.BAD_MESSAGE,
                f"{where} cannot be drawn again ({error!r}); replay with --verify to see where it begins to differ",
            ) from error
        self.columns.take_turned()
        self._drawn[drew.draw] = drew.now_ms, [_drawn(*pair) for pair in zip(drew.looks, drafts, strict=True)]
        self._order.append(drew.draw)
        if len(self._order) > ROUNDS_KEPT:
            self._drawn.pop(self._order.popleft())

    def hand(self, handed: Handed) -> tuple[int, Drawn]:
        """What became true: its round's moment and the draft; `held` and seq of its viewer advance."""
        found = self._drawn.get(handed.draw)
        if found is None or handed.place >= len(found[1]):
            raise Refused(Code.BAD_MESSAGE, f"the journal hands over draft {handed.place} of a round it does not have")
        now_ms, drafts = found
        drawn = drafts[handed.place]
        viewer = self.viewers.get(drawn.viewer)
        if viewer is not None:
            viewer.ages = drawn.ages
        if viewer is not None and drawn.frame is not None and handed.hash is not None:
            viewer.held, viewer.seq, viewer.told = drawn.held, drawn.seq, drawn.told
        return now_ms, drawn

    def patch(self, patched: Patched) -> None:
        """Have the world follow; a patch that raised then raises now, and the world stands as it did."""
        self._turn(patched.turned_ms)
        try:
            for one in patched.changes:
                follow(self.columns, one, patched.now_ms)
        except Exception as error:  # noqa: BLE001  as in the engine's thread
            self.failed += 1
            log.debug("patch failed", error=repr(error))

    def forget(self, forgot: Forgot) -> None:
        """Give slots back."""
        self.columns.forget(np.array(forgot.remembered, np.int32))

    def leave(self, left: Left) -> None:
        """A viewer is gone."""
        self.viewers.pop(left.viewer, None)

    def _turn(self, turned_ms: int) -> None:
        if turned_ms:
            self.columns.refresh(turned_ms)

    def _sight(self, look: Look) -> Sight:
        viewer = self.viewers.get(look.viewer)
        if viewer is None:
            viewer = self.viewers[look.viewer] = Viewer(str(look.viewer), look.question, Nowhere())
        viewer.question, viewer.reasons, viewer.clusters = look.question, look.reasons, look.clusters
        viewer.budget = look.budget
        if look.ages is not None:
            viewer.ages = look.ages
        if look.told is not None:
            viewer.told = look.told
        if look.held is not None:
            viewer.held = look.held
        if look.seq is not None:
            viewer.seq = look.seq - 1
        return Sight(viewer, look.kind, look.threshold, look.ref, look.claimed)


def _drawn(look: Look, draft: Draft) -> Drawn:
    frame = draft.frame
    text = None if frame is None else (len(frame), hash_of(frame))
    return Drawn(look.viewer, look.kind, draft.viewer.seq + 1, draft.held, draft.ages, draft.told, text)


def replayed(
    journal: Journal,
    *,
    verify: bool = False,
    to_ms: int | None = None,
    read: Callable[[int], object] = lambda count: None,
) -> Report:
    """Play it, to a moment at most; with `verify` every frame is compared, and the first difference ends it."""
    stage = Stage(journal.header, journal.columns())
    report = Report(journal.header.began_ms, journal.header.began_ms)
    for record in journal.records(read):
        at = getattr(record, "now_ms", None)
        if to_ms is not None and isinstance(at, int) and at > to_ms:
            break
        report.records += 1
        report.until_ms = max(report.until_ms, at or 0)
        _step(stage, record, report, verify=verify)
        if report.difference is not None:
            break
    report.viewers, report.failed = max(report.viewers, len(stage.viewers)), stage.failed
    return report


def _step(stage: Stage, record: Record, report: Report, *, verify: bool) -> None:
    match record:
        case Drew():
            report.rounds += 1
            stage.draw(record)
            report.viewers = max(report.viewers, len(stage.viewers))
        case Handed():
            _compare(record, *stage.hand(record), report, verify=verify)
        case Patched():
            stage.patch(record)
        case Forgot():
            stage.forget(record)
        case Left():
            stage.leave(record)
        case Ended():
            report.ended = record.why
        case _:
            pass  # Inputs of a simulation; frames follow from what is above.


def _compare(handed: Handed, now_ms: int, drawn: Drawn, report: Report, *, verify: bool) -> None:
    then = None if handed.hash is None else (handed.size, handed.hash)
    if then is None:
        report.nothing += 1
    else:
        report.frames += 1
        report.bytes += handed.size
    same = then == drawn.frame and (then is None or handed.seq == drawn.seq)
    if verify and not same:
        sizes = (one and one[0] for one in (then, drawn.frame))
        report.difference = Difference(now_ms, drawn.viewer, drawn.kind, handed.seq or drawn.seq, *sizes)


def said_of(header: Header) -> Sequence[str]:
    """What may explain a difference: how this program is not the one that recorded."""
    engine = "compiled" if NUMBA else "numpy"
    return (
        [] if header.engine == engine else [f"it was recorded by the {header.engine} engine, this is the {engine} one"]
    )
