"""The topic `tracking`: what changes is told to administrators, on every node, at most twice a second, as a hint."""

from server.batching.hints import GAP_MS
from server.batching.tracking.relay import AREAS
from server.protocol.outgoing import SENT
from tests.serving import Live, Message, Start, Talk, until


async def changed(talk: Talk, wanted: set[str]) -> list[Message]:
    """The messages until all of these areas have been told."""
    told: list[Message] = []
    seen: set[str] = set()
    while not wanted <= seen:
        told.append(await talk.get("status"))
        SENT["status"].model_validate(told[-1])
        assert told[-1]["topic"] == "tracking"
        assert set(told[-1]["detail"]) == {"changed", "run"}
        seen |= set(told[-1]["detail"]["changed"])
    assert seen <= set(AREAS)
    return told


async def campaign(place: Live) -> int:
    body = {"name": "Spring", "budgetCents": 1_000, "rateCents": 100}
    answer = await place.ask("POST", "/tracking/campaigns", json=body)
    assert answer.status == 200, answer.body
    return int(answer.json["campaign"]["id"])


async def test_a_change_is_told_here_and_on_another_node(start: Start) -> None:
    here, there = await start(), await start()
    near, far = await here.talk("admin"), await there.talk("admin")
    for talk in (near, far):
        assert (await talk.ask("subscribe", topic="tracking"))["type"] == "subscribed"
    number = await campaign(here)
    for talk in (near, far):
        await changed(talk, {"campaigns"})
    body = {"campaignId": number, "url": "https://youtu.be/dQw4w9WgXcQ"}
    assert (await there.ask("POST", "/tracking/submissions", "viewer", json=body)).status == 200
    for talk in (near, far):
        await changed(talk, {"submissions"})


async def test_it_is_for_administrators(place: Live) -> None:
    for role in ("viewer", "producer"):
        talk = await place.talk(role)
        assert (await talk.refusal("subscribe", topic="tracking"))[0] == "forbidden"
        await campaign(place)
        assert await talk.settled() == []


async def test_many_changes_are_few_messages(place: Live) -> None:
    talk = await place.talk("admin")
    await talk.ask("subscribe", topic="tracking")
    clock = place.app.clock
    began = clock.monotonic()
    for _ in range(40):
        await campaign(place)
    turns = place.app.panel.state("tracking-tell").turns
    await until(lambda: place.app.panel.state("tracking-tell").turns > turns or not place.app.hints._own, "told")
    elapsed = clock.monotonic() - began
    told = [one for one in await talk.settled() if one["type"] == "status"]
    assert 1 <= len(told) <= 2 + elapsed * 1000 / GAP_MS
