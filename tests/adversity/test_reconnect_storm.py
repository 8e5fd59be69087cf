"""Everybody is cut off at once and comes back at once: each is told what has changed, and nothing else; the work is shared.

The server and its thousand clients are in this process, so the clients are as plain as can be: the bytes of a handshake, one
message, frames. How long it takes is not looked at; counts are.
"""

import asyncio
import math
import os
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import orjson

from server.batching.scores.audience import Audience
from server.batching.scores.engine import TOGETHER
from server.client import View
from tests.handlers.pipe import TEXT, frame
from tests.serving import BERLIN, Live, spread, until
from tests.wire.raw import Raw

CROWD = int(os.environ.get("STORM", "1000"))
AT_ONCE = 100
"""Handshakes under way together; the kernel's backlog is bounded."""
EVENTS = 50
MOST_DRAWINGS = math.ceil(CROWD / TOGETHER) + 4
"""A round of the engine's each, and some that other work of its has cut short."""


@dataclass
class Caller:
    """A client that has come in: what it was told, and how many bytes its first frame had."""

    raw: Raw
    session: str
    recovered: bool
    first: dict[str, Any]
    size: int


def audience(place: Live) -> Audience:
    return place.app.feed.desk.audience


async def dialled(place: Live) -> list[Raw]:
    raws: list[Raw] = []
    while len(raws) < CROWD:
        raws += await asyncio.gather(*(Raw.open(place.ws_port) for _ in range(min(AT_ONCE, CROWD - len(raws)))))
    return raws


async def come(raw: Raw, resume: dict[str, Any] | None) -> Caller:
    said = {
        "type": "register",
        "viewport": BERLIN,
        "maxEvents": EVENTS,
        **({} if resume is None else {"resume": resume}),
    }
    raw.say(frame(TEXT, orjson.dumps(said)))
    registered = await raw.message()
    assert registered["type"] == "registered", registered
    _, payload = await raw.frame()
    return Caller(raw, registered["session"], registered["recovered"], orjson.loads(payload), len(payload))


async def storm(place: Live, before: list[Caller] | None = None, **resume: Any) -> list[Caller]:
    """All register in one moment: the engine is held up until the last has asked."""
    raws, gate = await dialled(place), threading.Event()
    held_up = place.app.feed._engine.ask(lambda lookout: gate.wait(60))
    names = [None if before is None else {"session": one.session, **resume} for one in before or raws]
    coming = asyncio.gather(*(come(raw, name) for raw, name in zip(raws, names, strict=True)))
    everybody = audience(place)
    await until(lambda: len(everybody) == CROWD and all(one.expecting for one in everybody), "all have asked")
    gate.set()
    await held_up
    return await coming


async def cut(place: Live, callers: list[Caller]) -> None:
    for caller in callers:
        caller.raw.leave()
    await until(lambda: not len(place.app.hub), "all of them are gone")


async def change_a_little(place: Live) -> None:
    """One of each; the new one stands where the one was that goes, so that nobody's score moves."""
    await place.put({"id": "e0", "title": "Changed"}, {**spread(EVENTS)[1], "id": "new"})
    await place.ask("DELETE", "/events/e1")
    await place.still()


def drawings(place: Live) -> int:
    """How many differences were made for all of them: those who share one hold the same object."""
    return len({id(one.held) for one in audience(place)})


def check(place: Live, before: Caller, after: list[Caller], *, changed: bool = True, updates: int = 1) -> None:
    """Each was handed one frame: the same difference, after which it holds what the server believes."""
    view = View()
    view.apply(before.first)
    view.seq = 0
    assert Counter(one.recovered for one in after) == {True: CROWD}
    assert Counter((one.first["type"], one.first["seq"]) for one in after) == {("changes", 1): CROWD}
    assert view.apply(after[0].first).matches
    assert {one.first["digest"] for one in after} == {view.digest}
    assert {(one.seq, f"{one.digest:016x}") for one in audience(place)} == {(1, view.digest)}
    parts = [one.first["updates"] for one in after]
    counts = Counter(tuple(len(one[name]) for name in ("creates", "updates", "deletes")) for one in parts)
    assert counts == {(1, updates, 1) if changed else (0, 0, 0): CROWD}
    assert drawings(place) <= MOST_DRAWINGS
    print(f"{CROWD} came back with {sum(one.size for one in after)} bytes; snapshots were {CROWD * before.size}")


async def test_a_thousand_that_were_cut_off_are_each_told_what_has_changed(place: Live) -> None:
    await place.put(*spread(EVENTS))
    before = await storm(place)
    assert drawings(place) <= MOST_DRAWINGS
    await cut(place, before)
    assert (await place.stats())["sessionsRemembered"] == CROWD
    await change_a_little(place)
    after = await storm(place, before, seq=1)
    check(place, before[0], after)
    assert sum(one.size for one in after) * 5 < CROWD * before[0].size
    assert (await place.stats())["sessionsRemembered"] == 0


async def test_nor_do_they_wait_for_the_server_to_notice_that_they_were_gone(place: Live) -> None:
    await place.put(*spread(EVENTS))
    before = await storm(place)
    after = await storm(place, before, seq=1)
    check(place, before[0], after, changed=False)
    assert Counter(await asyncio.gather(*(ended(one.raw) for one in before))) == {4004: CROWD}
    await until(lambda: len(place.app.hub) == CROWD, "the old connections are gone")
    assert (await place.stats())["sessionsRemembered"] == 0


async def ended(raw: Raw) -> int:
    code = await raw.closed()
    raw.leave()
    return code


async def test_those_who_say_what_they_hold_share_the_work_too(place: Live) -> None:
    await place.put(*spread(EVENTS))
    before = await storm(place)
    await cut(place, before)
    await change_a_little(place)
    held = [[one["id"], one["version"]] for one in before[0].first["events"]]
    after = await storm(place, before, held=held)
    check(place, before[0], after, updates=EVENTS - 1)
