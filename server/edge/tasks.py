"""The only place that creates tasks.

Every task has a name and an owner that takes it down. A task that dies of an exception is logged once, with its
traceback, and remembered in `died` (the newest 100), where health looks: nothing dies silently and nothing is restarted
behind anybody's back. `close` cancels what is left and waits for it; what does not end in time is named in the log.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeVar, cast

import structlog

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

REMEMBERED_DEATHS = 100

log = structlog.get_logger()


async def both(one: Awaitable[A], other: Awaitable[B]) -> tuple[A, B]:
    """Two things at a time; neither outlives this call, and what one of them raises is raised when both have come to their end."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    for result in (first, second):
        if isinstance(result, BaseException):
            raise result
    return cast(A, first), cast(B, second)


async def abreast(works: Sequence[Callable[[], Awaitable[T]]], most: int) -> list[T]:
    """Their results in order, at most so many under way at a time; none of them outlives this call.

    After one has failed those under way come to their end, no other is begun, and the failure is raised."""
    left = iter(enumerate(works))
    done: dict[int, T] = {}
    failed: list[Exception] = []

    async def worker() -> None:
        for number, work in left:
            try:
                done[number] = await work()
            except Exception as error:  # noqa: BLE001 - raised below
                failed.append(error)
            if failed:
                return

    await asyncio.gather(*(worker() for _ in range(min(most, len(works)))))
    if failed:
        raise failed[0]
    return [done[number] for number in range(len(works))]


class Tasks:
    """The tasks of one owner (the program, a test)."""

    def __init__(self) -> None:
        self.died: dict[str, BaseException] = {}
        self._alive: set[asyncio.Task[object]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._alive)

    def start(self, name: str, coro: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run it in the background, under that name."""
        if self._closed:
            coro.close()
            raise RuntimeError(f"the task {name} was started after its owner had closed")
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._alive.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self, timeout_s: float = 10) -> None:
        """Cancel all and wait for them, those included that they start while they end; then nothing can be started."""
        self._closed = True
        mine = self._alive - {asyncio.current_task()}
        if not mine:
            return
        for task in mine:
            task.cancel()
        _, stuck = await asyncio.wait(mine, timeout=timeout_s)
        for task in stuck:
            log.error("task did not stop", task=task.get_name(), seconds=timeout_s)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._alive.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._remember(task.get_name(), error)

    def _remember(self, name: str, error: BaseException) -> None:
        self.died.pop(name, None)
        self.died[name] = error
        while len(self.died) > REMEMBERED_DEATHS:
            del self.died[next(iter(self.died))]
        log.error("task died", task=name, error=repr(error), exc_info=error)
