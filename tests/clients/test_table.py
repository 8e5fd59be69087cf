"""Wire: every behaviour of the table, by the Python client, by JavaScript in Node, and by JavaScript in Chromium."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.clients.drivers import Driver, Python, in_node, in_tab
from tests.clients.table import TABLE, House, World, scene_in

pytestmark = pytest.mark.asyncio(loop_scope="module")
KINDS = ("python", "node", pytest.param("chromium", marks=pytest.mark.browser))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    async with AsyncExitStack() as ends:
        if request.param == "python":
            yield Python()
        elif request.param == "node":
            yield await ends.enter_async_context(in_node())
        else:
            yield await ends.enter_async_context(in_tab(request.getfixturevalue("open_chromium")))


@pytest.mark.parametrize("scene", TABLE, ids=lambda scene: scene.__name__)
async def test_behaviour(house: House, driver: Driver, scene: Callable[[World], Awaitable[None]]) -> None:
    async with scene_in(house, driver) as world:
        await scene(world)
        await world.is_true()
