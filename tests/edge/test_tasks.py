"""Tasks: named, owned, taken down, and never silently dead."""

import asyncio
from functools import partial

import pytest
from structlog.testing import capture_logs

from server.edge.tasks import REMEMBERED_DEATHS, Tasks, abreast, both


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


async def test_works_abreast_are_answered_in_order_and_never_more_of_them_than_allowed() -> None:
    under_way, most = 0, 0

    async def work(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(3 * (5 - number)):
            await asyncio.sleep(0)
        under_way -= 1
        return number

    assert await abreast([partial(work, number) for number in range(5)], 2) == [0, 1, 2, 3, 4]
    assert most == 2
    assert await abreast([], 2) == []


async def test_when_one_abreast_fails_those_under_way_end_no_other_begins_and_it_is_raised() -> None:
    began: list[int] = []
    ended: list[int] = []

    async def work(number: int) -> None:
        began.append(number)
        await asyncio.sleep(0)
        if number == 1:
            raise ValueError("no such thing")
        for _ in range(5):
            await asyncio.sleep(0)
        ended.append(number)

    with pytest.raises(ValueError, match="no such thing"):
        await abreast([partial(work, number) for number in range(6)], 2)
    assert (began, ended) == ([0, 1], [0])


async def test_of_both_the_one_that_goes_on_is_waited_for_when_the_other_fails() -> None:
    ended = []

    async def fails() -> None:
        raise ValueError("no such thing")

    async def goes_on() -> str:
        for _ in range(5):
            await asyncio.sleep(0)
        ended.append(1)
        return "well"

    assert await both(goes_on(), goes_on()) == ("well", "well")
    for pair in ((fails(), goes_on()), (goes_on(), fails())):
        ended.clear()
        with pytest.raises(ValueError, match="no such thing"):
            await both(*pair)
        assert ended == [1]


async def test_who_is_cancelled_takes_what_is_abreast_along() -> None:
    cancelled = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.append(1)

    for task in (asyncio.ensure_future(abreast([work, work], 2)), asyncio.ensure_future(both(work(), work()))):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
    assert len(cancelled) == 4
