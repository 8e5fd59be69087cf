"""The only place that creates tasks.

Every task has a name and an owner that takes it down. A task that dies of an exception is logged once, with its
traceback, and remembered in `died` (the newest 100), where health looks: nothing dies silently and nothing is restarted
behind anybody's back. `close` cancels what is left and waits for it; what does not end in time is named in the log.
`both` is for two things that one coroutine does at the same time: it owns them until they have ended.
"""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import structlog

T = TypeVar("T")
U = TypeVar("U")

REMEMBERED_DEATHS = 100

log = structlog.get_logger()


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


async def both(one: Coroutine[object, object, T], other: Coroutine[object, object, U]) -> tuple[T, U]:
    """Side by side. What one of them raises ends the other, and is raised when that has ended, too."""
    try:
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(one), group.create_task(other)
    except BaseExceptionGroup as raised:
        raise raised.exceptions[0] from None
    return first.result(), second.result()
