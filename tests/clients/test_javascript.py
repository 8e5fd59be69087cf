"""Wire: what batchcast.js has beyond the table: hooks, topics, signing in and out, the queue of requests; in Node."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from server.client import COME_BACK
from tests.clients.drivers import Message, Node, in_node
from tests.clients.table import House, World, ada, ada_beyond_her_token, is_live, latest, scene_in
from tests.serving import BERLIN, spread, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).resolve().parents[2]
MODULE = (ROOT / "client-examples" / "batchcast.js").as_uri()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[Node]:
    async with in_node() as node:
        yield node


@pytest_asyncio.fixture(loop_scope="module")
async def world(house: House, node: Node) -> AsyncIterator[World]:
    async with scene_in(house, node) as world:
        yield world


async def test_the_hash_is_sha_256_at_every_length_of_a_text(node: Node) -> None:
    texts = ["x" * length for length in range(200)] + ["ü" * 33, "🎷" * 128 + "\n4711", "\x00", "a\n1"]
    body = f"""const {{ sha256 }} = await import({MODULE!r});
        const hex = (word) => (word >>> 0).toString(16).padStart(8, "0");
        return {json.dumps(texts)}.map((text) => Array.from(sha256(text), hex).join(""));"""
    assert await node.run(body) == [hashlib.sha256(text.encode()).hexdigest() for text in texts]


async def test_both_clients_treat_the_same_close_codes_apart(node: Node) -> None:
    codes = await node.run(f"return (await import({MODULE!r})).COME_BACK;")
    assert {int(code): what for code, what in codes.items()} == COME_BACK


async def test_the_view_holds_what_the_messages_say(node: Node) -> None:
    body = f"""const {{ View }} = await import({MODULE!r});
        const [view, event] = [new View(), (id, version, more) => ({{ id, version, title: id, start: "s", ...more }})];
        view.apply({{ type: "replace-all", seq: 1, events: [event("a", 1, {{ old: 1 }}), event("b", 1)] }});
        view.apply({{ type: "changes", seq: 2, updates: {{ updates: [{{ id: "b", version: 2, rsvpCount: 4 }}] }} }});
        const held = [...view.events.values()];
        const snapshot = view.apply({{ type: "replace-all", seq: 3, events: [event("a", 3), event("c", 1)] }});
        return {{ held, snapshot, before: Object.fromEntries(snapshot.before), after: [...view.events.values()] }};"""
    said = await node.run(body)
    a, b, c = ({"id": name, "version": 1, "title": name, "start": "s"} for name in "abc")
    assert said["held"] == [{**a, "old": 1}, {**b, "version": 2, "rsvpCount": 4}]
    assert said["after"] == [{**a, "version": 3}, c]
    parts = ("creates", "updates", "deletes", "matches")
    assert [said["snapshot"][part] for part in parts] == [[c], [{**a, "version": 3}], ["b"], True]
    assert said["before"] == {"a": {**a, "old": 1}, "b": {**b, "version": 2, "rsvpCount": 4}}


async def test_more_than_a_message_can_say_is_not_said(node: Node) -> None:
    body = f"""const {{ View }} = await import({MODULE!r});
        const held = (ids) => {{
            const view = new View();
            view.apply({{ type: "replace-all", seq: 1, events: ids.map((id) => ({{ id, version: 1 }})) }});
            return view.held()?.length ?? "too much";
        }};
        const some = (count, more) => Array.from({{ length: count }}, (_, n) => n + more);
        return [held(some(500, "")), held(some(501, "")), held(some(190, "🎷".repeat(120))), held(some(210, "🎷".repeat(120)))];"""
    assert await node.run(body) == [500, "too much", 190, "too much"]


async def test_before_a_token_expires_another_is_said_on_the_same_connection(world: World) -> None:
    await ada_beyond_her_token(world)
    look = await world.see(lambda look: "hers2" in look["held"], "she is still she")
    assert (look["connections"], look["fresh"]) == (1, 1)


async def test_without_a_token_to_come_back_with_it_goes_on_as_nobody_when_told_to(world: World) -> None:
    await world.place.put(*spread(1))
    token = await ada(world)
    assert set((await world.opened(token=token, anonymous=True))["held"]) == {"e0", "hers1"}
    world.sub = None
    await world.proxy.close(4001, "the token has expired")
    assert set((await world.back(2))["held"]) == {"e0"}
    await world.driver.close()
    look = await world.opened(token="HEADER.CLAIMS.SIGNATURE", anonymous=True)
    assert (set(look["held"]), look["connections"]) == ({"e0"}, 1)


async def test_signing_in_and_out_changes_what_is_seen(world: World, node: Node) -> None:
    await world.place.put(*spread(1))
    token = await ada(world)
    await world.opened()
    await node.run(f"await client.signIn({token!r});")
    await world.see(lambda look: set(look["held"]) == {"e0", "hers1"}, "she sees her own")
    await node.run("client.signOut();")
    await world.see(lambda look: is_live(look) and set(look["held"]) == {"e0"}, "nobody sees it")
    with pytest.raises(AssertionError, match="unauthorized"):
        await node.run("await client.signIn('rubbish').catch(({ code }) => { throw new Error(code); });")


async def test_topics_are_followed_again_after_a_loss(world: World, node: Node) -> None:
    await node.run("globalThis.topics = [];")
    await node.open(world.proxy.url, viewport=None, token=world.place.token("admin"))
    await world.see(lambda look: look["state"] == "live", "live without a viewport")
    await node.run("client.on('topic', (message) => topics.push(message.topic)); await client.subscribe('loops');")
    world.proxy.cut()
    await until(lambda: len(world.proxy.said("subscribe")) == 2, "it subscribes again")
    await world.place.force()
    while "loops" not in await node.run("return topics;"):
        pass
    assert not world.proxy.said("register")
    refused = "return client.setViewport({ west: 1, south: 2, east: 3, north: 1 }).catch(({ code }) => code);"
    assert await node.run(refused) == "bad_viewport"
    world.question = {"viewport": BERLIN}
    await node.run(f"await client.setViewport({json.dumps(BERLIN)});")
    await world.is_true()


async def test_of_many_pans_only_the_newest_waits(world: World, node: Node) -> None:
    await world.opened()
    boxes = [{**BERLIN, "west": 13.0 + n / 100} for n in range(50)]
    await node.run(f"await Promise.all({json.dumps(boxes)}.map((box) => client.setViewport(box)));")
    assert [m["viewport"] for m in world.proxy.said("viewport-update")] == [boxes[0], boxes[-1]]
    world.question = {"viewport": boxes[-1]}


async def test_a_pan_while_the_registration_is_under_way_is_not_lost(world: World, node: Node) -> None:
    box = {**BERLIN, "west": 13.5}
    await world.opened()
    world.proxy.cut()
    await world.see(lambda look: look["state"] == "lost", "the connection is lost")
    await node.run(
        f"await new Promise((done) => client.on('state', done)); await client.setViewport({json.dumps(box)});"
    )
    world.question = {"viewport": box}
    await world.back(2)
    await world.is_true()


async def test_a_pan_before_the_registration_is_answered_is_said_after_it(world: World, node: Node) -> None:
    box = {**BERLIN, "west": 13.5}
    await world.opened()
    body = f"""let told = null;
        class Telling extends WebSocket {{
            send(text) {{
                super.send(text);
                if (JSON.parse(text).type === "register") told = other.setViewport({json.dumps(box)});
            }}
        }}
        const other = new BatchcastClient({{ url: {world.proxy.url!r}, WebSocket: Telling, viewport: client.viewport }});
        other.start();
        await other.ready();
        await told;
        await other.request({{ type: "ping" }});
        other.close();"""
    await node.run(body)
    assert [message["viewport"] for message in world.proxy.said("viewport-update")] == [box]


async def test_what_was_wished_without_a_connection_and_is_refused_gives_way(world: World, node: Node) -> None:
    await world.opened()
    world.proxy.shut()
    world.proxy.cut()
    await world.see(lambda look: look["state"] == "lost", "the connection is lost")
    await world.driver.turn("viewport", {**BERLIN, "south": 60.0})
    world.proxy.admit()
    look = await world.back(2)
    assert "bad_viewport" in look["problems"]
    assert await node.run("return client.viewport;") == BERLIN


async def test_a_wish_that_is_refused_does_not_cost_the_next_connection(world: World, node: Node) -> None:
    await world.place.put(*spread(3))
    await world.opened(maxEvents=2)
    refused = "return client.setMaxEvents(100000).catch(({ code }) => code);"
    assert await node.run(refused) == "bad_message"
    world.proxy.cut()
    assert len((await world.back(2))["held"]) == 2
    await node.run("await client.setMaxEvents(50);")
    await world.see(lambda look: len(look["held"]) == 3, "all three")


async def test_requests_are_bounded_in_number_and_in_time(world: World, node: Node) -> None:
    await world.opened()
    world.proxy.edit = lambda message: [] if message["type"] == "pong" else [message]
    body = """const words = ({ code, name }) => `${name} ${code}`;
        const ask = () => client.request({ type: "ping" }, { timeoutMs: 300 }).then(() => "", words);
        const answers = await Promise.all(Array.from({ length: 1100 }, ask));
        return answers.reduce((counts, answer) => ({ ...counts, [answer]: (counts[answer] ?? 0) + 1 }), {});"""
    assert await node.run(body) == {"Lost unavailable": 1016, "Refusal too_many": 84}
    assert len(world.proxy.said("ping")) <= 16


async def test_after_too_many_requests_go_out_in_order_and_at_the_rate_that_was_named(world: World, node: Node) -> None:
    await world.opened()
    error = {"type": "error", "code": "too_many", "message": "slow down", "limit": 5, "retry": True, "retryAfterMs": 1}
    left = 4

    def edit(message: Message) -> list[Message]:
        nonlocal left
        left -= message["type"] == "pong"
        return [message] if left < 0 or message["type"] != "pong" else [{**error, "ref": message["ref"]}]

    world.proxy.edit = edit
    body = """const began = performance.now();
        await Promise.all([0, 1, 2, 3].map((n) => client.request({ type: "ping", n })));
        return performance.now() - began;"""
    waited_ms = await node.run(body)
    assert [message["n"] for message in world.proxy.said("ping")] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert waited_ms >= 3 * 1000 / 5


async def test_a_program_is_told_when_there_never_will_be_a_view(world: World, node: Node) -> None:
    await node.open(world.proxy.url, viewport={**BERLIN, "south": 60.0})
    body = "return client.ready().then(() => '', ({ message }) => message);"
    assert "south" in await node.run(body)
    assert "south" in await node.run(body)
    await world.opened()


async def test_a_listener_that_throws_does_not_harm_the_view(world: World, node: Node) -> None:
    await world.opened()
    await node.run("globalThis.reportError = () => {}; client.on('change', () => { throw new Error('a bug'); });")
    await world.hold(*spread(2))
    assert latest(await world.is_true())["matches"]


async def test_the_types_name_what_there_is(node: Node) -> None:
    types = (ROOT / "client-examples" / "batchcast.d.ts").read_text()
    body = f"""const module = await import({MODULE!r});
        const own = (one) => Object.getOwnPropertyNames(one).filter((name) => name !== "constructor");
        const fields = own(new module.BatchcastClient({{ url: "" }}));
        return {{ exports: Object.keys(module), members: [...own(module.BatchcastClient.prototype), ...fields] }};"""
    said = await node.run(body)
    block = types.partition("export class BatchcastClient {")[2].partition("\n}")[0]
    declared = {
        line.split("(")[0].split(":")[0].split("<")[0].split()[-1] for line in block.splitlines() if line.strip()
    }
    assert declared - {"constructor"} == set(said["members"])
    for name in said["exports"]:
        assert any(f"export {kind} {name}" in types for kind in ("class", "const", "function")), name
