"""Every message of the protocol over a real socket: its answer, its echo of `ref`, and its errors."""

import asyncio
from typing import Any

import orjson
import pytest

from server.errors import ERRORS, Code
from tests.serving import BERLIN, WORLD, Live, Message, Start, Talk, event, refused, spread, until

FAR = {"west": -10.0, "south": -10.0, "east": -9.0, "north": -9.0}
NINE = (
    *("batchesProcessed", "totalEventsProcessed", "totalUsersUpdated", "averageBatchSize", "lastBatchTime"),
    *("pendingUpdates", "registeredUsers", "isProcessingBatch", "config"),
)


# --- bad messages ---

BAD: list[tuple[Any, str, str | None]] = [
    ("{", "bad_json", None),
    ("", "bad_json", None),
    ('{"type":"ping","ref":"\\ud800"}', "bad_json", None),
    (b'{"type":"ping"}', "bad_message", None),
    ("5", "bad_message", None),
    ("[]", "bad_message", None),
    ("[5]", "bad_message", None),
    ({"ref": "x"}, "bad_message", "type"),
    ({"type": "no-such"}, "bad_message", "type"),
    ({"type": 5}, "bad_message", "type"),
    ({"type": "ping", "ref": 5}, "bad_message", "ref"),
    ({"type": "ping", "ref": "x" * 65}, "bad_message", "ref"),
    ({"type": "authenticate"}, "bad_message", "token"),
    ({"type": "authenticate", "token": 5}, "bad_message", "token"),
    ({"type": "register"}, "bad_viewport", "viewport"),
    ({"type": "register", "viewport": 5}, "bad_viewport", "viewport"),
    ({"type": "register", "viewport": {**BERLIN, "north": 91}}, "bad_viewport", "viewport.north"),
    ({"type": "register", "viewport": {**BERLIN, "west": "13"}}, "bad_viewport", "viewport.west"),
    ({"type": "register", "viewport": {**BERLIN, "south": 53}}, "bad_viewport", "viewport"),
    ({"type": "register", "viewport": {**BERLIN, "west": 14}}, "bad_viewport", "viewport"),
    ({"type": "register", "viewport": BERLIN, "filters": 5}, "bad_filter", "filters"),
    ({"type": "register", "viewport": BERLIN, "filters": [{"status": ["LOST"]}]}, "bad_filter", "filters.0.status.0"),
    ({"type": "register", "viewport": BERLIN, "filters": [{}] * 21}, "bad_filter", "filters"),
    ({"type": "register", "viewport": BERLIN, "maxEvents": 501}, "bad_message", "maxEvents"),
    ({"type": "register", "viewport": BERLIN, "maxEvents": 0}, "bad_message", "maxEvents"),
    ({"type": "register", "viewport": BERLIN, "location": {"latitude": 1}}, "bad_message", "location.longitude"),
    ({"type": "register", "viewport": BERLIN, "fields": "some"}, "bad_message", "fields"),
    ({"type": "register", "viewport": BERLIN, "resume": {}}, "bad_message", "resume.session"),
    (
        {"type": "register", "viewport": BERLIN, "resume": {"session": "s", "held": [["a", 1]] * 501}},
        "too_many",
        "resume.held",
    ),
    ({"type": "viewport-update", "viewport": {**BERLIN, "east": 181}}, "bad_viewport", "viewport.east"),
    ({"type": "viewport-update", "viewport": BERLIN}, "not_registered", None),
    (
        {"type": "filters-update", "filters": [{"location": {"latitude": 1}}]},
        "bad_filter",
        "filters.0.location.longitude",
    ),
    ({"type": "filters-update", "filters": []}, "not_registered", None),
    ({"type": "unregister"}, "not_registered", None),
    ({"type": "resync"}, "not_registered", None),
    ({"type": "resync", "held": [["a", 1]] * 501}, "too_many", "held"),
    ({"type": "explain", "eventId": "a"}, "not_registered", None),
    ({"type": "explain"}, "bad_message", "eventId"),
    ({"type": "event-upsert", "event": {"id": "a"}}, "unauthorized", None),
    ({"type": "event-delete", "id": "a"}, "unauthorized", None),
    ({"type": "popularity-update", "eventId": "a", "scanCount": 1}, "unauthorized", None),
    ({"type": "get-stats"}, "unauthorized", None),
    ({"type": "update-batch-config", "maxBatchSize": 5}, "unauthorized", None),
    ({"type": "force-batch"}, "unauthorized", None),
    ({"type": "subscribe", "topic": "loops"}, "unauthorized", None),
    ({"type": "subscribe", "topic": "gossip"}, "bad_message", "topic"),
    ({"type": "unsubscribe", "topic": "gossip"}, "bad_message", "topic"),
]
BAD_OF_A_PRODUCER: list[tuple[Message, str, str | None]] = [
    ({"type": "event-upsert", "event": {"title": "no id"}}, "bad_message", "id"),
    ({"type": "event-upsert", "event": 5}, "bad_message", "event"),
    ({"type": "event-upsert", "event": {"id": "a", "start": 0}}, "bad_message", "location"),
    ({"type": "event-upsert", "event": event("a", start=None)}, "bad_message", "start"),
    ({"type": "event-upsert", "event": event("a", start="2030-01-01T00:00:00")}, "bad_message", "start"),
    ({"type": "event-upsert", "event": event("a", confidence=1.5)}, "bad_message", "confidence"),
    ({"type": "event-upsert", "event": event("a", scanCount=-1)}, "bad_message", "scanCount"),
    ({"type": "event-upsert", "event": event("a", end=0)}, "bad_message", "end"),
    ({"type": "event-upsert", "event": event("a", timezone="Mars/Base")}, "bad_message", "timezone"),
    ({"type": "event-upsert", "event": event("x" * 129)}, "bad_message", "id"),
    ({"type": "event-upsert", "event": event("a"), "ifVersion": 7}, "conflict", "ifVersion"),
    ({"type": "event-delete", "id": "no such"}, "not_found", "id"),
    ({"type": "popularity-update", "eventId": "no such", "scanCount": 1}, "not_found", "eventId"),
    ({"type": "popularity-update", "eventId": "a"}, "bad_message", None),
    ({"type": "popularity-update", "eventId": "a", "scanCount": 1.5}, "bad_message", "scanCount"),
    ({"type": "popularity-update", "eventId": "a", "scanCount": 1, "delta": {"scanCount": 1}}, "bad_message", None),
    ({"type": "get-stats"}, "forbidden", None),
    ({"type": "update-batch-config", "maxBatchSize": 5}, "forbidden", None),
    ({"type": "force-batch"}, "forbidden", None),
    ({"type": "subscribe", "topic": "loops"}, "forbidden", None),
]


async def test_a_bad_message_is_answered_by_its_code_and_field_and_closes_nothing(start: Start) -> None:
    place = await start(MESSAGES_BURST=1000)
    await bad_ones(await place.talk(), BAD)
    await bad_ones(await place.talk("producer"), BAD_OF_A_PRODUCER)


async def bad_ones(talk: Talk, cases: list[tuple[Any, str, str | None]]) -> None:
    for sent, code, field in cases:
        await talk.say({**sent, "ref": sent.get("ref", "r")} if isinstance(sent, dict) else sent)
        answer = await talk.get("error")
        assert refused(answer) == (code, field), (sent, answer)
        assert answer["retry"] is (ERRORS[Code(code)].retry and field not in ("held", "resume.held"))
        assert answer.get("ref") == (sent.get("ref", "r") if isinstance(sent, dict) and field != "ref" else None)
    assert (await talk.ask("ping"))["type"] == "pong"


async def test_unknown_fields_are_ignored(place: Live) -> None:
    talk = await place.talk()
    assert await talk.ask("ping", colour="red") == {"type": "pong", "ref": "r1"}
    await talk.send("ping")
    assert await talk.get("pong") == {"type": "pong"}


async def test_text_that_is_not_utf8_closes_with_1007(place: Live) -> None:
    talk = await place.talk()
    await talk.socket.send(b'"\xff"', text=True)
    assert (await talk.closed())[0] == 1007


# --- who one is ---


async def test_authenticate_tells_who_one_is_until_when_and_may_what(place: Live) -> None:
    talk = await place.talk()
    answer = await talk.ask("authenticate", token=place.token("producer", "paul", ttl_s=60))
    assert {k: answer[k] for k in ("type", "sub", "roles")} == {
        "type": "authenticated",
        "sub": "paul",
        "roles": ["producer"],
    }
    assert answer["expiresAt"].endswith("Z")
    assert (await talk.ask("event-upsert", event=event("a")))["type"] == "ack"
    for_ever = await talk.ask("authenticate", token=place.token(sub="vera"))
    assert (for_ever["sub"], for_ever["roles"], for_ever["expiresAt"]) == ("vera", [], None)
    assert await talk.refusal("event-upsert", event=event("a")) == ("forbidden", None)


@pytest.mark.parametrize("what", ["forged", "no token", "of another server"])
async def test_a_token_that_is_not_good_is_unauthorized_and_changes_nothing(place: Live, what: str) -> None:
    good = place.token("admin")
    head, body, _ = good.split(".")
    bad = {"forged": good[:-6] + "AAAAAA", "no token": "hello", "of another server": f"{head}.{body}.c2lnbmF0dXJl"}[
        what
    ]
    talk = await place.talk("producer")
    assert await talk.refusal("authenticate", token=bad) == ("unauthorized", None)
    assert await talk.refusal("register", token=bad, viewport=BERLIN) == ("unauthorized", None)
    assert await talk.refusal("explain", eventId="a") == ("not_registered", None)
    assert (await talk.ask("event-upsert", event=event("a")))["type"] == "ack"
    assert await talk.refusal("get-stats") == ("forbidden", None)


async def test_a_token_that_expires_closes_with_4001_and_is_refused_from_then_on(place: Live) -> None:
    token = place.token("admin", ttl_s=1)
    talk, renewed = await place.talk(), await place.talk()
    assert (await talk.ask("authenticate", token=token))["type"] == "authenticated"
    await renewed.ask("authenticate", token=token)
    await renewed.ask("authenticate", token=place.token("admin", ttl_s=3600))
    code, _ = await talk.closed()
    assert code == 4001
    assert await renewed.refusal("authenticate", token=token) == ("unauthorized", None)
    assert (await renewed.ask("get-stats"))["type"] == "stats"


async def test_register_takes_a_token_too(place: Live) -> None:
    await place.put(event("mine", isPrivate=True, creatorId="carla"))
    talk = await place.talk()
    await talk.ask("register", token=place.token(sub="carla"), viewport=BERLIN)
    assert [e["id"] for e in (await talk.get("replace-all"))["events"]] == ["mine"]
    await talk.ask("authenticate", token=place.token(sub="nosy"))
    assert (await talk.get("delete-event"))["id"] == "mine"
    await talk.ask("authenticate", token=place.token(sub="carla"))
    assert (await talk.get("add-event"))["event"]["id"] == "mine"


# --- watching ---


async def test_register_is_answered_by_registered_then_a_ranked_snapshot(place: Live) -> None:
    await place.put(
        *spread(3), event("best", scanCount=100, saveCount=100, rsvpCount=100), event("far", location=[0, 0])
    )
    talk = await place.talk()
    registered = await talk.ask("register", viewport=BERLIN, maxEvents=2)
    assert registered["recovered"] is False
    assert len(registered["session"]) >= 16
    assert registered["config"]["batchIntervalMs"] == place.settings.batch_interval_ms
    assert registered["nextBatchAt"] > registered["serverTime"] > 1_600_000_000_000
    snapshot = await talk.get("replace-all")
    assert (snapshot["seq"], len(snapshot["events"]), snapshot["events"][0]["id"]) == (1, 2, "best")
    scores = [e["relevanceScore"] for e in snapshot["events"]]
    assert scores == sorted(scores, reverse=True)
    assert all("sharedWith" not in e for e in snapshot["events"])


async def test_a_second_register_replaces_the_first_and_seq_goes_on(place: Live) -> None:
    await place.put(event("a"))
    talk = await place.watching()
    first = await talk.ask("register", viewport=FAR)
    assert (await talk.get("replace-all"))["events"] == []
    second = await talk.ask("register", viewport=WORLD)
    assert second["session"] == first["session"]
    assert talk.view.seq == 2
    await talk.get("replace-all")
    assert (talk.view.seq, list(talk.view.events)) == (3, ["a"])


async def test_after_unregister_nothing_more_comes_and_requests_are_not_registered(place: Live) -> None:
    talk = await place.watching()
    assert await talk.ask("unregister") == {"type": "unregistered", "ref": "r2"}
    other = await place.watching()
    await place.put(event("a"))
    await other.get("add-event")
    assert await talk.settled() == []
    assert (await place.stats())["registeredUsers"] == 1
    for kind, fields in (("viewport-update", {"viewport": BERLIN}), ("resync", {}), ("explain", {"eventId": "a"})):
        assert await talk.refusal(kind, **fields) == ("not_registered", None)
    await talk.ask("register", viewport=BERLIN)
    assert (await talk.get("replace-all"))["seq"] == 2


async def test_a_pan_and_new_filters_are_answered_by_the_difference_also_when_empty(place: Live) -> None:
    await place.put(event("a", categories=["music"]), event("b", location=[-9.5, -9.5], categories=["food"]))
    talk = await place.watching()
    pan = await talk.ask("viewport-update", viewport=FAR)
    assert pan["type"] == "changes"
    assert ([e["id"] for e in pan["updates"]["creates"]], pan["updates"]["deletes"]) == (["b"], ["a"])
    nothing: Message = {"creates": [], "updates": [], "deletes": []}
    assert (await talk.ask("viewport-update", viewport=FAR))["updates"] == nothing
    out = await talk.ask("filters-update", filters=[{"categories": {"include": ["music"]}}])
    assert out["updates"] == {**nothing, "deletes": ["b"]}
    either = [{"categories": {"include": ["music"]}}, {"text": "title B"}]
    assert [e["id"] for e in (await talk.ask("filters-update", filters=either))["updates"]["creates"]] == ["b"]
    assert (await talk.ask("filters-update", filters=either))["updates"] == nothing
    assert talk.view.seq == 6


async def test_resync_with_what_is_held_gives_the_difference_and_without_everything(place: Live) -> None:
    await place.put(*spread(3))
    talk = await place.watching()
    held = talk.view.held()
    full = await talk.ask("resync")
    assert (full["type"], full["seq"], len(full["events"])) == ("replace-all", 2, 3)
    wrong = [held[0], [held[1][0], 1], ["gone", 7]]
    for event_id, version in wrong[1:]:
        talk.view._put(event_id, {"id": event_id, "version": version})
    talk.view._put(held[2][0], None)
    mended = await talk.ask("resync", held=wrong)
    assert mended["type"] == "changes"
    assert mended["updates"]["deletes"] == ["gone"]
    assert {e["id"] for e in mended["updates"]["creates"]} == {held[2][0]}
    assert {e["id"] for e in mended["updates"]["updates"]} == {held[0][0], held[1][0]}
    assert sorted(talk.view.held()) == sorted(held)


async def test_resume_with_held_is_one_difference(place: Live) -> None:
    await place.put(*spread(3))
    before = await place.watching()
    session = (await before.ask("register", viewport=BERLIN))["session"]
    await before.socket.close()
    await place.put(event("new"), {"id": "e0", "title": "Changed"})
    await place.ask("DELETE", "/events/e1")
    talk = await place.talk()
    talk.view.events, talk.view._sum = before.view.events, before.view._sum
    resume = {"session": session, "seq": before.view.seq, "held": before.view.held()}
    assert (await talk.ask("register", viewport=BERLIN, resume=resume))["recovered"] is True
    change = await talk.get("changes")
    assert change["seq"] == 1
    assert ([e["id"] for e in change["updates"]["creates"]], change["updates"]["deletes"]) == (["new"], ["e1"])
    assert {e["id"] for e in change["updates"]["updates"]} == {"e0", "e2"}
    assert await talk.settled() == []


async def test_an_unknown_session_without_held_is_not_recovered(place: Live) -> None:
    talk = await place.talk()
    assert (await talk.ask("register", viewport=BERLIN, resume={"session": "x", "seq": 5}))["recovered"] is False
    assert (await talk.get("replace-all"))["seq"] == 1


async def test_the_real_client_comes_back_with_one_difference(place: Live) -> None:
    await place.put(*spread(3))
    client = await place.real_client(jitter=lambda: 0.0)
    next(iter(place.app.hub)).close(1012, '{"retryAfterMs":1}')
    await until(lambda: not len(place.app.hub), "the connection has gone")
    await place.put(event("new"))
    while "new" not in client.events:
        change = await client.next_change(30)
    assert (client.connections, client.divergences, change.matches) == (2, 0, True)


# --- explain ---


async def test_explain_says_why_an_event_is_in_view_cut_spaced_out_or_filtered(place: Live) -> None:
    places = {name: {"latitude": 52.5, "longitude": lon} for name, lon in (("a", 13.4), ("b", 13.401), ("c", 13.6))}
    await place.put(
        event("first", location=places["a"], rsvpCount=9),
        event("near", location=places["b"]),
        event("second", location=places["c"], rsvpCount=5),
        event("third", location={"latitude": 52.9, "longitude": 13.9}),
        event("outside", location=[0, 0]),
        event("refused", status="REJECTED"),
        event("late", start=4_000_000_000_000),
    )
    talk = await place.watching(maxEvents=2, location=places["a"], filters=[{"text": "title"}])
    told = {name: await talk.ask("explain", eventId=name) for name in ("first", "near", "third")}
    kinds = {"eventId", "inView", "rank", "access", "status", "window", "viewport", "filters", "components", "raw"}
    assert set(told["first"]) >= kinds | {"relativeScore", "cut", "spacingNeighbour"}
    assert (told["first"]["type"], told["first"]["inView"], told["first"]["rank"]) == ("explanation", True, 1)
    assert (told["near"]["inView"], told["near"]["rank"], told["near"]["spacingNeighbour"]) == (False, None, "first")
    assert (told["third"]["spacingNeighbour"], told["third"]["cut"]["eventId"]) == (None, "second")
    for name, reason in (("outside", "viewport"), ("refused", "status"), ("late", "window")):
        answer = await talk.ask("explain", eventId=name)
        no = [r for r in ("access", "status", "window", "viewport", "filters") if answer[r] is False]
        assert (no, answer["inView"], answer["relativeScore"]) == ([reason], False, None)
    await talk.ask("filters-update", filters=[{"text": "first"}])
    assert (await talk.ask("explain", eventId="near"))["filters"] is False


async def test_explain_of_a_private_event_answers_as_for_one_that_does_not_exist(place: Live) -> None:
    await place.put(event("mine", isPrivate=True, creatorId="carla"))
    talk = await place.watching(sub="nosy")
    private, unknown = await talk.ask("explain", eventId="mine"), await talk.ask("explain", eventId="none")
    assert refused(private) == ("not_found", "eventId")
    assert without_ref(private, "mine") == without_ref(unknown, "none")


def without_ref(message: Message, event_id: str) -> str:
    return orjson.dumps({**message, "ref": ""}).decode().replace(event_id, "ID")


# --- producing ---


async def test_upsert_and_delete_are_acknowledged_with_versions_that_grow(place: Live) -> None:
    talk = await place.talk("producer", "paul")
    first = await talk.ask("event-upsert", event=event("a"))
    assert (first["type"], first["id"]) == ("ack", "a")
    again = await talk.ask("event-upsert", event={"id": "a", "title": "Title of a"})
    assert again["version"] == first["version"]
    changed = await talk.ask("event-upsert", event={"id": "a", "title": "Other"}, ifVersion=first["version"])
    assert changed["version"] > first["version"]
    stale = {"event": {"id": "a", "title": "Third"}, "ifVersion": first["version"]}
    assert await talk.refusal("event-upsert", **stale) == ("conflict", "ifVersion")
    assert await talk.refusal("event-delete", id="a", ifVersion=first["version"]) == ("conflict", "ifVersion")
    gone = await talk.ask("event-delete", id="a", ifVersion=changed["version"])
    assert gone["version"] > changed["version"]
    assert await talk.refusal("event-delete", id="a") == ("not_found", "id")
    assert (await talk.ask("event-upsert", event=event("a")))["version"] > gone["version"]


async def test_a_producer_may_not_touch_the_events_of_others_and_an_admin_any(place: Live) -> None:
    paul, petra, root = (
        await place.talk("producer", "paul"),
        await place.talk("producer", "petra"),
        await place.talk("admin"),
    )
    await paul.ask("event-upsert", event=event("pauls", creatorId="paul"))
    await paul.ask("event-upsert", event=event("nobodys"))
    assert await petra.refusal("event-upsert", event={"id": "pauls", "title": "x"}) == ("forbidden", "id")
    assert await petra.refusal("event-upsert", event={"id": "pauls", "creatorId": "petra"}) == ("forbidden", "id")
    assert await petra.refusal("event-delete", id="pauls") == ("forbidden", "id")
    for talk, event_id in ((petra, "nobodys"), (paul, "pauls"), (root, "pauls")):
        assert (await talk.ask("event-upsert", event={"id": event_id, "title": f"by {event_id}"}))["type"] == "ack"
    assert (await root.ask("event-delete", id="pauls"))["type"] == "ack"


async def test_counters_are_set_or_moved_and_a_negative_result_is_zero(place: Live) -> None:
    talk = await place.talk("producer")
    await talk.ask("event-upsert", event=event("a", scanCount=5, saveCount=2))
    await talk.ask("popularity-update", eventId="a", delta={"scanCount": -9, "rsvpCount": 3})
    await talk.ask("popularity-update", eventId="a", saveCount=7)
    stored = (await place.ask("GET", "/events/a")).json
    assert [stored[f"{name}Count"] for name in ("scan", "save", "rsvp")] == [0, 7, 3]
    most = 2**63 - 1
    await talk.ask("popularity-update", eventId="a", scanCount=most)
    await talk.ask("popularity-update", eventId="a", delta={"scanCount": most})
    assert (await place.ask("GET", "/events/a")).json["scanCount"] == most


async def test_a_repeated_update_id_gets_the_same_ack_and_counts_once(place: Live) -> None:
    paul, petra = await place.talk("producer", "paul"), await place.talk("producer", "petra")
    await paul.ask("event-upsert", event=event("a"))
    update: Message = {"eventId": "a", "delta": {"scanCount": 1}, "updateId": "u1"}
    first = await paul.ask("popularity-update", **update)
    await paul.ask("event-upsert", event={"id": "a", "title": "A newer version"})
    again = await paul.ask("popularity-update", **update)
    assert {**again, "ref": ""} == {**first, "ref": ""}
    await petra.ask("popularity-update", **update)
    assert (await place.ask("GET", "/events/a")).json["scanCount"] == 2


async def test_an_array_of_updates_has_one_answer_for_each_element(place: Live) -> None:
    await place.put(event("a"))
    talk = await place.talk("producer")
    updates = [
        {"type": "popularity-update", "ref": "one", "eventId": "a", "delta": {"scanCount": 1}, "updateId": "u"},
        {"type": "popularity-update", "ref": "two", "eventId": "no such", "scanCount": 1},
        {"type": "popularity-update", "ref": "three", "eventId": "a", "scanCount": "many"},
        {"type": "popularity-update", "ref": "four", "eventId": "a", "delta": {"scanCount": 1}, "updateId": "u"},
    ]
    await talk.say(updates)
    async with asyncio.timeout(30):
        answers = {(message := await talk._read())["ref"]: message for _ in updates}
    assert (answers["one"]["type"], answers["one"]["version"]) == ("ack", answers["four"]["version"])
    assert refused(answers["two"]) == ("not_found", "eventId")
    assert refused(answers["three"]) == ("bad_message", "scanCount")
    assert (await place.ask("GET", "/events/a")).json["scanCount"] == 1
    await talk.say([*updates[:1], {"type": "ping"}])
    assert refused(await talk.get("error")) == ("bad_message", None)
    viewer = await place.talk()
    await viewer.say(updates[:2])
    assert [refused(await viewer.get("error")) for _ in range(2)] == [("unauthorized", None)] * 2


async def test_operations_sent_ahead_are_acknowledged_in_order(place: Live) -> None:
    talk = await place.talk("producer")
    await talk.send("event-upsert", event=event("a"), ref="0")
    for number in range(1, 301):
        await talk.send("popularity-update", eventId="a", delta={"scanCount": 1}, ref=str(number))
    assert [(await talk.get("ack"))["ref"] for _ in range(301)] == [str(n) for n in range(301)]
    assert (await place.ask("GET", "/events/a")).json["scanCount"] == 300


# --- administering ---


async def test_get_stats_has_the_nine_under_the_names_of_old(place: Live) -> None:
    await place.put(event("a"))
    talk = await place.watching("admin")
    stats = await talk.ask("get-stats")
    assert stats["type"] == "stats"
    assert set(stats) >= {*NINE, "serverTime", "nextBatchAt"}
    assert [stats[name] for name in NINE[:8]] == [0, 0, 0, 0, 0, 0, 1, False]
    assert {"batchIntervalMs", "maxBatchSize", "enableBatching"} <= stats["config"].keys()
    await place.count("a", scanCount=5)
    assert (await talk.ask("get-stats"))["pendingUpdates"] == 1
    forced = await talk.ask("force-batch")
    stats = await talk.ask("get-stats")
    assert [stats[name] for name in (*NINE[:4], *NINE[5:8])] == [1, 1, 1, 1, 0, 1, False]
    assert stats["serverTime"] >= stats["lastBatchTime"] > stats["serverTime"] - 60_000
    assert {name: forced["stats"][name] for name in NINE[:5]} == {name: stats[name] for name in NINE[:5]}


async def test_force_batch_says_what_became_of_the_turn(place: Live) -> None:
    await place.put(*spread(3))
    talk = await place.watching("admin")
    for number in range(3):
        await place.count(f"e{number}", scanCount=5)
    forced = await talk.ask("force-batch")
    turn = forced["turn"]
    assert set(turn) == {"taken", "done", "failed", "deferred", "seconds"}
    assert turn["taken"] == turn["done"] + turn["failed"] + turn["deferred"]
    assert (turn["taken"], turn["failed"]) == (3, 0)
    assert (await talk.get("batch-update"))["summary"]["updatedEvents"] == 3
    assert (await talk.ask("force-batch"))["turn"]["taken"] == 0
    assert await talk.settled() == []


async def test_the_configuration_is_bounded_re_times_the_batch_and_keeps_what_is_pending(place: Live) -> None:
    await place.put(event("a"))
    talk = await place.watching("admin")
    await place.count("a", scanCount=5)
    for name, value in (
        *(("batchIntervalMs", n) for n in (99, 86_400_001, 1.5, "100")),
        *(("maxBatchSize", n) for n in (0, 1_000_001, True)),
        ("enableBatching", "yes"),
    ):
        assert await talk.refusal("update-batch-config", **{name: value}) == ("bad_message", name)
    assert await talk.refusal("update-batch-config") == ("bad_message", None)
    config = await talk.ask("update-batch-config", batchIntervalMs=60_000, maxBatchSize=5)
    assert (config["type"], config["batchIntervalMs"], config["maxBatchSize"]) == ("config", 60_000, 5)
    assert config["sources"] == {"batchIntervalMs": "runtime", "maxBatchSize": "runtime", "enableBatching": "default"}
    assert 0 < config["nextBatchAt"] - config["serverTime"] <= 60_000
    assert (await talk.ask("get-stats"))["pendingUpdates"] == 1
    assert await talk.settled() == []
    await talk.ask("update-batch-config", batchIntervalMs=100)
    batch = await talk.get("batch-update")
    assert batch["updates"]["updates"][0]["scanCount"] == 5


async def test_the_configuration_survives_a_restart(start: Start) -> None:
    first = await start()
    admin = await first.talk("admin")
    await admin.ask("update-batch-config", batchIntervalMs=123_000, enableBatching=False)
    second = await start()
    talk = await second.talk("admin")
    config = (await talk.ask("register", viewport=BERLIN))["config"]
    assert (config["batchIntervalMs"], config["enableBatching"]) == (123_000, False)
    assert config["sources"]["batchIntervalMs"] == "runtime"


# --- topics ---


async def test_who_subscribes_to_loops_gets_their_status_until_it_unsubscribes(place: Live) -> None:
    talk, other = await place.talk("admin"), await place.talk("admin")
    assert await talk.ask("subscribe", topic="loops") == {"type": "subscribed", "ref": "r1", "topic": "loops"}
    await place.force()
    status = await talk.get("status")
    while status["loop"] != "scores":
        status = await talk.get("status")
    assert (status["topic"], status["trigger"], status["error"]) == ("loops", "forced", None)
    assert await talk.ask("unsubscribe", topic="loops") == {"type": "unsubscribed", "ref": "r2", "topic": "loops"}
    await talk.settled()
    await place.force()
    assert await talk.settled() == []
    assert await other.settled() == []


async def test_topics_of_the_operator_are_for_admins(place: Live) -> None:
    viewer, admin = await place.talk(sub="vera"), await place.talk("admin")
    for topic in ("loops", "alerts", "imports", "schedules", "tiers", "tracking"):
        assert await viewer.refusal("subscribe", topic=topic) == ("forbidden", None)
        assert (await admin.ask("subscribe", topic=topic))["type"] == "subscribed"
    assert await admin.refusal("subscribe", topic="job:28") == ("not_found", "id")
