"""A server and a browser for a whole file of tests: a scene begins with a new client and without events."""

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.clients.drivers import Chromium, chromium
from tests.clients.table import House
from tests.conftest import named, numbers, run_apart, short_folder, tell


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(cluster: str, template: str) -> AsyncIterator[House]:
    database, folder = f"clients_{next(numbers)}", short_folder()
    run_apart(tell(cluster, f"create database {database} template {template}"))
    house = House(named(cluster, database), folder)
    await house.begin()
    yield house
    await house.end()
    run_apart(tell(cluster, f"drop database {database} with (force)"))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def open_chromium() -> Iterator[Chromium]:
    with chromium() as opened:
        yield opened
