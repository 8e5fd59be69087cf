"""Coming back through real sockets: what the server remembers of a session, for whom, how long; and what is said to be held."""

from collections.abc import Iterable
from uuid import UUID

import orjson
import pytest

from tests.handlers.pipe import CLOSE, TEXT, frame
from tests.serving import BERLIN, Live, Message, Start, Talk, event, gauge_in, spread, until
from tests.wire.raw import Raw
from tests.wire.test_backpressure import BIG, COUNT

FAR = {"west": -10.0, "south": -10.0, "east": -9.0, "north": -9.0}


async def enter(place: Live, sub: str | None = None, **registration: object) -> tuple[Talk, str]:
    """A new viewer with its snapshot, and the name of its session."""
    talk = await place.talk(sub=sub)
    registered = await talk.ask("register", **{"viewport": BERLIN, **registration})
    assert registered["recovered"] is False
    await talk.get("replace-all")
    return talk, registered["session"]


async def cut(place: Live, *talks: Talk) -> None:
    """The connections break, and the server notices."""
    left = len(place.app.hub) - len(talks)
    for talk in talks:
        talk.socket.transport.abort()
    await until(lambda: len(place.app.hub) == left, "they are gone")


async def back(
    place: Live, before: Talk, session: str, sub: str | None = None, *, viewport: Message = BERLIN, **resume: object
) -> tuple[Talk, bool]:
    """A new connection to the same view that names its session, by default with the last seq that arrived."""
    talk = await place.talk(sub=sub)
    talk.view.events, talk.view._sum = before.view.events, before.view._sum
    said = {"session": session, "seq": before.view.seq, **resume}
    registered = await talk.ask("register", viewport=viewport, reasons=True, resume=said)
    assert registered["session"] != session
    return talk, registered["recovered"]


def ids(events: Iterable[Message]) -> list[str]:
    return sorted(one["id"] for one in events)


async def test_what_happened_meanwhile_is_one_difference_and_nothing_else_is_sent(place: Live) -> None:
    await place.put(*spread(4))
    talk, session = await enter(place)
    await cut(place, talk)
    new = {**spread(4)[1], "id": "new"}  # Where the one was that goes: nobody's score moves.
    await place.put(new, {"id": "e0", "title": "Changed"}, {"id": "e0", "title": "Changed again"})
    await place.ask("DELETE", "/events/e1")
    talk, recovered = await back(place, talk, session)
    change = await talk.get("changes")
    assert (recovered, change["seq"]) == (True, 1)
    updates = change["updates"]
    assert (ids(updates["creates"]), ids(updates["updates"]), updates["deletes"]) == (["new"], ["e0"], ["e1"])
    assert updates["reasons"] == {"e1": "removed"}
    assert updates["updates"][0]["title"] == "Changed again"
    assert await talk.settled() == []
    await place.put({"id": "e2", "title": "Later"})
    assert (await talk.get("update-event"))["seq"] == 2


async def test_a_batch_that_came_meanwhile_is_in_it(place: Live) -> None:
    await place.put(*spread(3))
    talk, session = await enter(place)
    await cut(place, talk)
    await place.count("e1", rsvpCount=3)
    await place.force()
    talk, recovered = await back(place, talk, session)
    updates = (await talk.get("changes"))["updates"]
    assert recovered and "e1" in ids(updates["updates"])
    assert talk.view.events["e1"]["rsvpCount"] == 3


async def test_when_nothing_happened_the_difference_is_empty(place: Live) -> None:
    await place.put(*spread(3))
    talk, session = await enter(place)
    await cut(place, talk)
    talk, recovered = await back(place, talk, session)
    assert (recovered, (await talk.get("changes"))["updates"]) == (True, {"creates": [], "updates": [], "deletes": []})


async def test_the_question_is_that_of_the_new_registration(place: Live) -> None:
    await place.put(*spread(3), event("far", location={"latitude": -9.5, "longitude": -9.5}))
    talk, session = await enter(place)
    await cut(place, talk)
    talk, recovered = await back(place, talk, session, viewport=FAR)
    updates = (await talk.get("changes"))["updates"]
    assert (recovered, ids(updates["creates"]), sorted(updates["deletes"])) == (True, ["far"], ["e0", "e1", "e2"])
    assert set(updates["reasons"].values()) == {"left_view"}


async def test_a_frame_that_was_handed_over_and_never_arrived_makes_it_a_snapshot(place: Live) -> None:
    await place.put(*spread(3))
    talk, session = await enter(place)
    await place.put({"id": "e0", "title": "Sent"})
    await place.still()
    await cut(place, talk)  # Unread: this end has seen the snapshot alone.
    again, recovered = await back(place, talk, session)
    assert (recovered, (await again.get("replace-all"))["seq"]) == (False, 1)
    assert again.view.events["e0"]["title"] == "Sent"
    await cut(place, again)
    assert (await back(place, talk, session, seq=2))[1] is False, "it has been used up"


async def test_unless_it_says_what_it_holds(place: Live) -> None:
    await place.put(*spread(3))
    talk, session = await enter(place)
    await place.put({"id": "e0", "title": "Sent"})
    await place.still()
    await cut(place, talk)
    talk, recovered = await back(place, talk, session, held=talk.view.held())
    updates = (await talk.get("changes"))["updates"]
    assert (recovered, ids(updates["updates"])) == (True, ["e0", "e1", "e2"]), "survivors too, for their scores"


async def test_it_is_used_once_also_by_who_says_what_it_holds(place: Live) -> None:
    for resume in ({}, {"held": []}):
        talk, session = await enter(place)
        await cut(place, talk)
        again, recovered = await back(place, talk, session, **resume)
        assert recovered is True
        await again.get("changes")
        assert (await back(place, talk, session))[1] is False
    assert (await place.stats())["sessionsRemembered"] == 0


async def test_it_is_its_users_alone(place: Live) -> None:
    """Whoever else names it learns nothing and spoils nothing."""
    await place.put(event("secret", isPrivate=True, creatorId="ann"))
    for owner, stranger in (("ann", "bob"), ("ann", None), (None, "ann")):
        talk, session = await enter(place, owner)
        for broken in (False, True):
            if broken:
                await cut(place, talk)
            other = await place.talk(sub=stranger)
            said = {"session": session, "seq": 1}
            assert (await other.ask("register", viewport=BERLIN, resume=said))["recovered"] is False
            assert ids((await other.get("replace-all"))["events"]) == (["secret"] if stranger == "ann" else [])
            await cut(place, other)
        again, recovered = await back(place, talk, session, owner)
        assert recovered is True
        await again.get("changes")
        await cut(place, again)


async def test_who_was_somebody_else_before_is_who_it_was_last(place: Live) -> None:
    await place.put(event("hers", isPrivate=True, creatorId="ann"))
    talk, session = await enter(place)
    await talk.ask("authenticate", token=place.token(sub="ann"))
    await talk.get("add-event")
    await cut(place, talk)
    assert (await back(place, talk, session))[1] is False
    talk, recovered = await back(place, talk, session, "ann")
    assert (recovered, (await talk.get("changes"))["updates"]["deletes"]) == (True, [])


async def test_who_says_who_it_is_while_coming_back_counts_as_that_user(place: Live) -> None:
    talk, session = await enter(place, "ann")
    await cut(place, talk)
    again = await place.talk()
    said = {"viewport": BERLIN, "resume": {"session": session, "seq": 1}}
    assert (await again.ask("register", token=place.token(sub="ann"), **said))["recovered"] is True


async def test_a_connection_that_stands_half_open_is_taken_over_and_ended(place: Live) -> None:
    await place.put(*spread(3))
    old, session = await enter(place)
    await place.put({"id": "e0", "title": "Changed"})
    await old.get("update-event")
    talk, recovered = await back(place, old, session)
    assert (recovered, (await talk.get("changes"))["updates"]["updates"]) == (True, [])
    assert (await old.closed())[0] == 4004
    assert (await place.stats())["registeredUsers"] == 1
    assert (await place.stats())["sessionsRemembered"] == 0
    await place.put({"id": "e1", "title": "Changed"})
    await talk.get("update-event")


async def test_a_registration_that_nobody_waits_for_uses_up_nothing(place: Live) -> None:
    await place.put(*spread(3))
    talk, session = await enter(place)
    await cut(place, talk)
    raw = await Raw.open(place.ws_port)
    said = {"type": "register", "viewport": BERLIN, "resume": {"session": session, "seq": 1}}
    raw.say(frame(TEXT, orjson.dumps(said)), frame(CLOSE, (1001).to_bytes(2)))
    assert await raw.closed() == 1001
    await until(lambda: not len(place.app.hub), "it is gone")
    assert (await back(place, talk, session))[1] is True


async def test_what_changes_while_a_connection_closes_is_part_of_the_difference(place: Live) -> None:
    """Its close frame is not answered: it stands, and nothing leaves any more."""
    await place.put(*spread(3))
    raw = await Raw.open(place.ws_port)
    raw.say(frame(TEXT, orjson.dumps({"type": "register", "viewport": BERLIN})))
    session, snapshot = (await raw.message())["session"], await raw.message()
    next(iter(place.app.hub)).close(4001, "the token has expired")
    await place.put({"id": "e0", "title": "Changed"})
    await place.still()
    assert await raw.closed() == 4001
    talk = await place.talk()
    talk.view.apply(snapshot)
    talk.view.seq = 0
    said = {"session": session, "seq": 1}
    assert (await talk.ask("register", viewport=BERLIN, resume=said))["recovered"] is True
    assert ids((await talk.get("changes"))["updates"]["updates"]) == ["e0"]


async def test_with_a_frame_under_way_it_is_ended_too_and_the_rest_is_a_snapshot(place: Live) -> None:
    deaf = await place.deaf()
    await place.put(*spread(COUNT, **BIG))
    await deaf.send("register", viewport=BERLIN, maxEvents=500)
    await until(lambda: any(viewer.seq for viewer in place.app.feed.desk.audience), "its snapshot is under way")
    session = next(iter(place.app.feed.desk.audience)).session
    talk, recovered = await back(place, deaf, session, seq=0)
    assert (recovered, len((await talk.get("replace-all"))["events"])) == (False, 50)
    await until(lambda: len(place.app.hub) == 1, "the old one has been cut off")


async def test_one_closed_for_being_slow_comes_back_like_any_other(start: Start) -> None:
    place = await start(SLOW_CLIENT_TIMEOUT_MS=100)
    await place.put(*spread(3))
    sessions = []
    for _ in range(2):
        talk = await place.deaf()
        talk.socket.transport.resume_reading()
        sessions.append((talk, (await talk.ask("register", viewport=BERLIN, maxEvents=500))["session"]))
        await talk.get("replace-all")
        talk.socket.transport.pause_reading()
    await place.put(*spread(COUNT, "big", **BIG))
    await until(lambda: not len(place.app.hub), "both have been closed")
    (one, first), (other, second) = sessions
    again, recovered = await back(place, one, first)
    assert recovered is False, "the frame that waited has not arrived"
    await again.get("replace-all")
    again, recovered = await back(place, other, second, held=other.view.held())
    assert recovered is True
    await again.get("changes")


async def test_who_unregisters_has_nothing_to_come_back_to(place: Live) -> None:
    talk, session = await enter(place)
    await talk.ask("unregister")
    assert (await back(place, talk, session))[1] is False
    await cut(place, talk)
    assert (await back(place, talk, session))[1] is False


async def test_a_second_registration_may_go_on_from_the_first(place: Live) -> None:
    await place.put(*spread(3))
    talk, session = await enter(place)
    said = {"session": session, "seq": talk.view.seq}
    registered = await talk.ask("register", viewport=BERLIN, resume=said)
    assert (registered["session"], registered["recovered"]) == (session, True)
    assert (await talk.get("changes"))["seq"] == 2
    assert (await talk.ask("register", viewport=BERLIN, resume=said))["recovered"] is False, "that was the seq before"
    await talk.get("replace-all")
    token = place.token(sub="ann")
    said["seq"] = talk.view.seq
    assert (await talk.ask("register", viewport=BERLIN, token=token, resume=said))["recovered"] is False


async def test_after_a_restart_only_what_is_held_counts(start: Start) -> None:
    place = await start()
    await place.put(*spread(3))
    talk, session = await enter(place)
    held = talk.view.held()
    await cut(place, talk)
    another = await start()
    again, recovered = await back(another, talk, session)
    assert recovered is False
    await again.get("replace-all")
    assert (await back(another, talk, session, held=held))[1] is True


async def test_so_many_are_remembered_and_none_when_that_is_zero(start: Start) -> None:
    few, none = await start(RESUME_SESSIONS=1), await start(RESUME_SESSIONS=0)
    first, second = await enter(few), await enter(few)
    await cut(few, first[0])
    await cut(few, second[0])
    assert [(await back(few, *one))[1] for one in (first, second)] == [False, True]
    one = await enter(none)
    await cut(none, one[0])
    assert (await back(none, *one))[1] is False


async def test_what_is_remembered_is_counted(place: Live) -> None:
    await place.put(*spread(3))
    talks = [(await enter(place))[0] for _ in range(2)]
    await cut(place, *talks)
    assert (await place.stats())["sessionsRemembered"] == 2
    metrics = (await place.ask("GET", "/metrics")).body
    numbers = [gauge_in(metrics, name) for name in ("sessions_remembered", "sessions_remembered_events")]
    assert numbers == [2, 6]


async def test_a_sessions_name_can_not_be_guessed(place: Live) -> None:
    """It is all that an anonymous viewer has to show."""
    names = [(await enter(place))[1] for _ in range(3)]
    assert len(set(names)) == 3
    assert {UUID(name).version for name in names} == {4}


@pytest.mark.parametrize("version", [1, None])
async def test_an_id_held_twice_is_told_of_once(place: Live, version: int | None) -> None:
    await place.put(*spread(2))
    talk, session = await enter(place)
    await cut(place, talk)
    right = talk.view.events["e0"]["version"]
    held = [["e0", 7], ["gone", 1], ["e0", version or right], ["gone", 2]]
    talk.view._put("gone", {"id": "gone", "version": 1})
    talk.view._put("e1", None)
    talk, recovered = await back(place, talk, session, held=held)
    updates = (await talk.get("changes"))["updates"]
    assert recovered is True
    assert (ids(updates["creates"]), ids(updates["updates"]), updates["deletes"]) == (["e1"], ["e0"], ["gone"])
