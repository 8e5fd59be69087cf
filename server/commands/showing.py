"""The demo's imports: a membership provider beside the server, and lists that are imported from it while the demo runs.

The provider is the double of the tests, a process of its own; so this part of the demo is there in a checkout only. Every
ORDER_MS a new list is ordered over HTTP, like anybody would, and the oldest one is removed when there are more than LISTS_MOST.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Final

import server
from server.batching.loop import Occasion, Turn
from server.commands.calling import Failed, Json, Server

ROOT: Final = Path(server.__file__).resolve().parents[1]
DOUBLE: Final = ROOT / "tests" / "doubles" / "members.py"
DOUBLES_SIZE: Final = ("--members", "6000", "--delay-ms", "150", "--total")
KEY: Final = "seals the demo's credentials, which are no secrets"
ORDER_MS: Final = 60_000
LISTS_MOST: Final = 12
STOP_S: Final = 5.0

ACCOUNTS: Final = {
    "biz_demo": "whop_good",
    "biz_1500": "whop_good",
    "biz_300": "whop_noscope",
}
"""The double's accounts and keys: all members, 1,500 of them; without e-mails (the job says why it failed)."""
NAMES: Final = ("Night market regulars", "Open-air jazz", "Lake runners", "Book swap", "Park yoga", "Sunday cinema")


@contextmanager
def provider(given: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The double, running, as settings of the server; nothing outside of a checkout, or when a provider is set already."""
    if "IMPORTS_PROVIDER_URL" in given or not DOUBLE.exists():
        yield {}
        return
    command = [sys.executable, "-m", "tests.doubles.members", *DOUBLES_SIZE]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            yield {"IMPORTS_PROVIDER_URL": url, "IMPORTS_KEY": KEY} if url else {}
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()


class Orders:
    """The client that orders imports."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._ready = False

    async def turn(self, occasion: Occasion) -> Turn:
        """First the credentials, one import of each account and a file; then one list a turn."""
        async with Server(self._url, self._token) as there:
            if not self._ready:
                await self._begin(there)
                self._ready = True
            name = NAMES[occasion.number % len(NAMES)]
            await there.call("POST", "/imports", body={"listName": name, "account": "biz_demo", "priority": 5})
            return Turn(1, 1, detail={"removed": await self._trim(there)})

    async def _begin(self, there: Server) -> None:
        answer = await there.get("/credentials")
        rows = answer.get("credentials")
        known = {row["account"] for row in rows} if isinstance(rows, list) else set()
        for number, (account, value) in enumerate(ACCOUNTS.items()):
            if account not in known:
                await there.call("POST", "/credentials", body={"account": account, "value": value})
            body: Json = {"listName": f"All of {account}", "account": account, "key": f"demo {account}"}
            await there.call("POST", "/imports", body={**body, "priority": number + 1})
        params = [("listName", "From a file"), ("key", "demo file"), ("fileName", "members.csv")]
        with suppress(Failed):  # The list of an earlier run may have been removed since.
            await there.upload("/imports", params, _sample(), "text/csv")

    async def _trim(self, there: Server) -> int:
        answer = await there.get("/audiences", [("limit", "1000")])
        rows = answer.get("audiences")
        old = rows[LISTS_MOST:] if isinstance(rows, list) else []
        for row in old:
            await there.call("DELETE", f"/audiences/{row['id']}")
        return len(old)


async def _sample() -> AsyncIterator[bytes]:
    yield (resources.files("server") / "sample" / "members.csv").read_bytes()
