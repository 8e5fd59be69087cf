"""Tasks: named, owned, taken down, and never silently dead."""

import asyncio

import pytest
from structlog.testing import capture_logs

from server.edge.tasks import REMEMBERED_DEATHS, Tasks


async def test_a_task_that_dies_is_logged_once_and_remembered() -> None:
    tasks = Tasks()

    async def dies() -> None:
        raise ValueError("no such thing")

    with capture_logs() as logs:
        task = tasks.start("mortal", dies())
        await asyncio.wait({task})
        await asyncio.sleep(0)
    assert [(line["event"], line["task"]) for line in logs] == [("task died", "mortal")]
    assert str(tasks.died["mortal"]) == "no such thing"
    assert len(tasks) == 0


async def test_only_the_newest_deaths_are_remembered() -> None:
    tasks = Tasks()

    async def dies() -> None:
        raise ValueError

    with capture_logs():
        await asyncio.wait({tasks.start(f"mortal {number}", dies()) for number in range(REMEMBERED_DEATHS + 5)})
        await asyncio.sleep(0)
    assert len(tasks.died) == REMEMBERED_DEATHS


async def test_close_cancels_all_and_waits_until_they_have_cleaned_up() -> None:
    tasks = Tasks()
    cleaned: list[int] = []

    async def works(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)

    for number in range(3):
        tasks.start(f"works {number}", works(number))
    await asyncio.sleep(0)
    await tasks.close()
    assert sorted(cleaned) == [0, 1, 2]
    assert tasks.died == {}


async def test_a_task_that_does_not_stop_is_named() -> None:
    tasks = Tasks()
    release = asyncio.Event()

    async def stubborn() -> None:
        try:
            await release.wait()
        except asyncio.CancelledError:
            await release.wait()

    task = tasks.start("stubborn", stubborn())
    await asyncio.sleep(0)
    with capture_logs() as logs:
        await tasks.close(timeout_s=0.01)
    assert [(line["event"], line["task"]) for line in logs] == [("task did not stop", "stubborn")]
    release.set()
    await asyncio.wait({task})


async def test_nothing_is_started_after_the_owner_has_closed() -> None:
    tasks = Tasks()
    await tasks.close()
    with pytest.raises(RuntimeError, match="late"):
        tasks.start("late", asyncio.sleep(0))


async def test_a_task_may_close_its_own_owner() -> None:
    tasks = Tasks()
    other = tasks.start("other", asyncio.sleep(3600))
    closer = tasks.start("closer", tasks.close())
    await asyncio.wait({closer})
    assert other.cancelled()
    assert not closer.cancelled()
