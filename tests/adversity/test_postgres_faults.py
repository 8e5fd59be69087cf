"""PostgreSQL is killed, goes away, loses an answer, or refuses a row: what was acknowledged is there, memory equals it."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adversity.proxy import Proxy, in_front_of
from tests.serving import Live, Message, Start, Talk, event, gauge_in, live, refused, spread, until

CALM = {"SPACING_KM": 0, "SCORE_THRESHOLD": 1}
"""Every event is in view, and in a batch only what was counted."""


# --- helpers ---


@asynccontextmanager
async def behind(dsn: str, tmp_path: Path, **environ: object) -> AsyncIterator[tuple[Live, Proxy]]:
    """A server whose way to PostgreSQL can be cut."""
    async with in_front_of(dsn) as proxy, live(tmp_path / "data", proxy.dsn(dsn), **{**CALM, **environ}) as place:
        yield place, proxy


async def gauge(place: Live, name: str) -> float:
    return gauge_in((await place.ask("GET", "/metrics")).body, name)


async def memory_equals_the_database(place: Live) -> None:
    """After a flush every event stands in a snapshot as it is stored, and no other."""
    await until_answered(place)
    await place.force()
    stored = {one["id"]: one for one in (await place.ask("GET", "/events?limit=1000")).json["events"]}
    talk = await place.watching(maxEvents=500)
    shown = {event_id: without_score(one) for event_id, one in talk.view.events.items()}
    assert shown == {event_id: without_shares(one) for event_id, one in stored.items()}
    assert (await place.stats())["pendingUpdates"] == 0


def without_score(one: Message) -> Message:
    return {k: v for k, v in one.items() if k != "relevanceScore"}


def without_shares(one: Message) -> Message:
    return {k: v for k, v in one.items() if k != "sharedWith"}


async def until_answered(place: Live) -> None:
    """Write until a write is taken: then PostgreSQL is back and what was in doubt has been read again."""
    talk = await place.talk("admin")
    async with asyncio.timeout(60):
        while (answer := await talk.ask("popularity-update", eventId="none", scanCount=0)).get("code") != "not_found":
            assert answer["code"] == "unavailable", answer
            await asyncio.sleep(answer["retryAfterMs"] / 1000)


class Producer:
    """Counts its own events up, and creates new ones, for as long as it is let; notes what was acknowledged."""

    def __init__(self, talk: Talk, name: str) -> None:
        self.talk = talk
        self.name = name
        self.counted = 0
        self.created: list[str] = []
        self.refusals: list[Message] = []
        self.enough = False

    async def push(self) -> None:
        number = 0
        while not self.enough:
            number += 1
            answer = await self.talk.ask("popularity-update", eventId=self.name, scanCount=number)
            self.counted = number if self.note(answer) else self.counted
            if number % 5 == 0:
                new = f"{self.name}-{number}"
                answer = await self.talk.ask("event-upsert", event=event(new, title=f"{number}"))
                self.created += [new] if self.note(answer) else []

    def note(self, answer: Message) -> bool:
        if answer["type"] == "ack":
            return True
        assert refused(answer) == ("unavailable", None), answer
        assert answer["retry"] is True
        assert answer["retryAfterMs"] > 0
        self.refusals.append(answer)
        return False


# --- killed ---


async def test_postgres_is_killed_while_producers_push_and_nothing_acknowledged_is_lost(data_dir: Path) -> None:
    with capture_logs() as logs:
        async with live(data_dir, None, PRODUCER_MESSAGES_PER_S=1_000_000, **CALM) as place:
            await place.put(*spread(2, "p"))
            producers = [Producer(await place.talk("producer", f"paul {n}"), f"p{n}") for n in range(2)]
            pushing = [asyncio.ensure_future(one.push()) for one in producers]
            for _ in range(2):
                await kill_in_full_flight(place, producers)
            for one in producers:
                one.enough = True
            await asyncio.gather(*pushing)
            await nothing_acknowledged_is_missing(place, producers)
            await memory_equals_the_database(place)
    said = [line["event"] for line in logs]
    assert said.count("postgres exited") == 2
    assert said.count("postgres lost") == said.count("postgres back") > 0
    assert "task died" not in said


async def kill_in_full_flight(place: Live, producers: list[Producer]) -> None:
    """kill -9 the postmaster while acknowledgements come in; returns when they come in again."""
    await more_acknowledged(producers, 20)
    assert place.app._embedded is not None
    killed = place.app._embedded.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    before = len(producers[0].refusals)
    await until(lambda: len(producers[0].refusals) > before, "producers are told")
    await more_acknowledged(producers, 20)
    assert place.app._embedded.pid not in (None, killed)


async def more_acknowledged(producers: list[Producer], number: int) -> None:
    goals = [one.counted + number for one in producers]
    await until(
        lambda: all(one.counted >= goal for one, goal in zip(producers, goals, strict=True)), "updates are taken"
    )


async def more_refused(producers: list[Producer], number: int) -> None:
    goals = [len(one.refusals) + number for one in producers]
    await until(lambda: all(len(p.refusals) >= g for p, g in zip(producers, goals, strict=True)), "producers are told")


async def nothing_acknowledged_is_missing(place: Live, producers: list[Producer]) -> None:
    for one in producers:
        assert (await place.ask("GET", f"/events/{one.name}")).json["scanCount"] >= one.counted > 0
        assert one.created
        for event_id in one.created:
            stored = await place.ask("GET", f"/events/{event_id}")
            assert stored.json["title"] == event_id.partition("-")[2]


# --- away ---


async def test_while_postgres_is_away_viewers_are_served_writers_are_told_and_the_server_says_so(
    dsn: str, tmp_path: Path
) -> None:
    async with behind(dsn, tmp_path, MIN_FLUSH_GAP_MS=0) as (place, proxy):
        await place.put(*spread(3))
        admin = await place.watching("admin")
        await place.count("e0", scanCount=5)
        assert await gauge(place, "postgres_up") == 1
        proxy.cut()
        for kind, fields in (
            ("event-upsert", {"event": event("new")}),
            ("event-delete", {"id": "e1"}),
            ("popularity-update", {"eventId": "e1", "scanCount": 1}),
            ("update-batch-config", {"maxBatchSize": 7}),
        ):
            answer = await admin.ask(kind, **fields)
            assert (refused(answer), answer["retry"], answer["retryAfterMs"] > 0) == (("unavailable", None), True, True)
        for method, path, body in (
            ("GET", "/events/e0", None),
            ("GET", "/events", None),
            ("POST", "/events", [event("new")]),
            ("PATCH", "/events/e0", {"title": "x"}),
        ):
            over_http = await place.ask(method, path, json=body)
            assert (over_http.status, over_http.json["error"]["code"]) == (503, "unavailable")
            assert int(over_http.headers["Retry-After"]) > 0
        assert await gauge(place, "postgres_up") == 0
        late = await place.watching()
        assert sorted(late.view.events) == ["e0", "e1", "e2"]
        assert (await late.ask("explain", eventId="e0"))["inView"] is True
        assert await admin.refusal("force-batch") == ("unavailable", None)
        flush = await place.app.panel.run("scores")
        assert flush.error is not None  # One of several servers cannot even begin alone.
        assert late.unread == deque()
        assert (await place.stats())["pendingUpdates"] == 1
        proxy.mend()
        batch = await late.get("batch-update")
        assert [(e["id"], e["scanCount"]) for e in batch["updates"]["updates"]] == [("e0", 5)]
        assert await gauge(place, "postgres_up") == 1
        await memory_equals_the_database(place)
        assert (await place.stats())["config"]["maxBatchSize"] == 1000


async def test_producers_go_on_by_themselves_after_an_outage(dsn: str, tmp_path: Path) -> None:
    async with behind(dsn, tmp_path, PRODUCER_MESSAGES_PER_S=1_000_000) as (place, proxy):
        await place.put(*spread(2, "p"))
        producers = [Producer(await place.talk("producer", f"paul {n}"), f"p{n}") for n in range(2)]
        pushing = [asyncio.ensure_future(one.push()) for one in producers]
        for _ in range(5):
            await more_acknowledged(producers, 10)
            proxy.cut()
            await more_refused(producers, 3)
            proxy.mend()
        await more_acknowledged(producers, 10)
        for one in producers:
            one.enough = True
        await asyncio.gather(*pushing)
        await nothing_acknowledged_is_missing(place, producers)
        await memory_equals_the_database(place)


# --- an answer is lost: nobody knows whether it was committed ---


async def test_a_commit_whose_answer_is_lost_is_told_as_unavailable_and_shown_as_soon_as_it_is_known(
    dsn: str, tmp_path: Path
) -> None:
    async with behind(dsn, tmp_path) as (place, proxy):
        talk, producer = await place.watching(), await place.talk("producer")
        proxy.lose_commit_of = b"doubtful"
        assert await producer.refusal("event-upsert", event=event("doubtful")) == ("unavailable", None)
        assert proxy.lost == 1
        assert (await talk.get("add-event"))["event"]["id"] == "doubtful"
        proxy.lose_commit_of = b"doubtful"
        assert await producer.refusal("event-delete", id="doubtful") == ("unavailable", None)
        assert (await talk.get("delete-event"))["id"] == "doubtful"
        await memory_equals_the_database(place)


async def test_an_update_whose_acknowledgement_was_lost_counts_once_when_it_is_repeated(
    dsn: str, tmp_path: Path
) -> None:
    async with behind(dsn, tmp_path) as (place, proxy):
        await place.put(event("doubtful"))
        producer = await place.talk("producer")
        update: Message = {"eventId": "doubtful", "delta": {"scanCount": 1}, "updateId": "u1"}
        proxy.lose_commit_of = b"doubtful"
        assert await producer.refusal("popularity-update", **update) == ("unavailable", None)
        async with asyncio.timeout(30):
            while (answer := await producer.ask("popularity-update", **update))["type"] != "ack":
                assert answer["code"] == "unavailable"
        assert (await place.ask("GET", "/events/doubtful")).json["scanCount"] == 1
        await memory_equals_the_database(place)


async def test_a_flush_whose_commit_is_lost_is_made_up_for_by_itself(dsn: str, tmp_path: Path) -> None:
    async with behind(dsn, tmp_path, MIN_FLUSH_GAP_MS=0) as (place, proxy):
        await place.put(*spread(3), event("doubtful"))
        talk = await place.watching()
        await place.count("doubtful", scanCount=5)
        proxy.lose_commit_of = b"doubtful"
        turn = await place.app.panel.run("scores")
        assert (proxy.lost, turn.done, turn.failed) == (1, 0, 1)
        batch = await talk.get("batch-update")
        assert [(e["id"], e["scanCount"]) for e in batch["updates"]["updates"]] == [("doubtful", 5)]
        await memory_equals_the_database(place)
        await place.count("doubtful", scanCount=6)
        await place.force()
        assert (await talk.get("batch-update"))["updates"]["updates"][0]["scanCount"] == 6


# --- a row that PostgreSQL itself refuses ---


async def test_a_poison_row_fails_alone_and_the_others_of_its_group_go_in(place: Live) -> None:
    talk = await place.talk("producer")
    for number in range(40):
        title = "poison\0" if number == 17 else f"good {number}"
        await talk.send("event-upsert", ref=str(number), event=event(f"e{number}", title=title))
    answers = {}
    for _ in range(40):
        message = await talk._read()
        answers[int(message["ref"])] = message
    assert [n for n, answer in answers.items() if answer["type"] == "error"] == [17]
    assert refused(answers[17])[0] == "bad_message"
    stored = {one["id"] for one in (await place.ask("GET", "/events?limit=100")).json["events"]}
    assert stored == {f"e{n}" for n in range(40) if n != 17}
    bulk = await place.ask("POST", "/events", json=[event("x"), event("y", categories=["\0"]), event("z")])
    assert (bulk.json["accepted"], [one["row"] for one in bulk.json["rejected"]]) == (2, [1])


NUL = "a\0b"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("event-upsert", {"event": event(NUL)}),
        ("event-delete", {"id": NUL}),
        ("popularity-update", {"eventId": NUL, "scanCount": 1}),
        ("popularity-update", {"eventId": "good", "scanCount": 1, "updateId": NUL}),
        ("event-upsert", {"event": event("good", creatorId=NUL)}),
    ],
)
async def test_an_id_that_no_row_can_have_is_refused_and_poisons_nothing_after_it(
    start: Start, kind: str, fields: Message
) -> None:
    place = await start()
    await place.put(event("good"))
    talk = await place.talk("admin")
    assert (await talk.refusal(kind, **fields))[0] == "bad_message"
    for title in ("one", "two"):
        assert (await talk.ask("event-upsert", event={"id": "good", "title": title}))["type"] == "ack"
    await memory_equals_the_database(place)
