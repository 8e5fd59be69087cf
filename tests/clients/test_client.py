"""Wire: the client against a server that says by script what the protocol allows a server to say, also what ours never would."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from server.client import Client, Closed, Lost, Refusal
from tests.clients.test_view import batch, digest, event, snapshot

WORLD = (-180.0, -85.0, 180.0, 85.0)
Message = dict[str, Any]


class Visit:
    """One connection as the server sees it."""

    def __init__(self, socket: ServerConnection, number: int) -> None:
        self.socket = socket
        self.number = number
        self.registration: Message = {}

    async def get(self, kind: str) -> Message:
        """The next message, which must be of this kind."""
        message: Message = json.loads(await self.socket.recv())
        assert message["type"] == kind, message
        return message

    async def say(self, message: Message, **more: Any) -> None:
        await self.socket.send(json.dumps({**message, **more}))

    async def register(self, *events: Message, recovered: bool = False, **more: Any) -> None:
        """Answer a registration with a snapshot of these, or with what is given."""
        self.registration = await self.get("register")
        await self.say({"type": "registered", "session": "s1", "recovered": recovered, "ref": self.registration["ref"]})
        await self.say(more.get("first") or snapshot(*events))


Script = Callable[[Visit], Any]


@asynccontextmanager
async def speaking(script: Script) -> AsyncIterator[str]:
    """A server that follows the script on each connection; what the script asserts is asserted at the end."""
    visits, failures = 0, list[BaseException]()

    async def handler(socket: ServerConnection) -> None:
        nonlocal visits
        visits += 1
        try:
            await script(Visit(socket, visits))
            await socket.wait_closed()
        except AssertionError as error:
            failures.append(error)

    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
    for failure in failures:
        raise failure


class Waits:
    """Instead of sleeping: notes how long the client would have waited."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def client(url: str, **more: Any) -> Client:
    return Client(url, viewport=WORLD, **{"jitter": lambda: 1.0, "sleep": Waits(), **more})


async def test_the_snapshot_is_there_when_the_client_is_open_and_changes_follow() -> None:
    async def script(visit: Visit) -> None:
        await visit.register(event("a"), event("b", score=0.9))
        assert visit.registration["viewport"] == {"west": -180, "south": -85, "east": 180, "north": 85}
        assert visit.registration["maxEvents"] == 7
        assert "resume" not in visit.registration
        await visit.say(batch(2, deletes=["a"]), digest=digest({"b": 1}))

    async with speaking(script) as url, client(url, max_events=7) as c:
        assert [e["id"] for e in c.ranked()] == ["b", "a"]
        change = await c.next_change(20)
        assert (change.deletes, change.matches, list(c.events)) == (["a"], True, ["b"])
        assert c.digest == digest({"b": 1})


async def test_a_token_is_said_first_and_in_a_message() -> None:
    async def script(visit: Visit) -> None:
        message = await visit.get("authenticate")
        await visit.say({"type": "authenticated", "sub": "u", "roles": ["admin"], "ref": message["ref"]})
        await visit.register()
        assert message["token"] == "secret"
        assert "secret" not in str(visit.socket.request)

    async with speaking(script) as url, client(url, token="secret"):
        pass


async def test_an_answer_finds_its_request_between_changes() -> None:
    async def script(visit: Visit) -> None:
        await visit.register()
        request = await visit.get("ping")
        await visit.say(batch(2, creates=[event("a")]))
        await visit.say({"type": "pong", "ref": request["ref"]})
        refused = await visit.get("force-batch")
        await visit.say({"type": "error", "code": "forbidden", "message": "no", "retry": False, "ref": refused["ref"]})

    async with speaking(script) as url, client(url) as c:
        assert (await c.request("ping"))["type"] == "pong"
        assert list(c.events) == ["a"]
        assert (await c.next_change(20)).type == "batch-update"
        with pytest.raises(Refusal, match="forbidden") as refusal:
            await c.request("force-batch")
        assert not refusal.value.retry


async def test_another_digest_is_answered_by_a_resync_with_what_is_held_then_without() -> None:
    async def script(visit: Visit) -> None:
        await visit.register(event("a"))
        await visit.say(batch(2), digest=digest({"a": 2}))
        first = await visit.get("resync")
        assert first["held"] == [["a", 1]]
        wrong = {
            "type": "changes",
            "seq": 3,
            "ref": first["ref"],
            "updates": {"creates": [], "updates": [], "deletes": []},
        }
        await visit.say(wrong, digest=digest({"a": 2}))
        second = await visit.get("resync")
        assert "held" not in second
        await visit.say(snapshot(event("a", 2), seq=4), ref=second["ref"], digest=digest({"a": 2}))

    async with speaking(script) as url, client(url) as c:
        assert [(await c.next_change(20)).matches for _ in range(3)] == [False, False, True]
        assert c.divergences == 2
        assert c.events["a"]["version"] == 2


async def test_a_gap_in_seq_is_answered_by_a_resync() -> None:
    async def script(visit: Visit) -> None:
        await visit.register()
        await visit.say(batch(3, creates=[event("b")]))
        message = await visit.get("resync")
        await visit.say({**batch(4, creates=[event("a")]), "type": "changes"}, ref=message["ref"])

    async with speaking(script) as url, client(url) as c:
        assert not (await c.next_change(20)).matches
        assert (await c.next_change(20)).matches
        assert set(c.events) == {"a", "b"}


async def test_a_lost_connection_resumes_with_what_is_held() -> None:
    async def script(visit: Visit) -> None:
        if visit.number == 1:
            await visit.register(event("a"), event("b"))
            await visit.say(batch(2, updates=[event("b", 2)]))
            visit.socket.transport.abort()
        else:
            await visit.register(recovered=True, first={**batch(1, deletes=["a"]), "type": "changes"})
            assert visit.registration["resume"] == {"session": "s1", "seq": 2, "held": [["a", 1], ["b", 2]]}

    async with speaking(script) as url, client(url) as c:
        assert (await c.next_change(20)).type == "batch-update"
        change = await c.next_change(20)
        assert (change.type, change.matches, list(c.events)) == ("changes", True, ["b"])
        assert c.connections == 2
        assert c.registered["recovered"] is True


async def test_a_session_is_named_with_the_seq_that_came_in_it() -> None:
    """The second connection breaks between its name and its first change: what is held is still the first one's."""

    async def script(visit: Visit) -> None:
        visit.registration = await visit.get("register")
        named = {"type": "registered", "session": f"s{visit.number}", "recovered": False}
        await visit.say(named, ref=visit.registration["ref"])
        if visit.number == 1:
            await visit.say(snapshot(event("a")))
        if visit.number == 3:
            assert visit.registration["resume"] == {"session": "s1", "seq": 1, "held": [["a", 1]]}
            await visit.say({**batch(1, creates=[event("b")]), "type": "changes"})
        else:
            visit.socket.transport.abort()

    async with speaking(script) as url, client(url) as c:
        assert (await c.next_change(20)).matches
        assert (set(c.events), c.connections, c.session) == ({"a", "b"}, 3, "s3")


async def test_a_restarting_server_names_the_wait() -> None:
    async def script(visit: Visit) -> None:
        await visit.register(event(f"v{visit.number}"))
        if visit.number == 1:
            await visit.socket.close(1012, '{"retryAfterMs": 1700}')

    waits = Waits()
    async with speaking(script) as url, client(url, sleep=waits) as c:
        await c.next_change(20)
        assert waits.seconds == [1.7 + 0.5]


async def test_the_backoff_doubles_up_to_its_bound_and_starts_anew_after_a_change() -> None:
    async def script(visit: Visit) -> None:
        if visit.number in (1, 10):
            await visit.register(event(f"v{visit.number}"))
        if visit.number <= 10:
            visit.socket.transport.abort()
        else:
            await visit.register(event("z"))

    waits = Waits()
    async with speaking(script) as url, client(url, sleep=waits) as c:
        while "z" not in c.events:
            await c.next_change(20)
        assert waits.seconds == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 0.5]


async def test_a_code_that_coming_back_cannot_mend_ends_it() -> None:
    async def script(visit: Visit) -> None:
        await visit.register()
        await visit.socket.close(1009, "too big")

    async with speaking(script) as url, client(url) as c:
        with pytest.raises(Closed, match="1009 too big"):
            await c.next_change(20)
        with pytest.raises(Closed, match="1009"):
            await c.request("ping")


async def test_an_expired_token_needs_a_fresh_one() -> None:
    async def script(visit: Visit) -> None:
        message = await visit.get("authenticate")
        await visit.say({"type": "authenticated", "ref": message["ref"]})
        assert message["token"] == f"t{visit.number}"
        await visit.register(event(message["token"]))
        if visit.number == 1:
            await visit.socket.close(4001, "expired")

    tokens = iter(("t1", "t2"))
    async with speaking(script) as url, client(url, token=lambda: next(tokens)) as c:
        await c.next_change(20)
        assert list(c.events) == ["t2"]
    async with speaking(script) as url, client(url, token="t1") as c:
        with pytest.raises(Closed, match="4001"):
            await c.next_change(20)


async def test_a_refused_registration_and_an_absent_server_are_told_at_once() -> None:
    async def script(visit: Visit) -> None:
        message = await visit.get("register")
        await visit.say(
            {"type": "error", "code": "bad_viewport", "message": "south", "retry": False, "ref": message["ref"]}
        )

    async with speaking(script) as url:
        with pytest.raises(Refusal, match="bad_viewport"):
            async with client(url):
                pass
    with pytest.raises(Lost, match="cannot connect"):
        async with client(url):
            pass


async def test_a_request_under_way_when_the_connection_breaks_is_lost_and_the_next_one_comes_back() -> None:
    async def script(visit: Visit) -> None:
        await visit.register(event("a"))
        request = await visit.get("ping")
        if visit.number == 1:
            visit.socket.transport.abort()
        else:
            await visit.say({"type": "pong", "ref": request["ref"]})

    async with speaking(script) as url, client(url) as c:
        with pytest.raises(Lost):
            await c.request("ping")
        assert (await c.request("ping"))["type"] == "pong"


async def test_who_stops_waiting_while_it_comes_back_can_wait_again() -> None:
    coming, stopped = asyncio.Event(), asyncio.Event()

    async def script(visit: Visit) -> None:
        message = await visit.get("authenticate")
        if visit.number == 2:
            coming.set()
            await stopped.wait()
        await visit.say({"type": "authenticated", "ref": message["ref"]})
        await visit.register(event(f"v{visit.number}"))
        if visit.number == 1:
            visit.socket.transport.abort()

    async with speaking(script) as url, client(url, token="t") as c:
        waiting = asyncio.ensure_future(c.next_change())
        await coming.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        stopped.set()
        await c.next_change(20)
        assert (list(c.events), c.connections) == (["v2"], 2)


async def test_who_leaves_while_it_comes_back_leaves_nothing_behind() -> None:
    coming, gone = asyncio.Event(), asyncio.Event()

    async def script(visit: Visit) -> None:
        if visit.number == 2:
            await visit.get("register")
            coming.set()
            await visit.socket.wait_closed()
            gone.set()
        else:
            await visit.register(event("v1"))
            visit.socket.transport.abort()

    async with speaking(script) as url:
        async with client(url) as c:
            waiting = asyncio.ensure_future(c.next_change())
            await coming.wait()
            waiting.cancel()
            await asyncio.wait([waiting])
        async with asyncio.timeout(20):
            await gone.wait()
        assert not c.connected


async def test_what_was_one_too_many_is_sent_again_after_a_wait() -> None:
    async def script(visit: Visit) -> None:
        await visit.register()
        error = {"type": "error", "code": "too_many", "message": "slow down", "retry": True}
        await visit.say(error, ref=(await visit.get("ping"))["ref"], retryAfterMs=70)
        await visit.say(error, ref=(await visit.get("ping"))["ref"])
        await visit.say({"type": "pong", "ref": (await visit.get("ping"))["ref"]})
        await visit.say(error, ref=(await visit.get("subscribe"))["ref"], field="topic")

    waits = Waits()
    async with speaking(script) as url, client(url, sleep=waits) as c:
        assert (await c.request("ping"))["type"] == "pong"
        assert waits.seconds == [0.07, 1.0]
        with pytest.raises(Refusal, match="too_many"):
            await c.request("subscribe", topic="loops")


async def test_what_it_does_not_know_it_leaves_alone() -> None:
    async def script(visit: Visit) -> None:
        await visit.register()
        for text in ("{cut", "[1]", "null", '{"no": "type"}', '{"type": "weather", "ref": "r99"}'):
            await visit.socket.send(text)
        await visit.say({"type": "teleport-event", "seq": 2, "event": event("a"), "digest": digest({"a": 1})})
        message = await visit.get("resync")
        await visit.say({**batch(3, creates=[event("a")]), "type": "changes"}, ref=message["ref"])

    async with speaking(script) as url, client(url) as c:
        assert not (await c.next_change(20)).matches
        assert (await c.next_change(20)).matches
        assert list(c.events) == ["a"]


async def test_a_wish_that_is_refused_for_good_is_not_said_at_the_next_connection() -> None:
    async def script(visit: Visit) -> None:
        await visit.register(event(f"v{visit.number}"))
        assert visit.registration["filters"] == []
        if visit.number == 1:
            message = await visit.get("filters-update")
            error = {"type": "error", "code": "bad_filter", "message": "no", "retry": False}
            await visit.say(error, ref=message["ref"])
            visit.socket.transport.abort()

    async with speaking(script) as url, client(url) as c:
        with pytest.raises(Refusal, match="bad_filter"):
            await c.set_filters([{"status": ["ODD"]}])
        await c.next_change(20)
        assert list(c.events) == ["v2"]


async def test_a_token_that_is_not_taken_is_asked_for_once_more() -> None:
    said = list[str]()

    async def script(visit: Visit) -> None:
        error = {"type": "error", "code": "unauthorized", "message": "no", "retry": False}
        while (message := await visit.get("authenticate"))["token"] != "good":
            said.append(message["token"])
            await visit.say(error, ref=message["ref"])
        await visit.say({"type": "authenticated", "ref": message["ref"]})
        await visit.register(event("a"))

    tokens = iter(("t1", "good", "t2", "t3", "good"))
    async with speaking(script) as url:
        async with client(url, token=lambda: next(tokens)) as c:
            assert (list(c.events), said) == (["a"], ["t1"])
        with pytest.raises(Refusal, match="unauthorized"):
            async with client(url, token=lambda: next(tokens)):
                pass
    assert said == ["t1", "t2", "t3"]
