"""Rules: what a client holds after each message, and its digest."""

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.client import COME_BACK, View
from server.core.event import held_hash
from server.errors import CLOSES


def event(name: str, version: int = 1, score: float = 0.5, start: str = "2026-05-01T18:00:00.000Z") -> dict[str, Any]:
    return {"id": name, "version": version, "relevanceScore": score, "start": start, "title": name.upper()}


def digest(held: dict[str, int]) -> str:
    total = 0
    for name, version in held.items():
        total += int.from_bytes(hashlib.sha256(f"{name}\n{version}".encode()).digest()[:8], "big")
    return f"{total % (1 << 64):016x}"


def batch(seq: int, **updates: Any) -> dict[str, Any]:
    return {"type": "batch-update", "seq": seq, "updates": {"creates": [], "updates": [], "deletes": [], **updates}}


def snapshot(*events: dict[str, Any], seq: int = 1) -> dict[str, Any]:
    return {"type": "replace-all", "seq": seq, "events": list(events)}


def test_the_digest_of_nothing_is_zero_and_each_event_adds_what_the_server_adds() -> None:
    view = View()
    assert view.digest == "0" * 16
    view.apply(snapshot(event("ü", 3)))
    assert view.digest == f"{held_hash('ü', 3):016x}"


def test_deletes_creates_and_updates_are_applied_in_this_order() -> None:
    view = View()
    view.apply(snapshot(event("a"), event("b")))
    change = view.apply(
        batch(2, deletes=["a"], creates=[event("c")], updates=[event("b", 2, 0.9)], reasons={"a": "ended"})
    )
    assert list(view.events) == ["c", "b"]
    assert view.events["b"]["version"] == 2
    assert (change.deletes, change.reasons, change.matches) == (["a"], {"a": "ended"}, True)


def test_changed_fields_alone_are_laid_over_what_is_held() -> None:
    view = View()
    view.apply(snapshot(event("a")))
    view.apply(batch(2, updates=[{"id": "a", "version": 2, "rsvpCount": 4}]))
    assert view.events["a"] == {**event("a", 2), "rsvpCount": 4}
    assert view.digest == digest({"a": 2})


def test_a_snapshot_is_told_as_a_difference_and_leaves_nothing_of_before() -> None:
    view = View()
    view.apply(snapshot({**event("a"), "old": 1}, event("b")))
    change = view.apply(snapshot(event("a", 2), event("c"), seq=2))
    assert [e["id"] for e in change.creates] == ["c"]
    assert [e["id"] for e in change.updates] == ["a"]
    assert change.deletes == ["b"]
    assert "old" not in view.events["a"]


def test_single_changes_have_messages_of_their_own() -> None:
    view = View()
    view.apply(snapshot())
    view.apply({"type": "add-event", "seq": 2, "event": event("a")})
    view.apply({"type": "update-event", "seq": 3, "event": event("a", 2)})
    assert view.events["a"]["version"] == 2
    change = view.apply({"type": "delete-event", "seq": 4, "id": "a", "reason": "outranked"})
    assert (view.events, change.reasons) == ({}, {"a": "outranked"})


def test_a_gap_or_another_digest_does_not_match() -> None:
    view = View()
    assert view.apply(snapshot(event("a"))).matches
    assert not view.apply(batch(3)).matches
    assert view.apply({**batch(4), "digest": digest({"a": 1})}).matches
    assert not view.apply({**batch(5), "digest": digest({"a": 2})}).matches


def test_the_best_come_first_then_the_earlier_then_by_id() -> None:
    view = View()
    later = "2026-05-02T18:00:00.000Z"
    view.apply(snapshot(event("d", start=later), event("c"), event("b"), event("a", score=0.1), event("e", score=0.9)))
    assert [e["id"] for e in view.ranked()] == ["e", "b", "c", "d", "a"]


def test_every_close_code_that_the_client_treats_apart_is_in_the_servers_table() -> None:
    expected = {code for code, kind in CLOSES.items() if kind.come_back.startswith("no")}
    assert {code for code, what in COME_BACK.items() if what == "no"} == expected
    assert set(COME_BACK) <= set(CLOSES)


steps = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3)), max_size=40)


@given(st.lists(steps, max_size=10))
def test_the_digest_is_that_of_what_is_held_whatever_happened_before(batches: list[list[tuple[str, int]]]) -> None:
    view, held, version = View(), dict[str, int](), 0
    for seq, changes in enumerate(batches, 1):
        wanted: dict[str, int | None] = {}
        for name, what in changes:
            version += 1
            wanted[name] = None if what == 0 else version
        creates = [event(n, v) for n, v in wanted.items() if v is not None and n not in held]
        updates = [event(n, v) for n, v in wanted.items() if v is not None and n in held]
        deletes = [n for n, v in wanted.items() if v is None]
        held = {n: v for n, v in {**held, **wanted}.items() if v is not None}
        view.apply(batch(seq, creates=creates, updates=updates, deletes=deletes))
        assert {n: e["version"] for n, e in view.events.items()} == held
        assert view.digest == digest(held)


def test_more_than_a_message_can_say_is_not_said() -> None:
    view = View()
    view.apply(snapshot(event("a"), event("b", 2)))
    assert view.said() == {"held": [["a", 1], ["b", 2]]}
    view.apply(snapshot(*(event(f"e{n}") for n in range(501)), seq=2))
    assert view.said() == {}
    view.apply(snapshot(*(event(f"{n}" + "🎷" * 120) for n in range(100)), seq=3))
    assert view.said() == {}
