"""Servers that a whole file of tests shares: a row must not harm it for the next."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.conftest import named, numbers, run_apart, short_folder, tell
from tests.serving import Live, live, until

NO_LIMIT = {"MESSAGES_PER_S": 100_000, "MESSAGES_BURST": 100_000, "PRODUCER_MESSAGES_PER_S": 100_000}


@asynccontextmanager
async def shared(cluster: str, template: str, **environ: object) -> AsyncIterator[Live]:
    """A server over a database of its own, both gone afterwards; at the end nobody may be left and nothing have died."""
    name, folder = f"test_{next(numbers)}", short_folder()
    run_apart(tell(cluster, f"create database {name} template {template}"))
    try:
        async with live(folder, named(cluster, name), **NO_LIMIT, **environ) as made:
            yield made
            await until(lambda: len(made.app.hub) == 0 and made.app.hub.expected == [], "all have gone")
            assert made.app.tasks.died == {}
    finally:
        run_apart(tell(cluster, f"drop database if exists {name} with (force)"))
        shutil.rmtree(folder, ignore_errors=True)
