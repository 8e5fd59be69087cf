"""A private event reaches its creator and those it is shared with, and nobody else: one test over every way there is."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from tests.serving import BERLIN, Live, Message, Start, Talk, event

MARK = "hush-hush"
FAR = {"west": -10.0, "south": -10.0, "east": -9.0, "north": -9.0}
SECRET: Message = event(
    "secret", title=MARK, creatorId="carla", sharedWith=["sam"], isPrivate=True, categories=["private"], rsvpCount=9
)
PUBLIC: Message = event("public", location={"latitude": 52.6, "longitude": 13.5})

Path = Callable[[Live, str | None], Awaitable[object]]
"""What somebody of that name sees on one way."""


async def seen(talk: Talk) -> list[Message]:
    """All that the connection was sent and nobody has read yet."""
    return await talk.settled()


async def snapshot(place: Live, who: str | None) -> object:
    return (await place.watching(sub=who)).view.events


async def pan(place: Live, who: str | None) -> object:
    talk = await place.watching(sub=who, viewport=FAR)
    return await talk.ask("viewport-update", viewport=BERLIN)


async def new_filters(place: Live, who: str | None) -> object:
    talk = await place.watching(sub=who, filters=[{"text": "nothing"}])
    return await talk.ask("filters-update", filters=[{"categories": {"include": ["private"]}}, {"text": MARK}])


async def filters_by_place_and_status(place: Live, who: str | None) -> object:
    near = {"location": {**SECRET["location"], "radius": 10}, "status": ["VERIFIED"]}
    return (await place.watching(sub=who, filters=[near])).view.events


async def authenticate(place: Live, who: str | None) -> object:
    talk = await place.watching()
    if who is not None:
        await talk.ask("authenticate", token=place.token(sub=who))
    return await seen(talk)


async def immediate_change(place: Live, who: str | None) -> object:
    talk = await place.watching(sub=who)
    await place.put({"id": "secret", "description": f"changed for {who}"})
    return await seen(talk)


async def immediate_create(place: Live, who: str | None) -> object:
    await place.ask("DELETE", "/events/secret")
    talk = await place.watching(sub=who)
    await place.put(SECRET)
    return await seen(talk)


async def batch(place: Live, who: str | None) -> object:
    talk = await place.watching(sub=who)
    await place.count("secret", delta={"scanCount": 1, "rsvpCount": -1})
    await place.force()
    return await seen(talk)


async def urgent(place: Live, who: str | None) -> object:
    talk = await place.watching(sub=who)
    other = await place.watching(sub="carla")
    await place.count("secret", delta={"saveCount": 1}, priority="high")
    await other.get("update-event")
    return await seen(talk)


async def resync(place: Live, who: str | None) -> object:
    return await (await place.watching(sub=who)).ask("resync")


async def resync_with_held(place: Live, who: str | None) -> object:
    talk = await place.talk(sub=who)
    await talk.ask("register", viewport=BERLIN)
    await talk.get("replace-all")
    talk.view.events, talk.view._sum = {}, 0
    talk.view._put("secret", {"id": "secret", "version": 1})
    return await talk.ask("resync", held=[["secret", 1]])


async def resume_with_held(place: Live, who: str | None) -> object:
    talk = await place.talk(sub=who)
    talk.view._put("secret", {"id": "secret", "version": 1})
    await talk.ask("register", viewport=BERLIN, resume={"session": "x", "held": [["secret", 1]]})
    return await seen(talk)


async def resume_of_another_session(place: Live, who: str | None) -> object:
    """Carla's; she herself is told what has changed since, everybody else as much as without it."""
    carla = await place.talk(sub="carla")
    session = (await carla.ask("register", viewport=BERLIN))["session"]
    await carla.get("replace-all")
    await carla.socket.close()
    await place.put({"id": "secret", "description": f"resumed by {who}"})
    talk = await place.talk(sub=who)
    if who == "carla":
        talk.view.events, talk.view._sum = carla.view.events, carla.view._sum
    registered = await talk.ask("register", viewport=BERLIN, resume={"session": session, "seq": 1})
    assert registered["recovered"] is (who == "carla")
    return await seen(talk)


async def explain(place: Live, who: str | None) -> object:
    answer = await (await place.watching(sub=who)).ask("explain", eventId="secret")
    return {**answer, "known": MARK} if answer["type"] == "explanation" else answer


async def get(place: Live, who: str | None) -> object:
    return await asked(place, who, "/events/secret")


async def search(place: Live, who: str | None) -> object:
    return await asked(place, who, f"/events?text={MARK}")


async def search_by_place(place: Live, who: str | None) -> object:
    return await asked(place, who, "/events?bbox=13,52,14,53")


async def export(place: Live, who: str | None) -> object:
    return await asked(place, who, "/events/export?format=ndjson")


async def asked(place: Live, who: str | None, path: str) -> object:
    role = None if who is None else "viewer"
    return (await place.ask("GET", path, role, sub=who)).body.decode()


PATHS: list[Path] = [
    *(snapshot, pan, new_filters, filters_by_place_and_status, authenticate),
    *(immediate_change, immediate_create, batch, urgent),
    *(resync, resync_with_held, resume_with_held, resume_of_another_session, explain),
    *(get, search, search_by_place, export),
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
async def test_a_private_event_reaches_only_those_who_may_see_it(start: Start, path: Path) -> None:
    place = await start(URGENT_GAP_MS=0)
    await place.put(PUBLIC, SECRET)
    for who in ("carla", "sam", "nosy", "Carla", None):
        text = orjson.dumps(await path(place, who)).decode()
        assert (MARK in text) == (who in ("carla", "sam")), (who, text[:600])
        assert who == "carla" or "sharedWith" not in text, (who, text[:600])


async def test_nor_do_counts_scores_or_explanations_of_others_betray_it(place: Live) -> None:
    beside = event("beside", location={"latitude": 52.5001, "longitude": 13.4})
    await place.put(PUBLIC, beside)
    before = await told_without_it(place)
    await place.put(SECRET)
    assert await told_without_it(place) == before
    talk = await place.watching(sub="carla")
    assert (await talk.ask("explain", eventId="beside"))["spacingNeighbour"] == "secret"


async def told_without_it(place: Live) -> object:
    """What nosy is told: the snapshot, explanations and a batch's summary, without what time changes."""
    talk = await place.watching(sub="nosy", maxEvents=2)
    told: list[Any] = [talk.view.events, *[await talk.ask("explain", eventId=one) for one in ("public", "beside")]]
    await place.count("public", delta={"scanCount": 1})
    await place.force()
    told.append((await talk.get("batch-update"))["summary"])
    await place.count("public", delta={"scanCount": -1})
    await place.force()
    return re.sub(r'"version":\d+', "", orjson.dumps(told).decode())


async def test_a_viewer_whom_an_event_is_hidden_from_is_not_even_sent_an_empty_message(place: Live) -> None:
    await place.put(PUBLIC, SECRET)
    nosy = await place.watching(sub="nosy")
    await place.put({"id": "secret", "title": "x"})
    await place.count("secret", scanCount=9)
    await place.force()
    await place.put({"id": "secret", "sharedWith": ["sam", "nosy2"]})
    await place.ask("DELETE", "/events/secret")
    assert await nosy.settled() == []
    assert nosy.view.seq == 1


async def test_an_admin_reads_any_event_by_id_and_sees_on_the_map_what_its_user_may_see(place: Live) -> None:
    await place.put(PUBLIC, SECRET)
    talk = await place.watching("admin", "root")
    assert list(talk.view.events) == ["public"]
    assert (await place.ask("GET", "/events/secret", sub="root")).json["sharedWith"] == ["sam"]


async def test_an_invented_held_with_reasons_finds_out_no_private_id(place: Live) -> None:
    await place.put(SECRET)
    talk = await place.talk(sub="eve")
    claimed = [["secret", 1], ["nothing", 1]]
    for event_id, version in claimed:
        talk.view._put(event_id, {"id": event_id, "version": version})
    await talk.ask("register", viewport=BERLIN, reasons=True, resume={"session": "x", "held": claimed})
    change = await talk.get("changes")
    assert change["updates"]["reasons"] == {"secret": "removed", "nothing": "removed"}
