"""The topic `schedules`: what changes is told to administrators, on every node, at most twice a second, as a hint."""

from typing import Any

from server.batching.hints import GAP_MS, NAMED_MOST, News
from server.batching.schedules.relay import AREAS
from server.protocol.outgoing import SENT
from tests.handlers.asking import until as eventually
from tests.serving import Live, Message, Start, Talk, until

PLACE = {"team": "acme", "identifier": "ChIJ_place_1"}


async def changed(talk: Talk, wanted: set[str]) -> list[Message]:
    """The messages until all of these areas have been told."""
    told: list[Message] = []
    seen: set[str] = set()
    while not wanted <= seen:
        told.append(await talk.get("status"))
        SENT["status"].model_validate(told[-1])
        assert told[-1]["topic"] == "schedules"
        seen |= set(told[-1]["detail"]["changed"])
    return told


async def follow(place: Live, number: int = 1) -> Any:
    answer = await place.ask("POST", "/api/google/profile", json={**PLACE, "identifier": f"ChIJ_place_{number}"})
    assert answer.status == 200, answer.body
    return answer.json["profile"]


async def test_a_change_is_told_here_and_on_another_node(start: Start) -> None:
    here, there = await start(), await start()
    near, far = await here.talk("admin"), await there.talk("admin")
    for talk in (near, far):
        assert (await talk.ask("subscribe", topic="schedules"))["type"] == "subscribed"
    await follow(here)
    for talk in (near, far):
        await changed(talk, {"businesses", "schedules"})
    schedule = (await here.ask("GET", "/admin/schedules?state=active")).json["schedules"][0]["id"]
    await here.ask("PUT", f"/admin/schedules/{schedule}/pause")
    for talk in (near, far):
        assert any(schedule in (one["detail"]["schedules"] or ()) for one in await changed(talk, {"schedules"}))


async def test_what_a_loop_has_done_is_told(place: Live) -> None:
    await follow(place)
    talk = await place.talk("admin")
    await until(lambda: place.app.schedules.relay._own.areas == set(), "what was changed before is told")
    await talk.ask("subscribe", topic="schedules")
    database = place.app._database
    assert database is not None
    async with database.transaction() as connection:
        await connection.execute("update schedules.schedule set next_run_at = now() - interval '1 minute'")
    await until(place.app.leadership.leads, "it leads")
    assert (await place.app.panel.run("schedules-dispatch")).detail["due"] == 2
    await changed(talk, {"runs"})


async def test_it_is_for_administrators(place: Live) -> None:
    viewer = await place.talk("viewer")
    assert (await viewer.refusal("subscribe", topic="schedules"))[0] == "forbidden"
    await follow(place)
    assert await viewer.settled() == []


async def test_many_changes_are_few_messages(place: Live) -> None:
    talk = await place.talk("admin")
    await talk.ask("subscribe", topic="schedules")
    clock = place.app.clock
    began = clock.monotonic()
    for number in range(60):
        await follow(place, number)
    turns = place.app.panel.state("schedules-tell").turns
    await until(
        lambda: place.app.panel.state("schedules-tell").turns > turns or not place.app.schedules.relay._own, "told"
    )
    told: list[Message] = []

    async def came() -> bool:
        told.extend([one for one in await talk.settled() if one["type"] == "status"])
        return bool(told)

    await eventually(came)
    elapsed = clock.monotonic() - began
    assert 1 <= len(told) <= 2 + elapsed * 1000 / GAP_MS


def test_news_name_schedules_while_they_are_few() -> None:
    news = News(AREAS, "schedules")
    assert not news
    news.add(["runs", "an area of a newer node"], [3, 1])
    news.add(["runs"], [2])
    assert news.said() == {"changed": ["runs"], "schedules": [1, 2, 3]}
    other = News(AREAS, "schedules")
    other.add(["retries"], range(NAMED_MOST + 1))
    news.merge(other)
    assert news.said() == {"changed": ["retries", "runs"], "schedules": None}
    news.add([], [7])
    assert news.ids is None and news.areas <= set(AREAS)
