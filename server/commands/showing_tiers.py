"""The demo's tiers: sample people, classified, two months planned and verified S to D, and now and then a booking.

A client like any other, over HTTP: each turn asks how far a month is (`GET /tiers/state`) and does what is next, so that it
goes on where it was after a restart. When everything is planned it books a slot a turn, up to BOOKINGS_MOST.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib import resources
from typing import Final

from server.batching.loop import Occasion, Turn
from server.commands.calling import Failed, Json, Server
from server.commands.operating import inner

STEP_MS: Final = 3_000
MONTHS: Final = 2
"""This one, of which the lead times leave only the rest, and the next."""
BOOKINGS_MOST: Final = 40
LOOKED_AT: Final = 200
"""People among whom slots to book are looked for."""
PEOPLE: Final = "people.csv"


class Casting:
    """The client that keeps the demo's tiers going."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._imported = False
        self._booked = 0

    async def turn(self, occasion: Occasion) -> Turn:
        """The next step of the first month that is not through; then a booking."""
        async with Server(self._url, self._token) as there:
            if not self._imported:
                await there.upload("/tiers/people", (), _sample(), "text/csv")
                self._imported = True
            for month in months(occasion.now_ms):
                did = await self._step(there, month)
                if did != "done":
                    return Turn(1, 1, detail={"did": did})
            return await self._book(there)

    async def _step(self, there: Server, month: str) -> str:
        """What was done for this month; `done`: there is nothing left to do."""
        state = await there.get("/tiers/state", [("month", month)])
        following = inner(state, "next")
        action, tier = str(following.get("action")), following.get("tier")
        if state.get("running"):
            return "wait"
        if action == "classify":
            await there.call("POST", "/tiers/classify", body={"mode": "new-only"})
        elif action in ("generate", "verify"):
            await there.call("POST", f"/tiers/{action}", body={"tier": tier, "month": month})
        return "done" if action == "look" else action

    async def _book(self, there: Server) -> Turn:
        if self._booked >= BOOKINGS_MOST:
            return Turn()
        people = _rows(await there.get("/celebrities", [("limit", str(LOOKED_AT))]), "celebrities")
        if not people:
            return Turn()
        person = people[self._booked * 7 % len(people)]
        self._booked += 1
        slots = _rows(await there.get(f"/celebrities/{person['id']}/availability"), "slots")
        wanted = [slot for slot in slots if slot["status"] == "available"][:1]
        for slot in wanted:
            await there.call("POST", f"/availability/{slot['id']}/book", body={"key": f"demo {slot['id']}"})
        return Turn(len(wanted), len(wanted))


def months(now_ms: int) -> list[str]:
    """The months that the demo plans."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    first = 12 * now.year + now.month - 1
    return [f"{month // 12:04d}-{month % 12 + 1:02d}" for month in range(first, first + MONTHS)]


def _rows(answer: Json, name: str) -> list[Json]:
    rows = answer.get(name)
    return rows if isinstance(rows, list) else []


async def _sample() -> AsyncIterator[bytes]:
    file = resources.files("server") / "sample" / PEOPLE
    if not file.is_file():
        raise Failed(f"the sample {PEOPLE} is missing; install batchcast again")
    yield file.read_bytes()
