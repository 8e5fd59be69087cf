"""One table of behaviours that every client has, whatever it is written in: TABLE, at the end.

Each row is a short scene with a real server, a proxy between it and the client that does harm on request, and one client that
the scene only drives and looks at. `World` is what a scene plays in. What must hold after every scene is said once, in
`World.is_true`: the client holds the ids and versions of a fresh view, best first, and its digest is the server's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.clients.drivers import Driver, Look, Message, seen
from tests.clients.proxy import Proxy, unchanged
from tests.serving import BERLIN, Live, Talk, event, live, spread, until

PARIS = {"west": 2.0, "south": 48.0, "east": 3.0, "north": 49.0}
LOUVRE = {"latitude": 48.86, "longitude": 2.34}
MUSIC = [{"categories": {"include": ["music"]}}]


@dataclass
class House:
    """The server of all scenes; it can be started again, over the same database."""

    dsn: str
    folder: Path
    _place: Live | None = None
    _end: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def place(self) -> Live:
        assert self._place is not None, "the server is down"
        return self._place

    async def begin(self) -> None:
        self._place = await self._end.enter_async_context(live(self.folder, self.dsn, MESSAGES_PER_S=60))

    async def end(self) -> None:
        self._place = None
        await self._end.aclose()

    async def clear(self) -> None:
        """No events, and nobody who looks."""
        while events := (await self.place.ask("GET", "/events?limit=1000")).json["events"]:
            await asyncio.gather(*(self.place.ask("DELETE", f"/events/{quote(e['id'], safe='')}") for e in events))
        while (await self.place.stats())["registeredUsers"]:
            await asyncio.sleep(0.02)


@dataclass
class World:
    """An empty server, the way to it, and a client that has not begun."""

    house: House
    driver: Driver
    proxy: Proxy
    question: Message = field(default_factory=lambda: {"viewport": BERLIN})
    sub: str | None = None

    @property
    def place(self) -> Live:
        return self.house.place

    async def restarted(self) -> None:
        await self.house.end()
        await self.house.begin()
        self.proxy.target = self.place.ws_port

    async def opened(self, **options: Any) -> Look:
        """The client, begun and live with its snapshot."""
        await self.driver.open(self.proxy.url, **{**self.question, **options})
        return await self.see(is_live, "the client is live")

    async def see(self, fact: Callable[[Look], object], what: str) -> Look:
        return await seen(self.driver, fact, what)

    async def back(self, connections: int) -> Look:
        """The client, live again on its so-manieth connection."""
        return await self.see(lambda look: is_live(look) and look["connections"] == connections, "the client is back")

    async def is_true(self) -> Look:
        """Wait until the client holds what a fresh viewer with the same question sees."""
        await self.place.still()
        fresh = await self.fresh()
        held = {one["id"]: one["version"] for one in fresh.view.ranked()}

        def agrees(look: Look) -> bool:
            return bool(look["held"] == held and look["digest"] == fresh.view.digest)

        look = await self.see(agrees, f"the client holds {str(held)[:1000]}")
        await fresh.socket.close()
        assert look["ranked"] == sorted(held, key=lambda one: (-look["scores"][one], starts(fresh)[one], one))
        return look

    async def fresh(self) -> Talk:
        """A new viewer with the client's question; it has read its snapshot."""
        role = None if self.sub is None else "viewer"
        return await self.place.watching(role, self.sub, **self.question)

    async def hold(self, *events: Message) -> Look:
        """Store these and wait until the client holds them."""
        await self.place.put(*events)
        names = {one["id"] for one in events}
        return await self.see(lambda look: names <= look["held"].keys(), f"{names} are held")


@asynccontextmanager
async def scene_in(house: House, driver: Driver) -> AsyncIterator[World]:
    """A world for one scene."""
    await house.clear()
    async with Proxy(house.place.ws_port) as proxy:
        try:
            yield World(house, driver, proxy)
        finally:
            await driver.close()


def starts(talk: Talk) -> dict[str, str]:
    return {name: str(one["start"]) for name, one in talk.view.events.items()}


def is_live(look: Look) -> bool:
    return bool(look["state"] == "live" and look["seq"] >= 1)


def latest(look: Look) -> Message:
    return dict(look["changes"][-1]) if look["changes"] else {}


def all_match(look: Look) -> bool:
    return look["divergences"] == 0 and all(change["matches"] for change in look["changes"])


# --- what is held ---


async def a_snapshot_is_held_and_ranked_as_the_server_does(world: World) -> None:
    names = ("plain", "ümlaut", "🎷" * 128, 'quote"\\', "a\nb", "x" * 120)
    await world.place.put(*({**one, "id": name} for one, name in zip(spread(6), names, strict=True)))
    look = await world.opened()
    assert (set(look["held"]), look["seq"], look["recovered"]) == (set(names), 1, False)


async def creates_updates_and_deletes_arrive_at_once_and_match(world: World) -> None:
    first, second = spread(2)
    await world.place.put(first)
    await world.opened()
    await world.hold(second)
    before = (await world.is_true())["held"]["e0"]
    await world.place.put({**first, "title": "another"})
    await world.see(lambda look: look["held"].get("e0", 0) > before, "the change has arrived")
    await world.place.ask("DELETE", "/events/e1")
    look = await world.see(lambda look: set(look["held"]) == {"e0"}, "the event has gone")
    assert latest(look)["reasons"] == {"e1": "removed"}
    assert all_match(look)


async def a_batch_is_one_change_with_everything_that_moved(world: World) -> None:
    await world.place.put(*spread(9))
    await world.opened()
    for number in range(4):
        await world.place.count(f"e{number}", rsvpCount=number)
    await world.place.force()
    look = await world.see(lambda look: any(c["type"] == "batch-update" for c in look["changes"]), "a batch")
    batches = [change for change in look["changes"] if change["type"] == "batch-update"]
    assert len(batches) == 1
    assert {"e1", "e2", "e3"} <= set(batches[0]["updates"])
    assert all_match(look)


async def a_pan_brings_what_enters_and_says_why_the_rest_leaves(world: World) -> None:
    await world.place.put(*spread(3), event("louvre", location=LOUVRE))
    await world.opened()
    world.question = {"viewport": PARIS}
    answer = (await world.driver.turn("viewport", PARIS))["answer"]
    assert answer["type"] == "changes"
    look = await world.see(lambda look: look["ranked"] == ["louvre"], "Paris")
    assert latest(look)["reasons"] == dict.fromkeys(("e0", "e1", "e2"), "left_view")
    assert all_match(look)


async def of_many_pans_at_once_the_last_one_counts(world: World) -> None:
    await world.place.put(*spread(3), event("louvre", location=LOUVRE))
    await world.opened()
    boxes = [{**BERLIN, "west": 13.0 + n / 100} for n in range(20)]
    await asyncio.gather(*(world.driver.turn("viewport", box) for box in [*boxes, PARIS]))
    world.question = {"viewport": PARIS}
    assert all_match(await world.see(lambda look: look["ranked"] == ["louvre"], "Paris"))


async def changed_fields_are_laid_over_what_is_held(world: World) -> None:
    await world.place.put(*spread(4))
    before = (await world.opened(fields="delta"))["held"]
    await world.place.count("e2", rsvpCount=3, saveCount=5)
    await world.place.force()
    look = await world.see(lambda look: look["held"]["e2"] > before["e2"], "the batch has arrived")
    (batch,) = [message for message in world.proxy.passed if message["type"] == "batch-update"]
    updates = {one["id"]: set(one) for one in batch["updates"]["updates"]}
    assert updates["e2"] == {"id", "version", "scanCount", "saveCount", "rsvpCount", "relevanceScore"}
    assert updates["e0"] == {"id", "version", "relevanceScore"}, "it fell behind the other"
    assert look["titles"] == {f"e{number}": f"Title of e{number}" for number in range(4)}
    await world.place.put({"id": "e2", "title": "another"})
    look = await world.see(lambda look: look["titles"]["e2"] == "another", "a new title")
    assert all_match(look)


async def what_a_budget_left_out_follows_until_all_is_held(world: World) -> None:
    await world.place.put(*spread(12, description="x" * 100))
    await world.opened(maxBytesPerBatch=4096)
    look = await world.see(lambda look: len(look["held"]) == 12, "all of it has come")
    frames = [message for message in world.proxy.passed if "digest" in message]
    assert 1 < len(frames) < 5
    assert all(len(json.dumps(message, separators=(",", ":"))) <= 4096 for message in frames)
    assert all_match(look)


async def filters_leave_what_they_ask_for(world: World) -> None:
    await world.place.put(*spread(3), *spread(6, "m", categories=["music"])[3:])
    await world.opened()
    world.question = {"viewport": BERLIN, "filters": MUSIC}
    await world.driver.turn("filters", MUSIC)
    look = await world.see(lambda look: set(look["held"]) == {"m3", "m4", "m5"}, "music alone")
    assert set(latest(look)["reasons"].values()) == {"filtered"}
    assert all_match(look)


# --- what must not be believed ---


def once(change: Callable[[Message], list[Message]], kind: str, world: World) -> None:
    """Do this to the next message of that kind, and to no other."""

    def edit(message: Message) -> list[Message]:
        if message["type"] != kind:
            return [message]
        world.proxy.edit = unchanged
        return change(message)

    world.proxy.edit = edit


async def a_message_that_never_came_is_noticed_and_mended(world: World) -> None:
    first, second, third = spread(3)
    await world.place.put(first)
    await world.opened()
    once(lambda message: [], "add-event", world)
    await world.place.put(second)
    await until(lambda: any(m["type"] == "add-event" for m in world.proxy.passed), "the proxy has lost it")
    await world.hold(third)
    look = await world.is_true()
    assert look["divergences"] == 1
    assert [set(dict(m["held"])) for m in world.proxy.said("resync")] == [{"e0", "e2"}]


async def a_gap_in_seq_alone_is_noticed(world: World) -> None:
    await world.opened()
    world.proxy.edit = lambda message: [{**message, "seq": message["seq"] + 1} if "seq" in message else message]
    await world.hold(*spread(1))
    look = await world.see(lambda look: latest(look).get("matches"), "mended")
    assert (look["divergences"], len(world.proxy.said("resync"))) == (1, 1)


async def another_digest_is_noticed_and_mended(world: World) -> None:
    await world.place.put(*spread(1))
    await world.opened()
    once(lambda m: [{**m, "event": {**m["event"], "version": m["event"]["version"] + 7}}], "add-event", world)
    await world.hold(spread(2)[1])
    look = await world.is_true()
    assert look["divergences"] == 1
    assert "held" in world.proxy.said("resync")[0]


async def a_resync_that_does_not_help_is_followed_by_one_for_everything(world: World) -> None:
    await world.place.put(*spread(1))
    await world.opened()
    wrong = {"add-event", "changes"}
    world.proxy.edit = lambda m: [{**m, "digest": "0123456789abcdef"} if m["type"] in wrong else m]
    await world.place.put(spread(2)[1])
    look = await world.see(lambda look: look["divergences"] == 2 and latest(look)["matches"], "a snapshot mends it")
    assert latest(look)["type"] == "replace-all"
    assert ["held" in message for message in world.proxy.said("resync")] == [True, False]
    world.proxy.edit = unchanged


async def a_server_that_is_always_wrong_is_not_asked_without_end(world: World) -> None:
    await world.opened()
    world.proxy.edit = lambda m: [{**m, "digest": "0123456789abcdef"} if "digest" in m else m]
    await world.place.put(*spread(1))
    look = await world.see(lambda look: look["divergences"] == 3, "three messages that did not match")
    world.proxy.edit = unchanged
    assert (await world.driver.ask({"type": "ping"}))[0]["type"] == "pong"
    assert len(world.proxy.said("resync")) == 2
    assert not latest(look)["matches"]


async def a_kind_of_change_that_nobody_knew_is_mended_by_its_digest(world: World) -> None:
    await world.opened()
    once(lambda message: [{**message, "type": "teleport-event"}], "add-event", world)
    await world.place.put(*spread(1))
    assert (await world.is_true())["divergences"] == 1


async def what_a_client_does_not_know_it_leaves_alone(world: World) -> None:
    await world.opened()
    strange: tuple[Message | str, ...] = (
        {"type": "weather", "degrees": 3},
        {"type": "weather", "ref": "r999999"},
        {"type": "error", "code": "odd", "message": "a code of tomorrow", "retry": False},
        {"no": "type"},
        "[1, 2]",
        "{cut of",
        "null",
    )
    for message in strange:
        await world.proxy.inject(message)
    once(lambda m: [{**m, "new": [1], "event": {**m["event"], "new": {"a": 1}}}], "add-event", world)
    look = await world.hold(*spread(1))
    assert all_match(look)
    assert look["connections"] == 1
    assert "odd" in look["problems"]


# --- connections ---


async def a_restarted_server_is_resumed_with_what_is_held(world: World) -> None:
    await world.place.put(*spread(3))
    held = (await world.opened())["held"]
    world.proxy.shut()
    await world.restarted()
    await world.place.put(event("missed", location=spread(9)[8]["location"]))
    await world.place.ask("DELETE", "/events/e1")
    await until(lambda: world.proxy.refused > 0, "the client has tried while nobody was there")
    world.proxy.admit()
    look = await world.back(2)
    resume = world.proxy.said("register")[-1]["resume"]
    assert (dict(resume["held"]), resume["seq"]) == (held, 1)
    assert (look["recovered"], latest(look)["type"], look["seq"]) == (True, "changes", 1)
    assert (latest(look)["creates"], latest(look)["deletes"]) == (["missed"], ["e1"])
    assert all_match(look)


async def a_connection_cut_in_the_middle_of_a_frame_is_resumed(world: World) -> None:
    await world.place.put(*spread(3))
    await world.opened()
    world.proxy.cut_in_frame()
    await world.place.put(event("cut", location=spread(9)[8]["location"], description="long " * 200))
    look = await world.back(2)
    assert (look["held"].keys(), look["recovered"]) == ({"e0", "e1", "e2", "cut"}, True)
    assert [change["creates"] for change in look["changes"]].count(["cut"]) == 1
    assert all_match(look)


async def cut_again_and_again_it_comes_back(world: World) -> None:
    await world.place.put(*spread(3))
    await world.opened()
    for number in range(2, 6):
        world.proxy.cut()
        await world.place.put(spread(number + 2)[-1])
        assert all_match(await world.back(number))
        await world.is_true()


async def a_session_is_named_with_the_seq_that_came_in_it(world: World) -> None:
    """The second connection has a name, and breaks before its first change: what is held is still the first one's."""
    await world.place.put(*spread(3))
    await world.opened()
    world.proxy.edit = lambda message: [] if "seq" in message else [message]
    world.proxy.cut()
    await world.see(lambda look: look["recovered"], "the second one has been named")
    world.proxy.edit = unchanged
    world.proxy.cut()
    look = await world.back(3)
    first, second, _ = (message["session"] for message in world.proxy.passed if message["type"] == "registered")
    resume = world.proxy.said("register")[-1]["resume"]
    assert (resume["session"], resume["seq"]) == (first, 1) != (second, 1)
    assert all_match(look)


async def a_cut_in_the_handshake_or_the_registration_is_tried_again(world: World) -> None:
    world.proxy.shut()
    await world.driver.open(world.proxy.url, **world.question)
    await until(lambda: world.proxy.refused >= 2, "two attempts were cut off")
    world.proxy.cut_in_frame()
    world.proxy.admit()
    await world.see(is_live, "the client is live")
    assert len(world.proxy.said("register")) == 2


async def a_slow_start_is_waited_for(world: World) -> None:
    await world.place.put(*spread(3))
    world.proxy.stall()
    await world.driver.open(world.proxy.url, **world.question)
    await until(lambda: world.proxy.ways == 1, "the client waits for its handshake")
    world.proxy.flow()
    look = await world.see(is_live, "the client is live")
    assert look["connections"] == 1


async def a_connection_that_died_silently_is_made_anew(world: World) -> None:
    await world.place.put(*spread(2))
    await world.opened(quietMs=300, pulseMs=700)
    world.proxy.half_open()
    await world.place.put(spread(3)[2])
    # On a busy machine the next one may seem dead, too.
    look = await world.see(lambda look: is_live(look) and look["connections"] > 1, "the client is back")
    assert (set(look["held"]), look["recovered"]) == ({"e0", "e1", "e2"}, True)


async def a_quiet_connection_stays(world: World) -> None:
    await world.opened(quietMs=100)
    pings = world.proxy.pings
    await until(lambda: world.proxy.pings >= pings + 5, "five signs of life")
    assert (await world.is_true())["connections"] == 1


COMING_BACK = (
    (1000, ""),
    (1001, ""),
    (1011, "a bug of the server"),
    (1012, ""),
    (1012, "{oh"),
    (1012, '{"retryAfterMs": 50}'),
    (1012, '{"retryAfterMs": -1}'),
    (3000, "of tomorrow"),
    (4002, "twice the message limit"),
    (4003, "a frame waited too long"),
    (4004, "another connection has come back to this session"),
)


async def codes_that_mean_come_back_are_come_back_from(world: World) -> None:
    await world.place.put(*spread(2))
    await world.opened()
    for number, (code, reason) in enumerate(COMING_BACK, 2):
        await world.proxy.close(code, reason)
        assert all_match(await world.back(number)), code


async def codes_that_mean_stay_away_are_final(world: World) -> None:
    for number, code in enumerate((1002, 1003, 1007, 1009, 4001), 1):
        await world.opened()
        await world.proxy.close(code, "mend the client")
        look = await world.see(lambda look: look["state"] == "failed", f"{code} is final")
        assert str(code) in look["reason"]
        assert world.proxy.admitted == number
    await world.opened()


async def who_leaves_is_gone(world: World) -> None:
    await world.opened()
    assert (await world.place.stats())["registeredUsers"] == 1
    await world.driver.close()
    await until(lambda: world.proxy.ways == 0, "the connection is closed")
    await world.house.clear()
    await world.opened()


# --- who is asking ---


def private(name: str, sub: str) -> Message:
    return {**spread(9)[int(name[-1])], "id": name, "isPrivate": True, "creatorId": sub}


async def ada(world: World, ttl_s: int | None = None) -> str:
    """A token of hers, and an event that she alone sees."""
    await world.place.put(private("hers1", "ada"))
    world.sub = "ada"
    return world.place.token("viewer", "ada", ttl_s)


async def ada_beyond_her_token(world: World) -> str:
    """She has opened with a token that has ended since, and an event more is hers; the fresh token that her client may ask for."""
    short, long = await ada(world, 2), await ada(world)
    expiring = await world.place.talk()
    await expiring.ask("authenticate", token=short)
    await world.opened(tokens=[short, long])
    assert (await expiring.closed())[0] == 4001
    await world.place.put(private("hers2", "ada"))
    return long


async def an_expired_token_is_replaced_by_a_fresh_one(world: World) -> None:
    long = await ada_beyond_her_token(world)
    look = await world.see(lambda look: look["held"].keys() == {"hers1", "hers2"}, "she is still she")
    assert look["fresh"] >= 1
    assert world.proxy.said("authenticate")[-1]["token"] == long


async def closed_for_expiry_it_comes_back_with_another_token(world: World) -> None:
    await world.opened(tokens=[await ada(world, 3600), await ada(world, 7200)])
    await world.proxy.close(4001, "the token has expired")
    look = await world.back(2)
    assert (set(look["held"]), look["recovered"], look["fresh"]) == ({"hers1"}, True, 1)


async def a_token_that_is_not_taken_is_asked_for_again_once(world: World) -> None:
    await world.opened(tokens=["HEADER.CLAIMS.SIGNATURE", await ada(world)])
    assert (await world.is_true())["connections"] == 1
    await world.driver.close()
    await world.driver.open(world.proxy.url, **world.question, tokens=["HEADER.CLAIMS.SIGNATURE"])
    look = await world.see(lambda look: look["state"] == "failed", "it gives up")
    assert look["connections"] == 1
    await world.driver.close()
    await world.opened(token=await ada(world))


# --- requests ---


async def a_refusal_is_the_answer_to_its_request_and_changes_nothing(world: World) -> None:
    await world.place.put(*spread(2))
    await world.opened()
    upside_down = {**BERLIN, "south": 60.0}
    asked = (
        {"type": "explain", "eventId": "nobody knows"},
        {"type": "viewport-update", "viewport": upside_down},
        {"type": "force-batch"},
        {"type": "nonsense"},
        {"type": "explain", "eventId": "e0"},
    )
    *refused, explained = await world.driver.ask(*asked)
    codes = [(answer["refused"], answer["retry"]) for answer in refused]
    assert codes == [(code, False) for code in ("not_found", "bad_viewport", "unauthorized", "bad_message")]
    assert refused[1]["field"].startswith("viewport")
    assert (explained["type"], explained["eventId"], explained["inView"]) == ("explanation", "e0", True)
    assert (await world.is_true())["connections"] == 1


async def what_was_refused_for_good_is_not_said_at_the_next_connection(world: World) -> None:
    await world.place.put(*spread(2))
    await world.opened()
    assert (await world.driver.turn("viewport", {**BERLIN, "south": 60.0}))["refused"] == "bad_viewport"
    assert (await world.driver.turn("filters", [{"status": ["ODD"]}]))["refused"] == "bad_filter"
    world.proxy.cut()
    await world.back(2)
    assert [message["viewport"] for message in world.proxy.said("register")] == [BERLIN, BERLIN]


async def a_registration_that_is_refused_for_good_is_the_end(world: World) -> None:
    await world.driver.open(world.proxy.url, viewport={**BERLIN, "south": 60.0})
    look = await world.see(lambda look: look["state"] == "failed", "it gives up")
    assert (look["connections"], "bad_viewport" in look["problems"] or "bad_viewport" in look["reason"]) == (1, True)
    await world.opened()


async def a_request_under_way_when_the_connection_breaks_is_told_so(world: World) -> None:
    await world.opened()
    world.proxy.edit = lambda message: [] if message["type"] == "pong" else [message]
    asking = asyncio.ensure_future(world.driver.ask({"type": "ping"}))
    await until(lambda: bool(world.proxy.said("ping")), "the request is under way")
    world.proxy.edit = unchanged
    world.proxy.cut()
    assert list((await asking)[0]) == ["lost"]
    await world.back(2)
    assert (await world.driver.ask({"type": "ping"}))[0]["type"] == "pong"


async def a_flood_of_requests_goes_out_as_fast_as_the_server_takes_it(world: World) -> None:
    await world.place.put(*spread(2))
    await world.opened()
    answers = await world.driver.ask(*({"type": "explain", "eventId": f"e{n % 2}"} for n in range(150)))
    assert [answer.get("type") for answer in answers] == ["explanation"] * 150
    assert [answer["eventId"] for answer in answers] == ["e0", "e1"] * 75
    assert len(world.proxy.said("explain")) < 200
    assert (await world.is_true())["connections"] == 1


async def what_was_one_too_many_is_sent_again(world: World) -> None:
    await world.place.put(*spread(2))
    await world.opened()
    left = 5
    too_many = {"type": "error", "code": "too_many", "message": "slow down", "limit": 50, "retry": True}

    def edit(message: Message) -> list[Message]:
        nonlocal left
        if message["type"] != "explanation" or not left:
            return [message]
        left -= 1
        return [{**too_many, "ref": message["ref"], "retryAfterMs": 50}]

    world.proxy.edit = edit
    answers = await world.driver.ask(*({"type": "explain", "eventId": f"e{n % 2}"} for n in range(8)))
    assert [answer.get("eventId") for answer in answers] == ["e0", "e1"] * 4
    assert len(world.proxy.said("explain")) == 13


async def a_flood_of_changes_is_applied_in_order(world: World) -> None:
    await world.opened()
    events = spread(40)
    for number in range(60):
        await world.place.put(*({**one, "title": f"{number}"} for one in events[number % 20 : number % 20 + 20]))
        if number % 7 == 0:
            await world.place.ask("DELETE", f"/events/e{number % 40}")
    assert all_match(await world.is_true())


async def what_is_held_may_be_more_than_a_message_can_say(world: World) -> None:
    names = [f"{number:03}" + "🎷" * 125 for number in range(240)]
    await world.place.put(*({**one, "id": name} for one, name in zip(spread(240), names, strict=True)))
    world.question = {"viewport": BERLIN, "maxEvents": 500}
    await world.opened()
    world.proxy.cut()
    look = await world.back(2)
    assert "held" not in world.proxy.said("register")[-1]["resume"]
    assert (look["recovered"], latest(look)["type"]) == (True, "changes"), "the server remembers"
    assert all_match(look)


# --- far more than is shown ---


async def clusters_are_told_follow_a_batch_and_go_when_all_is_shown(world: World) -> None:
    await world.place.put(*spread(5), event("louvre", location=LOUVRE))
    world.question = {"viewport": BERLIN, "maxEvents": 2}
    look = await world.opened(clusters=True)
    assert sum(one["count"] for one in look["clusters"]) == 5
    assert {one["topEventId"] for one in look["clusters"]} >= set(look["ranked"][:1])
    await world.place.put(spread(6)[5])
    await world.place.force()
    look = await world.see(
        lambda look: sum(one["count"] for one in look["clusters"]) == 6, "the batch has counted anew"
    )
    world.question = {**world.question, "viewport": PARIS}
    await world.driver.turn("viewport", PARIS)
    look = await world.see(lambda look: look["ranked"] == ["louvre"], "Paris")
    assert look["clusters"] == []
    assert all_match(look)


async def who_did_not_ask_is_told_of_no_clusters(world: World) -> None:
    await world.place.put(*spread(5))
    world.question = {"viewport": BERLIN, "maxEvents": 2}
    assert (await world.opened())["clusters"] == []
    assert all("clusters" not in message for message in world.proxy.passed)


TABLE: tuple[Callable[[World], Awaitable[None]], ...] = (
    a_snapshot_is_held_and_ranked_as_the_server_does,
    creates_updates_and_deletes_arrive_at_once_and_match,
    a_batch_is_one_change_with_everything_that_moved,
    a_pan_brings_what_enters_and_says_why_the_rest_leaves,
    of_many_pans_at_once_the_last_one_counts,
    changed_fields_are_laid_over_what_is_held,
    what_a_budget_left_out_follows_until_all_is_held,
    filters_leave_what_they_ask_for,
    a_message_that_never_came_is_noticed_and_mended,
    a_gap_in_seq_alone_is_noticed,
    another_digest_is_noticed_and_mended,
    a_resync_that_does_not_help_is_followed_by_one_for_everything,
    a_server_that_is_always_wrong_is_not_asked_without_end,
    a_kind_of_change_that_nobody_knew_is_mended_by_its_digest,
    what_a_client_does_not_know_it_leaves_alone,
    a_restarted_server_is_resumed_with_what_is_held,
    a_connection_cut_in_the_middle_of_a_frame_is_resumed,
    cut_again_and_again_it_comes_back,
    a_session_is_named_with_the_seq_that_came_in_it,
    a_cut_in_the_handshake_or_the_registration_is_tried_again,
    a_slow_start_is_waited_for,
    a_connection_that_died_silently_is_made_anew,
    a_quiet_connection_stays,
    codes_that_mean_come_back_are_come_back_from,
    codes_that_mean_stay_away_are_final,
    who_leaves_is_gone,
    an_expired_token_is_replaced_by_a_fresh_one,
    closed_for_expiry_it_comes_back_with_another_token,
    a_token_that_is_not_taken_is_asked_for_again_once,
    a_refusal_is_the_answer_to_its_request_and_changes_nothing,
    what_was_refused_for_good_is_not_said_at_the_next_connection,
    a_registration_that_is_refused_for_good_is_the_end,
    a_request_under_way_when_the_connection_breaks_is_told_so,
    a_flood_of_requests_goes_out_as_fast_as_the_server_takes_it,
    what_was_one_too_many_is_sent_again,
    a_flood_of_changes_is_applied_in_order,
    what_is_held_may_be_more_than_a_message_can_say,
    clusters_are_told_follow_a_batch_and_go_when_all_is_shown,
    who_did_not_ask_is_told_of_no_clusters,
)
