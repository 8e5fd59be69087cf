"""The engine: one thread that owns the published world, and the mailbox through which the event loop asks it.

    post(patch) --------> patches      first, in commit order: what was acknowledged is in everything that starts afterwards
    see, ask -----------> interactive  snapshots, pans, immediate changes, explanations; those that wait together share a moment
    look ---------------> slices       walks over many viewers, a fixed count of them each
                                |
                        engine's thread -----> futures on the event loop

Between two slices whatever is more urgent goes first, so a pan waits for one slice at most. Nothing but this thread touches
columns; the event loop gets values. `threaded=False` does the same work at once where it is asked for, which is what virtual
time and replays need. A patch that fails is a bug: it is logged with its ids, and the engine goes on.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

import structlog

from server.batching.scores.lookout import Lookout
from server.batching.scores.views import Draft, Sight, Witness, draw
from server.edge.clock import Clock

T = TypeVar("T")
TOGETHER: Final = 128
"""Interactive sights that share one moment; more wait for the next."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Job(Generic[T]):
    """Work and who waits for it."""

    work: Callable[[Lookout], T]
    answer: asyncio.Future[T]


@dataclass(slots=True)
class _Wish:
    """An interactive sight that waits."""

    sights: Sequence[Sight]
    answer: asyncio.Future[list[Draft]]


class Engine:
    """One per node. Use it from one event loop; `start` before, `close` after."""

    def __init__(self, lookout: Lookout, clock: Clock, *, threaded: bool = True) -> None:
        self._lookout = lookout
        self._clock = clock
        self._threaded = threaded
        self._patches: deque[Callable[[Lookout], None]] = deque()
        self._wishes: deque[_Wish | _Job[Any]] = deque()
        self._slices: deque[_Job[Any]] = deque()
        self._work = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.drawing = 0
        """Who draws and has not handed over: what would renumber rows or slots waits for their end."""
        self.witness: Witness | None = None
        """The journal, while there is one."""

    def start(self) -> None:
        """Begin to work; before that, and after close, nothing may be asked."""
        self._loop = asyncio.get_running_loop()
        if self._threaded and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        with self._work:
            self._closing = True
            self._work.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    @property
    def events(self) -> int:
        """How many events there are, as far as the thread has come."""
        return len(self._lookout.columns)

    @property
    def waiting(self) -> int:
        """How much waits for the thread."""
        return len(self._patches) + len(self._wishes) + len(self._slices)

    # What the event loop asks.

    def post(self, patch: Callable[[Lookout], None]) -> None:
        """Change the world, in order; whatever is asked later sees it."""
        if self._thread is None:
            self._apply(patch)
            self._settle_down()
            return
        self._put(self._patches, patch)

    def tell(self, notice: Callable[[], None]) -> None:
        """For patches: have something done on the event loop."""
        if self._thread is None or self._loop is None:
            notice()
        else:
            self._loop.call_soon_threadsafe(notice)

    def see(self, sights: Sequence[Sight]) -> asyncio.Future[list[Draft]]:
        """Drafts of a few viewers, now, before any slice of a walk."""
        wish = _Wish(sights, asyncio.get_running_loop().create_future())
        if self._thread is None:
            wish.answer.set_result(draw(self._lookout, sights, self._clock.now_ms(), self.witness))
        else:
            self._put(self._wishes, wish)
        return wish.answer

    def look(self, sights: Sequence[Sight], now_ms: int, *, urgent: bool = False) -> asyncio.Future[list[Draft]]:
        """Drafts of one slice of a walk that began at `now_ms`; an urgent one goes before the others."""
        return self._do(lambda lookout: draw(lookout, sights, now_ms, self.witness), urgent=urgent)

    def ask(self, question: Callable[[Lookout], T]) -> asyncio.Future[T]:
        """Any other look at the world, in turn with `see`."""
        return self._do(question, urgent=True)

    def spare(self, work: Callable[[Lookout], T]) -> asyncio.Future[T]:
        """A slice of work that nobody waits for: behind patches and all that is interactive, in turn with walks."""
        return self._do(work, urgent=False)

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Rows and slots stay as they are: from the first draft asked for until the last is handed over or thrown away."""
        self.drawing += 1
        try:
            yield
        finally:
            self.drawing -= 1

    def _do(self, work: Callable[[Lookout], T], *, urgent: bool) -> asyncio.Future[T]:
        job = _Job(work, asyncio.get_running_loop().create_future())
        if self._thread is None:
            job.answer.set_result(job.work(self._lookout))
        elif urgent:
            self._put(self._wishes, job)
        else:
            self._put(self._slices, job)
        return job.answer

    def _put(self, where: deque[T], item: T) -> None:
        with self._work:
            where.append(item)
            self._work.notify()

    # The thread.

    def _run(self) -> None:
        while self._go_on():
            while self._patches:
                self._apply(self._patches.popleft())
            if self._wishes:
                self._answer_wishes()
            elif self._slices:
                self._answer(self._slices.popleft())

    def _go_on(self) -> bool:
        """Wait until there is something to do; False when there never will be again."""
        if not self._busy():
            self._settle_down()
        with self._work:
            while not self._busy() and not self._closing:
                self._work.wait()
            return self._busy()

    def _busy(self) -> bool:
        return bool(self._patches or self._wishes or self._slices)

    def _answer_wishes(self) -> None:
        """The first that waits, together with the sights right behind it."""
        first = self._wishes.popleft()
        if isinstance(first, _Job):
            self._answer(first)
            return
        together, sights = [first], list(first.sights)
        while self._wishes and isinstance(self._wishes[0], _Wish) and len(sights) < TOGETHER:
            wish = self._wishes.popleft()
            assert isinstance(wish, _Wish)
            together.append(wish)
            sights += wish.sights
        try:
            drafts = draw(self._lookout, sights, self._clock.now_ms(), self.witness)
        except Exception as error:  # noqa: BLE001  the asker's failure, never the thread's
            self._give(partial(_fail, [wish.answer for wish in together], error))
            return
        self._give(partial(_share, together, drafts))

    def _answer(self, job: _Job[Any]) -> None:
        try:
            result = job.work(self._lookout)
        except Exception as error:  # noqa: BLE001  the asker's failure, never the thread's
            self._give(partial(_fail, [job.answer], error))
            return
        self._give(partial(_succeed, job.answer, result))

    def _give(self, outcome: Callable[[], object]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(outcome)
        except RuntimeError:
            log.debug("answer dropped", reason="the event loop is closed")

    def _apply(self, patch: Callable[[Lookout], None]) -> None:
        try:
            patch(self._lookout)
        except Exception as error:
            log.error("patch failed", exc_info=error)

    def _settle_down(self) -> None:
        """Nothing waits: what would hold up a walk is done now."""
        if not self.drawing and self._lookout.columns.merge_due:
            self._lookout.columns.merge()


def _share(together: Sequence[_Wish], drafts: Sequence[Draft]) -> None:
    start = 0
    for wish in together:
        end = start + len(wish.sights)
        _succeed(wish.answer, list(drafts[start:end]))
        start = end


def _succeed(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answers: Sequence[asyncio.Future[Any]], error: Exception) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
