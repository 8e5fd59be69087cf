"""Imports over the WebSocket: ordered, followed by their owner, told from one process to another."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from server.handlers.access import JOB
from tests.doubles.members import GOOD, Act, Members, Script
from tests.serving import Live, Message, Start, Talk, until

ASKED = {"listName": "Spring", "account": "biz_demo"}
COUNTS = ("pages", "seen", "imported", "duplicates", "withoutEmail")


@pytest_asyncio.fixture
async def double() -> AsyncIterator[Members]:
    """A provider that knows 730 members and takes a moment for each page."""
    async with Members(members=730, delay_s=0.02, total=True) as members:
        yield members


def environ(double: Members, **more: object) -> dict[str, object]:
    given = {"IMPORTS_KEY": "a key that seals what must stay secret", "IMPORTS_PROVIDER_URL": double.url}
    return {**given, "IMPORTS_CALLS_PER_S": 1000, "IMPORTS_CALLS_BURST": 1000, **more}


async def credential(place: Live, sub: str, value: str = GOOD) -> None:
    answer = await place.ask("POST", "/credentials", "viewer", sub=sub, json={"account": "biz_demo", "value": value})
    assert answer.status == 200, answer.body


async def created(talk: Talk, **more: Any) -> int:
    answer = await talk.ask("import-create", **{**ASKED, **more})
    assert answer["type"] == "import-created", answer
    return int(answer["id"])


async def progress_of(talk: Talk, topic: str) -> list[Message]:
    """All that is told of a job, until its end."""
    told: list[Message] = []
    while not told or told[-1]["status"] not in ("completed", "failed", "cancelled"):
        told.append(await talk.get("progress"))
        assert told[-1]["topic"] == topic
    return told


async def test_the_whole_way_from_the_key_to_the_file(start: Start, double: Members) -> None:
    place = await start(**environ(double))
    await credential(place, "ada")
    talk = await place.talk(sub="ada")
    job = await created(talk, key="k")
    assert (await talk.ask("import-create", **ASKED, key="k")) == {
        "type": "import-created",
        "ref": "r2",
        "id": job,
        "new": False,
    }
    assert (await talk.ask("subscribe", topic=f"job:{job}"))["type"] == "subscribed"
    told = await progress_of(talk, f"job:{job}")
    for name in COUNTS:
        counts = [message[name] for message in told]
        assert counts == sorted(counts), f"{name} never goes back"
    last = told[-1]
    assert (last["status"], last["percent"], last["etaMs"], last["seen"]) == ("completed", 100.0, 0, 730)
    assert last["seen"] == last["imported"] + last["duplicates"] + last["withoutEmail"]

    listed = (await place.ask("GET", f"/imports/{job}", "viewer", sub="ada")).json["listId"]
    contacts = await place.ask("GET", f"/audiences/{listed}/contacts?limit=1000", "viewer", sub="ada")
    exported = await place.ask("GET", f"/audiences/{listed}/export", "viewer", sub="ada")
    rows = list(csv.DictReader(io.StringIO(exported.body.decode())))
    assert [row["email"] for row in rows] == [row["email"] for row in contacts.json["contacts"]]
    assert len(rows) == last["imported"]


async def test_only_its_owner_and_admins_follow_a_job(start: Start, double: Members) -> None:
    place = await start(**environ(double, IMPORTS_LANES=0))
    await credential(place, "ada")
    ada, bob, admin = await place.talk(sub="ada"), await place.talk(sub="bob"), await place.talk("admin")
    job = await created(ada)
    for topic in (f"job:{job}", f"job:{job + 1}", "job:x", f"job:{10**30}"):
        code, _ = await bob.refusal("subscribe", topic=topic)
        assert code == "not_found"
    assert (await bob.refusal("subscribe", topic="imports"))[0] == "forbidden"
    for number in range(40):  # What was refused takes no place among the topics of a connection.
        assert (await bob.refusal("subscribe", topic=f"job:{job + number}"))[0] == "not_found"
    for talk, topic in ((ada, f"job:{job}"), (admin, f"job:{job}"), (admin, "imports")):
        assert (await talk.ask("subscribe", topic=topic))["type"] == "subscribed"
    await place.ask("POST", f"/imports/{job}/cancel", "viewer", sub="ada")
    assert (await progress_of(ada, f"job:{job}"))[-1]["status"] == "cancelled"

    async def topics_told() -> set[str]:
        message = await admin.get("progress")
        return {message["topic"]} if message["status"] == "cancelled" else set()

    seen: set[str] = set()
    while seen != {f"job:{job}", "imports"}:
        seen |= await topics_told()
    assert await bob.settled() == []


async def test_who_becomes_somebody_else_follows_the_jobs_of_before_no_more(start: Start, double: Members) -> None:
    place = await start(**environ(double, IMPORTS_LANES=0))
    await credential(place, "ada")
    talk, admin = await place.talk(sub="ada"), await place.talk("admin")
    job = await created(talk)
    await talk.ask("subscribe", topic=f"job:{job}")
    await talk.get("progress")
    assert f"{JOB}{job}" in place.app.hub.topics
    await talk.ask("authenticate", token=place.token(sub="bob"))
    assert place.app.hub.topics == []
    await admin.ask("subscribe", topic=f"job:{job}")
    await place.ask("POST", f"/imports/{job}/cancel")
    assert (await progress_of(admin, f"job:{job}"))[-1]["status"] == "cancelled"
    assert await talk.settled() == []
    await admin.socket.close()
    await until(lambda: place.app.hub.topics == [], "a topic that nobody follows is forgotten")


async def test_a_bad_order_is_refused_in_the_words_of_http(start: Start, double: Members) -> None:
    place = await start(**environ(double, IMPORTS_LANES=0))
    anonymous, ada = await place.talk(), await place.talk(sub="ada")
    assert (await anonymous.refusal("import-create", **ASKED))[0] == "unauthorized"
    assert await ada.refusal("import-create", **ASKED) == ("not_found", "account")
    assert await ada.refusal("import-create", account="biz_demo", listName="L", priority=9) == ("forbidden", "priority")
    assert await ada.refusal("import-create", account="biz_demo") == ("bad_message", "listName")


async def test_progress_crosses_processes_at_most_twice_a_second(start: Start, double: Members) -> None:
    """One server only serves, the other works; both over one database."""
    serves = await start(**environ(double, IMPORTS_LANES=0))
    await credential(serves, "ada")
    ada = await serves.talk(sub="ada")
    job = await created(ada)
    await ada.ask("subscribe", topic=f"job:{job}")
    double.script = Script(always=Act(delay_s=0.2))
    await start(**environ(double, IMPORTS_LANES=2))
    times: list[float] = []
    told: list[Message] = []
    while not told or told[-1]["status"] != "completed":
        told.append(await ada.get("progress"))
        times.append(serves.app.clock.monotonic())
    # A page takes 0.2 s: were each one told, there would be as many messages as pages.
    assert told[-1]["pages"] == 8 and 3 <= len(told) < 8
    assert len(told) <= 2 + 2 * (times[-1] - times[0] + 0.5)
    await serves.app.panel.run("bus")
    state = (await serves.ask("GET", "/imports/status")).json
    assert state["lanesHere"] == 0 and [worker["lanes"] for worker in state["workers"]] == [2]
