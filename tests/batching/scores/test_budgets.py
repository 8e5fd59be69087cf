"""Viewers with budgets, through the whole feed: every client's state is what the server believes, and in the end the oracle's view.

`Client` (world.py) holds every frame to its viewer's budget; the histories are those of test_histories.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.batching.scores.audience import Viewer
from server.batching.scores.budget import CARRY_GAP_MS, Budget
from server.batching.scores.plan import Asked
from server.edge.postgres import Database
from server.protocol.event import event_op
from server.settings import Settings
from tests.batching.scores.test_histories import CLIENTS, LAX, PHASES, QUESTIONS, STEPS, Stage, act, rows
from tests.batching.scores.world import ADMIN, START, Client, Trial, as_question, make_feed, trial

HISTORIES = int(os.environ.get("HISTORIES", "400"))
WORLD = {"viewport": {"west": -180, "south": -90, "east": 180, "north": 90}}
BUDGETS = st.builds(
    Budget,
    st.booleans(),
    st.sampled_from([0, 0, 500, 5000]),
    st.sampled_from([None, 1024, 1100, 2048]),
)


def asked(budget: Budget, **changes: Any) -> dict[str, Any]:
    return {**WORLD, "filters": [], "user": None, "maxEvents": 50, "budget": budget, **changes}


def row(event_id: str, **fields: Any) -> dict[str, Any]:
    number = int(event_id[1:])
    place = {"latitude": number / 50, "longitude": 0.0}
    return {"id": event_id, "location": place, "start": START + number * 60_000, **fields}


# --- histories ---


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """As those of test_histories.py, each viewer with a budget of its own, some told of clusters."""
    joins = st.builds(
        lambda number, question, budget, clusters: (
            "join",
            number,
            {**question, "budget": budget, "clusters": clusters},
        ),
        CLIENTS,
        QUESTIONS,
        BUDGETS,
        st.booleans(),
    )
    steps = st.one_of(STEPS, STEPS, STEPS, joins, st.tuples(st.just("wait"), st.sampled_from([0.3, 0.7, 1, 5])))
    events = [("upsert", draw(rows())) for _ in range(draw(st.integers(0, 8)))]
    viewers = [
        ("join", number, {**draw(QUESTIONS), "budget": draw(BUDGETS), "clusters": draw(st.booleans())})
        for number in range(3)
    ]
    return [*events, *viewers, *draw(st.lists(steps, min_size=5, max_size=40))]


async def play(one: Trial, steps: list[tuple[Any, ...]]) -> None:
    for step in steps:
        await act(one, step)
        await one.catch_up()
        one.check()
    for client in one.clients.values():
        await one.drain(client)
    await one.flush()
    one.check()
    one.check_scores()
    await settle(one)


async def settle(one: Trial, most: int = 100) -> int:
    """Until nothing is owed to anybody; who has caught up has the oracle's view of that moment. Returns the turns it took."""
    for turn in range(most):
        behind = [client for client in one.clients.values() if client.behind]
        if not behind:
            return turn
        await one.clock.advance(CARRY_GAP_MS / 1000)
        await one.catch_up()
        one.check()
        for client in behind:
            if not client.behind:
                one.check_scores_of(client)
    raise AssertionError(f"something is still owed after {most} turns")


class Budgeted(Stage):
    def play(self, steps: list[tuple[Any, ...]], **options: Any) -> None:
        async def body() -> None:
            async with trial(self.db, **options) as one:
                await play(one, steps)

        self.runner.run(body())


@pytest.fixture
def budgeted(dsn: str) -> Iterator[Budgeted]:
    made = Budgeted(dsn)
    yield made
    made.close()


@settings(max_examples=max(30, HISTORIES // 6), deadline=None, suppress_health_check=LAX, phases=PHASES)
@given(histories())
def test_within_any_budget_every_client_holds_what_the_server_believes_and_at_last_a_fresh_view(
    budgeted: Budgeted, steps: list[tuple[Any, ...]]
) -> None:
    budgeted.play(steps)


@settings(max_examples=max(20, HISTORIES // 16), deadline=None, suppress_health_check=LAX, phases=PHASES)
@given(histories())
def test_the_same_holds_while_batching_is_off(budgeted: Budgeted, steps: list[tuple[Any, ...]]) -> None:
    budgeted.play(steps, enable_batching=False)


# --- delta ---


async def test_new_counters_come_alone_and_a_new_content_whole(db: Database) -> None:
    async with trial(db) as one:
        await one.upsert(row("e0", title="Jazz", description="x" * 500))
        await one.upsert(row("e1"))
        client = await one.join(0, asked(Budget(delta=True)))
        await one.count({"eventId": "e0", "rsvpCount": 3, "priority": "high"})
        said = client.frames[-1]
        version = client.view.events["e0"]["version"]
        assert said["type"] == "update-event"
        assert said["event"] == {
            "id": "e0", "version": version, "scanCount": 0, "saveCount": 0, "rsvpCount": 3,
            "relevanceScore": said["event"]["relevanceScore"],
        }  # fmt: skip
        assert client.view.events["e0"]["title"] == "Jazz"
        assert (await one.feed.stats())["savings"]["delta"]["bytes"] > 500  # type: ignore[index]
        await one.upsert(row("e0", title="More jazz"))
        assert client.frames[-1]["event"]["title"] == "More jazz"
        assert client.frames[-1]["event"]["description"] == "x" * 500


async def test_a_score_that_moved_comes_without_counters(db: Database) -> None:
    async with trial(db) as one:
        for number in range(3):
            await one.upsert(row(f"e{number}"))
        client = await one.join(0, asked(Budget(delta=True)))
        await one.count({"eventId": "e2", "rsvpCount": 3})
        await one.flush()
        updates = {e["id"]: e for e in client.frames[-1]["updates"]["updates"]}
        assert set(updates["e2"]) == {"id", "version", "scanCount", "saveCount", "rsvpCount", "relevanceScore"}
        assert set(updates["e0"]) == {"id", "version", "relevanceScore"}
        one.check_scores()


async def test_counters_that_follow_a_content_the_client_has_not_got_bring_it_along(db: Database) -> None:
    async with trial(db) as one:
        await one.upsert(row("e0"))
        client = await one.join(0, asked(Budget(delta=True)))
        client.stalled = True
        await one.upsert(row("e9"))  # its frame waits
        await one.upsert(row("e0", title="Jazz"))
        await one.count({"eventId": "e0", "rsvpCount": 3})
        await one.flush()
        await one.drain(client)
        (update,) = [e for e in client.frames[-1]["updates"]["updates"] if e["id"] == "e0"]
        assert (update["title"], update["rsvpCount"]) == ("Jazz", 3)


async def test_a_version_the_server_never_gave_is_answered_with_the_whole_event(db: Database) -> None:
    async with trial(db) as one:
        await one.upsert(row("e0"))
        client = await one.join(0, asked(Budget(delta=True)))
        version = client.view.events["e0"]["version"]
        for claimed, whole in ((version, False), (version - 1, True), (version + 1000, True)):
            client.asking = True
            assert client.viewer is not None
            await one.feed.resync(client.viewer, [("e0", claimed)], "r2")
            (update,) = client.frames[-1]["updates"]["updates"]
            assert ("title" in update) is whole, claimed


async def test_after_a_start_nothing_is_taken_for_granted_of_older_versions(db: Database) -> None:
    async with trial(db) as one:
        old = (await one.upsert(row("e0"))).version
        await one.upsert(row("e0", title="Jazz"))
        feed = make_feed(db, one.clock, Settings())
        await feed.load()
        client = Client(one.clock)
        client.viewer = Viewer("s0", as_question(asked(Budget())), client)
        client.viewer.budget = Budget(delta=True)
        await feed.join(client.viewer, [("e0", old)])
        (update,) = client.frames[0]["updates"]["updates"]
        assert update["title"] == "Jazz"


async def test_what_the_threshold_withholds_is_counted(db: Database) -> None:
    async with trial(db, score_threshold=0.9) as one:
        for number in range(3):
            await one.upsert(row(f"e{number}"))
        clients = [await one.join(n, asked(budget)) for n, budget in enumerate((Budget(), Budget(delta=True)))]
        await one.count({"eventId": "e2", "rsvpCount": 3})
        await one.flush()
        assert [[e["id"] for e in client.frames[-1]["updates"]["updates"]] for client in clients] == [["e2"]] * 2
        savings = (await one.feed.stats())["savings"]
        assert savings["threshold"] == {"updatesWithheld": 4}, "e0 and e1, for both"  # type: ignore[index]


# --- minIntervalMs ---


async def test_what_falls_due_too_soon_is_one_message_when_the_time_has_come(db: Database) -> None:
    async with trial(db) as one:
        await one.upsert(row("e0"))
        client = await one.join(0, asked(Budget(min_interval_ms=5000)))
        for number in (1, 2, 3):
            await one.upsert(row(f"e{number}"))
        await one.count({"eventId": "e0", "rsvpCount": 3})
        turn = await one.flush()
        assert (turn.deferred, len(client.frames)) == (1, 1)
        await one.clock.advance(4.9)
        await one.catch_up()
        assert len(client.frames) == 1
        await one.clock.advance(0.1)
        await one.catch_up()
        assert [m["type"] for m in client.frames] == ["replace-all", "batch-update"]
        assert len(client.frames[1]["updates"]["creates"]) == 3
        assert (await one.feed.stats())["savings"]["minInterval"] == {"messagesMerged": 3}  # type: ignore[index]
        await one.clock.advance(5)
        await one.catch_up()
        await one.upsert(row("e4"))
        assert client.frames[-1]["type"] == "add-event", "a rest that is over delays nothing"


async def test_the_viewers_own_requests_are_answered_at_once_and_the_rest_begins_anew(db: Database) -> None:
    async with trial(db) as one:
        await one.upsert(row("e0"))
        client = await one.join(0, asked(Budget(min_interval_ms=5000)))
        await one.clock.advance(4)
        await one.upsert(row("e1"))
        await one.ask(client, viewport={"west": -1, "south": -1, "east": 1, "north": 1})
        assert (len(client.frames), set(client.view.events)) == (2, {"e0", "e1"})
        await one.upsert(row("e2"))
        await one.clock.advance(4.9)
        await one.catch_up()
        assert len(client.frames) == 2
        await one.clock.advance(0.1)
        await one.catch_up()
        assert len(client.frames) == 3
        assert [e["id"] for e in client.frames[-1]["updates"]["creates"]] == ["e2"]


async def enter(one: Trial, question: dict[str, Any]) -> Client:
    """A viewer beside the running loops."""
    client = Client(one.clock)
    client.question = question
    client.viewer = Viewer("s", as_question(question), client)
    client.viewer.budget = client.budget
    await one.feed.join(client.viewer)
    return client


async def test_the_loops_themselves_wake_when_a_rest_is_over(db: Database) -> None:
    async with trial(db) as one:
        one.feed._panel.start()
        await one.clock.settle()
        soon, late = [await enter(one, asked(Budget(min_interval_ms=ms))) for ms in (5000, 9000)]
        for number in range(3):
            await one.feed.ingest([event_op(row(f"e{number}"))], ADMIN)
            await one.clock.settle()
        heard = []
        for seconds in (4.8, 0.3, 3.7, 0.3):
            await one.clock.advance(seconds)
            heard.append((len(soon.frames), len(late.frames)))
        assert heard == [(1, 1), (2, 1), (2, 1), (2, 2)]
        assert len(soon.view.events) == len(late.view.events) == 3
        await one.feed._panel.stop()
        await one.feed._panel._tasks.close()


async def test_many_who_rest_are_caught_up_with_in_slices(db: Database) -> None:
    async with trial(db) as one:
        clients = [await one.join(n, asked(Budget(min_interval_ms=5000))) for n in range(600)]
        await one.upsert(row("e0"))
        await one.clock.advance(5)
        turns = 0
        while any(not client.view.events for client in clients):
            turn = await one.turns.catch_up(one.occasion())
            assert turn.taken <= 256
            turns += 1
        assert turns == 3


async def test_many_whose_frames_have_drained_are_caught_up_with_in_slices(db: Database) -> None:
    async with trial(db) as one:
        clients = [await one.join(n, asked(Budget())) for n in range(300)]
        for client in clients:
            client.stalled = True
        await one.upsert(row("e0"))
        await one.upsert(row("e1"))
        for client in clients:
            client.stalled, frame, client.waiting = False, client.waiting, None
            assert frame is not None and client.viewer is not None
            client.read(frame)
            one.feed.drained(client.viewer)
        turns = [await one.turns.catch_up(one.occasion()) for _ in range(2)]
        assert [(turn.taken, turn.more) for turn in turns] == [(256, True), (44, False)]
        assert all(len(client.view.events) == 2 for client in clients)


async def test_who_leaves_or_pans_again_and_again_leaves_nothing_in_the_heap(db: Database) -> None:
    async with trial(db) as one:
        pacing = one.feed.desk.pacing
        client = await one.join(0, asked(Budget(min_interval_ms=80_000_000)))
        for _ in range(1000):
            await one.ask(client, viewport=WORLD["viewport"])
        assert len(pacing._heap) <= 300
        assert client.viewer is not None
        one.feed.leave(client.viewer)
        assert (pacing._meant, pacing._entry, client.viewer.resting) == ({}, {}, False)


# --- maxBytesPerBatch ---


async def test_a_snapshot_brings_the_best_that_fit_and_the_rest_follows(db: Database) -> None:
    async with trial(db) as one:
        for number in range(12):
            await one.upsert(row(f"e{number:02}", description="x" * 200))
        client = await one.join(0, asked(Budget(max_bytes=2048)))
        first = [e["id"] for e in client.frames[0]["events"]]
        assert 1 < len(first) < 12
        assert client.behind
        turns = await settle(one)
        assert [m["type"] for m in client.frames[1:]] == ["changes"] * turns
        assert len(client.view.events) == 12
        best = sorted(client.view.events.values(), key=lambda e: (-e["relevanceScore"], e["start"]))
        assert first == [e["id"] for e in best[: len(first)]]


async def test_a_batch_that_is_too_large_goes_on_in_batches_that_say_what_is_held(db: Database) -> None:
    async with trial(db) as one:
        client = await one.join(0, asked(Budget(max_bytes=2048)))
        for number in range(12):
            event = row(f"e{number:02}", description="x" * 200)
            done = await one.feed._writer.submit([Asked(event_op(event), ADMIN)])
            await one.feed._writer.turn(one.occasion())
            assert done.done()
            one.model.upsert(event, one.clock.now_ms())
        await one.flush()
        turns = await settle(one)
        batches = [m for m in client.frames if m["type"] == "batch-update"]
        assert len(batches) == turns + 1 > 2
        held = 0
        for message in batches:
            held += message["summary"]["newEvents"]
            assert message["summary"]["totalEvents"] == held
        assert held == 12
        carried = (await one.feed.stats())["savings"]["maxBytes"]["eventsCarried"]  # type: ignore[index]
        assert carried == 12 - batches[0]["summary"]["newEvents"]


async def test_what_was_carried_over_is_out_in_bounded_time_though_better_events_always_change(db: Database) -> None:
    async with trial(db) as one:
        for number in range(20):
            await one.upsert(row(f"e{number:02}", description="x" * 300))
        client = await one.join(0, asked(Budget(max_bytes=2048)))
        missing, turns = 20 - len(client.view.events), 0
        while len(client.view.events) < 20:
            turns += 1
            assert turns <= missing
            for number in range(4):  # the nearest and soonest, again and again
                await one.upsert(row(f"e{number:02}", description=f"{turns} " + "y" * 300))
            await one.clock.advance(1)
            await one.catch_up()
            one.check()
        assert turns > 1


async def test_a_new_event_is_told_to_a_viewer_that_was_not_sent_all_it_has_room_for(db: Database) -> None:
    """It holds fewer than it asked for: it is not full, whatever its fresh view is."""
    async with trial(db) as one:
        for number in range(6):
            await one.upsert(row(f"e{number:02}", description="x" * 900))
        client = await one.join(0, asked(Budget(max_bytes=1024), maxEvents=3))
        assert client.viewer is not None
        assert (len(client.view.events), client.viewer.last) == (1, -1)
        await settle(one)
        assert len(client.view.events) == 3
        assert client.viewer.last >= 0
