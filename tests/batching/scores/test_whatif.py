"""What-if on a real feed: what it foretells is what a flush then really does, and asking changes nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from server.batching.scores.estimate import NextFlush
from server.batching.scores.frame import Frame
from server.batching.scores.lookout import Lookout
from server.batching.scores.tuning import rules_of
from server.batching.scores.whatif import Wish
from server.edge.clock import Clock
from server.edge.postgres import Database
from tests.batching.scores.world import ADMIN, HOUR, Client, Trial, trial

CATEGORIES = ("music", "sport", "food")


class Scales(Client):
    """A client that weighs what it is handed."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.weights: list[int] = []

    def read(self, frame: Frame) -> None:
        self.weights.append(len(frame))
        super().read(frame)


async def crowd(one: Trial, events: int = 80, clients: int = 12, seed: int = 7) -> random.Random:
    """Events around a few places, clients that look at parts of them, some of them alike."""
    dice, now = random.Random(seed), one.clock.now_ms()
    async with one.db.connection() as connection:
        await connection.execute("select setval('feed.version', 1000)")  # no version of a test has another length
    for n in range(events):
        place = {"latitude": 10 + dice.random() * 2, "longitude": 20 + dice.random() * 2}
        row: dict[str, Any] = {"id": f"e{n}", "title": f"Event {n}", "location": place}
        row |= {"start": now + dice.randrange(-10 * HOUR, 90 * HOUR), "categories": [dice.choice(CATEGORIES)]}
        row |= {"scanCount": dice.randrange(9), "confidence": dice.random()}
        if n % 9 == 0:
            row |= {"isPrivate": True, "creatorId": "ann"}
        await one.upsert(row)
    for n in range(clients):
        west, south = 19.5 + dice.choice((0, 0.4, 0.8)), 9.5 + dice.choice((0, 0.5))
        question: dict[str, Any] = {
            "viewport": {"west": west, "south": south, "east": west + 1.2, "north": south + 1.3}
        }
        question |= {"maxEvents": dice.choice((5, 12, 50)), "user": "ann" if n % 4 == 0 else None}
        if n % 5 == 1:
            question["filters"] = [{"categories": {"include": ["music"]}}]
        one.clients[n] = Scales(one.clock)
        await one.join(n, question)
    return dice


async def stir(one: Trial, dice: random.Random, moves: int = 60, events: int = 80) -> None:
    for _ in range(moves):
        delta = {dice.choice(("scanCount", "saveCount", "rsvpCount")): dice.randrange(1, 4)}
        await one.count({"eventId": f"e{dice.randrange(events)}", "delta": delta})
        await one.clock.advance(1)


def what_was_sent(one: Trial, frames_before: dict[int, int]) -> NextFlush:
    """What a flush has just sent, as its clients have it."""
    frames = size = new = updated = deleted = 0
    for number, client in one.clients.items():
        assert isinstance(client, Scales)
        for message, weight in list(zip(client.frames, client.weights, strict=True))[frames_before[number] :]:
            assert message["type"] == "batch-update"
            frames, size = frames + 1, size + weight
            new += message["summary"]["newEvents"]
            updated += message["summary"]["updatedEvents"]
            deleted += message["summary"]["deletedEvents"]
    return NextFlush(frames, size, new, updated, deleted, frames, size)


async def flushed(one: Trial) -> NextFlush:
    before = {number: len(client.frames) for number, client in one.clients.items()}
    await one.flush()
    return what_was_sent(one, before)


def state(one: Trial) -> object:
    """All that asking must leave as it is."""
    columns = one.feed._engine._lookout.columns
    world, used = columns.world, columns.world.sizes.item(1)
    slots = world.slot[:used]
    return (
        [world.popularity[:used].tolist(), world.version[slots].tolist(), [columns.body(s) for s in slots.tolist()]],
        [(v.seq, v.held, v.digest, v.epoch, v.owed) for v in one.feed.desk.audience],
        list(one.feed.desk.pending),
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_with_the_present_settings_it_is_exactly_what_a_forced_flush_then_does(db: Database, seed: int) -> None:
    async with trial(db) as one:
        await stir(one, await crowd(one, seed=seed))
        foretold = await one.feed.what_if(Wish())
        assert foretold.sampled == foretold.viewers == len(one.clients)
        assert foretold.present.next.frames > 0
        assert foretold.present.next == foretold.asked.next == await flushed(one)
        assert (foretold.change.viewers_differing, foretold.change.top_overlap) == (0, 1.0)


async def test_a_frame_is_as_long_as_the_number_it_carries(db: Database) -> None:
    async with trial(db) as one:
        dice = await crowd(one)
        for _ in range(9):
            await one.ask(one.clients[2])
        await stir(one, dice)
        foretold = await one.feed.what_if(Wish())
        assert foretold.present.next == await flushed(one)
        assert one.clients[2].view.seq > 9


@pytest.mark.parametrize("threshold", [0.0, 0.05, 1.0])
async def test_another_threshold_is_what_a_flush_does_after_changing_to_it(db: Database, threshold: float) -> None:
    async with trial(db) as one:
        await stir(one, await crowd(one))
        foretold = await one.feed.what_if(Wish(threshold=threshold))
        one.feed.desk.threshold = threshold
        assert foretold.asked.next == await flushed(one)
        assert foretold.asked.next != foretold.present.next


@pytest.mark.parametrize("most", [3, 20])
async def test_another_cut_is_what_a_flush_does_when_every_viewer_asks_for_so_many(db: Database, most: int) -> None:
    async with trial(db) as one:
        await stir(one, await crowd(one))
        foretold = await one.feed.what_if(Wish(max_events=most))
        for client in one.clients.values():
            assert client.viewer is not None
            client.viewer.question = replace(client.viewer.question, limit=most)
        assert foretold.asked.next == await flushed(one)
        assert foretold.change.leaving > 0 or most > 5


@pytest.mark.parametrize(
    "wish",
    [
        Wish(weights={"popularity": 0.9, "time": 0.0}),
        Wish(weights={"time": 0.5, "distance": 0.5, "popularity": 0.0, "recency": 0.0, "confidence": 0.0}),
        Wish(spacing_km=20.0),
        Wish(spacing_km=0.0),
        Wish(weights={"confidence": 0.6}, spacing_km=3.0, threshold=0.2, max_events=9),
    ],
)
async def test_another_weighting_or_spacing_is_what_a_flush_does_after_changing_to_it(db: Database, wish: Wish) -> None:
    async with trial(db) as one:
        await stir(one, await crowd(one))
        foretold = await one.feed.what_if(wish)
        before = {number: [e["id"] for e in client.view.ranked()] for number, client in one.clients.items()}
        rules = rules_of(one.feed._settings)
        weights = replace(rules.weights, **(wish.weights or {}))
        spacing = rules.spacing_km if wish.spacing_km is None else wish.spacing_km
        lookout = Lookout(one.feed._engine._lookout.columns, replace(rules, weights=weights, spacing_km=spacing))
        one.feed._engine._lookout = lookout
        one.feed.desk.threshold = one.feed.desk.threshold if wish.threshold is None else wish.threshold
        for client in one.clients.values():
            assert client.viewer is not None
            if wish.max_events is not None:
                client.viewer.question = replace(client.viewer.question, limit=wish.max_events)
        assert foretold.asked.next == await flushed(one)
        left = sum(len(set(before[n]) - client.view.events.keys()) for n, client in one.clients.items())
        assert foretold.asked.next.deleted_events == left


async def test_asking_leaves_the_world_the_viewers_and_the_queue_as_they_are(db: Database) -> None:
    async with trial(db) as one:
        await stir(one, await crowd(one))
        before = state(one)
        await one.feed.what_if(Wish(weights={"popularity": 1.0}, max_events=3, interval_ms=60_000, spacing_km=5.0))
        assert state(one) == before
        await one.flush()
        one.check()
        one.check_scores()


async def test_half_of_the_viewers_are_told_as_a_sample_and_counted_up(db: Database) -> None:
    async with trial(db) as one:
        await stir(one, await crowd(one))
        some = await one.feed.what_if(Wish(sample=6, seed=4))
        again = await one.feed.what_if(Wish(sample=6, seed=4))
        assert (some.sampled, some.viewers) == (6, 12)
        assert some.present.next == again.present.next
        assert some.present.next.all_frames == 2 * some.present.next.frames
        assert some.present.next.all_bytes == 2 * some.present.next.bytes


async def test_a_viewer_whose_frame_waits_would_be_owed_and_is_said_to_be(db: Database) -> None:
    async with trial(db) as one:
        dice = await crowd(one)
        slow = one.clients[0]
        slow.stalled = True
        await stir(one, dice)
        await one.flush()
        assert slow.waiting is not None
        await stir(one, dice)
        foretold = await one.feed.what_if(Wish())
        assert (foretold.deferred, foretold.sampled) == (1, 11)
        assert foretold.present.next == await flushed(one)


async def test_a_shorter_interval_costs_more_messages_and_leaves_counters_fresher(db: Database) -> None:
    async with trial(db) as one:
        await stir(one, await crowd(one), moves=600)
        answer = await one.feed.what_if(Wish(interval_ms=60_000))
        present, asked = answer.present, answer.asked
        assert (present.batch.interval_ms, asked.batch.interval_ms) == (900_000, 60_000)
        assert asked.batch.events < present.batch.events == 80
        assert asked.hour.flushes == 60
        assert asked.hour.messages > present.hour.messages
        assert asked.hour.bytes > present.hour.bytes
        assert (asked.staleness_ms.mean, asked.staleness_ms.worst) == (30_000, 60_000)
        assert answer.estimated_from.activity_known
        assert present.batch.lower_bound, "ten minutes were watched, the interval is fifteen"
        assert not asked.batch.lower_bound


async def test_events_that_fill_a_batch_make_the_interval_shorter_than_it_is_set(db: Database) -> None:
    async with trial(db, max_batch_size=20, min_flush_gap_ms=0) as one:
        await stir(one, await crowd(one), moves=200)
        answer = await one.feed.what_if(Wish())
        assert answer.present.batch.interval_ms is not None
        assert answer.present.batch.interval_ms < 100_000
        assert answer.present.batch.events == 20


async def test_without_activity_it_says_so_and_only_time_moves(db: Database) -> None:
    async with trial(db) as one:
        await crowd(one)
        await one.flush()
        await one.clock.advance(60)
        answer = await one.feed.what_if(Wish(interval_ms=10_000))
        assert not answer.estimated_from.activity_known
        assert (answer.estimated_from.moved, answer.asked.batch.events) == (0, 0)


async def test_with_batching_off_the_present_has_no_batches_and_the_asked_interval_has(db: Database) -> None:
    async with trial(db, enable_batching=False) as one:
        await crowd(one)
        await one.feed.load()
        answer = await one.feed.what_if(Wish(interval_ms=60_000))
        assert (answer.settings[0].interval_ms, answer.present.hour.flushes) == (None, 0)
        assert answer.asked.hour.flushes == 60
        assert answer.present.staleness_ms.mean is None


async def test_nobody_connected_is_an_answer_too(db: Database) -> None:
    async with trial(db) as one:
        answer = await one.feed.what_if(Wish(max_events=3))
        assert (answer.viewers, answer.sampled, answer.asked.hour.messages) == (0, 0, 0)


async def test_an_event_that_changes_while_it_is_asked_is_left_alone(db: Database) -> None:
    async with trial(db) as one:
        await stir(one, await crowd(one))
        what_if = one.feed._what_if
        activity = await what_if._activity(one.clock.now_ms())
        supposed = await what_if._suppose(activity.counts, activity.newest)
        gone, changed = list(activity.counts)[:2]
        await one.feed._writer.publish([changed])
        await one.feed.ingest([], ADMIN)
        columns = one.feed._engine._lookout.columns
        columns.remove(gone)
        version = columns.event(columns.slot_of(changed) or 0).version
        with supposed.applied(columns):
            assert columns.event(columns.slot_of(changed) or 0).version == version
        assert columns.event(columns.slot_of(changed) or 0).version == version
