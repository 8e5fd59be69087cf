"""Tasks: named, owned, taken down, and never silently dead."""

import asyncio

import pytest
from structlog.testing import capture_logs

from server.edge.tasks import REMEMBERED_DEATHS, Tasks, both


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


async def test_two_at_the_same_time_answer_both() -> None:
    met = asyncio.Barrier(2)

    async def says(what: int) -> int:
        await met.wait()
        return what

    async with asyncio.timeout(10):
        assert await both(says(1), says(2)) == (1, 2)


@pytest.mark.parametrize("first", [True, False])
async def test_what_one_of_two_raises_is_raised_as_it_is_when_the_other_has_ended(first: bool) -> None:
    ended: list[str] = []

    async def fails() -> None:
        raise ValueError("no such thing")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("waits")

    pair = (fails(), waits()) if first else (waits(), fails())
    with pytest.raises(ValueError, match="no such thing"):
        await both(*pair)
    assert ended == ["waits"]


async def test_who_is_cancelled_takes_both_along() -> None:
    ended: list[int] = []

    async def waits(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    task = asyncio.create_task(both(waits(1), waits(2)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [1, 2]
