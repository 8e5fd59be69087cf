"""Wire: the programs and pages of client-examples as somebody would run them, and the adapters with a map under them."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import xstatic.pkg.leaflet
from playwright.sync_api import Page, expect

from tests.clients.drivers import LIMIT_S, Chromium, node_arguments, node_path
from tests.clients.table import House
from tests.serving import BERLIN, Live, event, spread

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "client-examples" / "node_client.mjs"
TYPES = Path(__file__).with_name("types.ts")
LEAFLET = Path(xstatic.pkg.leaflet.BASE_DIR)
BOX = ",".join(str(BERLIN[side]) for side in ("west", "south", "east", "north"))
LONG_MS = LIMIT_S * 1000


@pytest_asyncio.fixture(loop_scope="module")
async def place(house: House) -> Live:
    await house.clear()
    return house.place


# --- Node ---


async def program(*arguments: str, **environ: str) -> asyncio.subprocess.Process:
    path = node_path()
    command = [path, "--no-warnings", *await node_arguments(path), str(PROGRAM), *arguments]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env={**os.environ, **environ})


async def read_until(process: asyncio.subprocess.Process, words: str) -> str:
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(LIMIT_S):
        while words not in said:
            line = await process.stdout.readline()
            assert line, f"it ended: {said}"
            said += line.decode()
    return said


async def test_the_node_program_prints_the_view_and_its_changes_and_ends_when_told(place: Live) -> None:
    await place.put(*spread(2))
    process = await program(place.app.ws_url, BOX, BATCHCAST_TOKEN=place.token("viewer"))
    try:
        assert "2 events in view" in await read_until(process, "Title of e1")
        await place.put(event("shown", title="Shown at once", location={"latitude": 52.9, "longitude": 13.9}))
        assert "add-event: +1 ~0 -0, digest ok" in await read_until(process, "+ Shown at once")
        await place.ask("DELETE", "/events/shown")
        await read_until(process, "- shown (removed)")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(LIMIT_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_the_node_program_says_why_it_cannot_go_on(place: Live) -> None:
    process = await program(place.app.ws_url, "0,10,1,-10")
    async with asyncio.timeout(LIMIT_S):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert "south" in said.decode()


async def test_the_types_hold_for_a_program_that_uses_all_of_them() -> None:
    compiler = os.environ.get("TSC") or shutil.which("tsc")
    if compiler is None:
        pytest.skip("no TypeScript compiler found (looked for $TSC and on PATH for tsc)")
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom")
    process = await asyncio.create_subprocess_exec(
        compiler, *options, str(TYPES), stdout=asyncio.subprocess.PIPE, cwd=TYPES.parent
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


# --- Chromium ---


@pytest_asyncio.fixture(loop_scope="module")
async def page(open_chromium: Chromium) -> AsyncIterator[Page]:
    page: Page = await open_chromium.run(lambda browser: browser.new_page(viewport={"width": 800, "height": 600}))
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
    yield page
    await open_chromium.run(lambda _: page.close())
    assert problems == []


@pytest.mark.browser
async def test_the_page_lists_what_is_in_view_and_keeps_it_true(
    place: Live, page: Page, open_chromium: Chromium
) -> None:
    await place.put(*spread(3), event("bold", title="<b>bold</b>", location={"latitude": 52.9, "longitude": 13.9}))
    address = f"{open_chromium.url}/client-examples/browser.html?ws={place.app.ws_url}&box={BOX}"

    def come(_: object) -> None:
        page.goto(address)
        expect(page.locator("#events li")).to_have_count(4, timeout=LONG_MS)
        expect(page.locator("#events")).to_contain_text("<b>bold</b>")
        expect(page.locator("#state")).to_have_text("live")

    await open_chromium.run(come)
    await place.ask("DELETE", "/events/bold")
    await open_chromium.run(lambda _: expect(page.locator("#events li")).to_have_count(3, timeout=LONG_MS))


SET_UP = """async ({ url, adapter, name, library }) => {
    const { BatchcastClient } = await import("/client-examples/batchcast.js");
    const follow = (await import(`/client-examples/${adapter}`))[name];
    window.client = new BatchcastClient({ url, jitter: () => 0.1 });
    window.following = follow(client, ...(library === "leaflet" ? [L, map] : [maplibre, map]), { popup: ({ title }) => title });
    client.start();
    await client.ready();
}"""
LEAFLET_MAP = """() => {
    document.body.innerHTML = '<div id="map" style="height: 500px"></div>';
    window.map = L.map("map", { zoomAnimation: false, fadeAnimation: false }).setView([52.5, 13.5], 9);
}"""
# WebGL is not everywhere where tests run: of MapLibre only what the adapter uses of it, drawing nothing.
MAPLIBRE_MAP = """() => {
    class Marker {
        constructor({ element }) { this.element = element; }
        setLngLat(at) { this.at = at; return this; }
        addTo({ container }) { container.append(this.element); return this; }
        getElement() { return this.element; }
        remove() { this.element.remove(); }
    }
    const box = { west: 13, south: 52, east: 14, north: 53 };
    const listeners = new Set();
    const side = (name) => () => box[name];
    window.maplibre = { Marker };
    window.map = {
        container: document.body,
        on: (_, listener) => listeners.add(listener),
        off: (_, listener) => listeners.delete(listener),
        getBounds: () => ({ getWest: side("west"), getSouth: side("south"), getEast: side("east"), getNorth: side("north") }),
        move(to) { Object.assign(box, to); listeners.forEach((listener) => listener()); },
    };
}"""


class Map:
    """A page with a map that follows a client."""

    def __init__(self, page: Page, chromium: Chromium) -> None:
        self.page, self.chromium = page, chromium

    async def do(self, script: str, argument: Any = None) -> Any:
        return await self.chromium.run(lambda _: self.page.evaluate(script, argument))

    async def begin(self, place: Live, library: str) -> None:
        await self.chromium.run(lambda _: self.page.goto(f"{self.chromium.url}/tests/clients/empty.html"))
        name = {"leaflet": "followWithLeaflet", "maplibre": "followWithMapLibre"}[library]
        if library == "leaflet":
            await self.chromium.run(lambda _: self.page.add_script_tag(path=LEAFLET / "leaflet.js"))
            await self.chromium.run(lambda _: self.page.add_style_tag(path=LEAFLET / "leaflet.css"))
        await self.do(LEAFLET_MAP if library == "leaflet" else MAPLIBRE_MAP)
        more = {"adapter": f"{library}-adapter.js", "name": name, "library": library}
        await self.do(SET_UP, {"url": place.app.ws_url, **more})

    async def shown(self, *names: str) -> None:
        """Wait until exactly these have markers."""
        script = "() => Array.from(following.markers, ([id]) => id).sort()"
        async with asyncio.timeout(LIMIT_S):
            while await self.do(script) != sorted(names):
                await asyncio.sleep(0.02)
        assert await self.do("() => document.querySelectorAll('.batchcast-event').length") == len(names)

    async def look(self, box: dict[str, float]) -> None:
        script = "(b) => map.fitBounds ? map.fitBounds([[b.south, b.west], [b.north, b.east]]) : map.move(b)"
        await self.do(script, box)


@pytest_asyncio.fixture(loop_scope="module")
async def on_a_map(page: Page, open_chromium: Chromium) -> Map:
    return Map(page, open_chromium)


LIBRARIES = pytest.mark.parametrize("library", ["leaflet", "maplibre"])
SUVA = {"west": 179.0, "south": -19.0, "east": 181.0, "north": -17.0}


@LIBRARIES
@pytest.mark.browser
async def test_markers_come_change_and_go_with_their_events(place: Live, on_a_map: Map, library: str) -> None:
    await place.put(*spread(2, emoji="🎷"))
    await on_a_map.begin(place, library)
    await on_a_map.shown("e0", "e1")
    await on_a_map.do("() => { window.kept = following.markers.get('e0'); }")
    await place.put({**spread(1)[0], "emoji": "🍜"}, spread(3)[2])
    await on_a_map.shown("e0", "e1", "e2")
    page = on_a_map.page
    await on_a_map.chromium.run(
        lambda _: expect(page.locator(".batchcast-event", has_text="🍜")).to_have_count(1, timeout=LONG_MS)
    )
    assert await on_a_map.do("() => window.kept === following.markers.get('e0')")
    await place.ask("DELETE", "/events/e1")
    await on_a_map.shown("e0", "e2")
    await on_a_map.look({"west": 2.0, "south": 48.0, "east": 3.0, "north": 49.0})
    await on_a_map.shown()
    await on_a_map.do("() => following.stop()")


@LIBRARIES
@pytest.mark.browser
async def test_a_selected_marker_stays_when_its_event_only_leaves_the_view(
    place: Live, on_a_map: Map, library: str
) -> None:
    await place.put(*spread(3, emoji="🎷"))
    await on_a_map.begin(place, library)
    await on_a_map.shown("e0", "e1", "e2")
    await on_a_map.do("() => { following.markers.select('e0'); window.kept = following.markers.get('e0'); }")
    await on_a_map.look({"west": 2.0, "south": 48.0, "east": 3.0, "north": 49.0})
    await on_a_map.shown("e0")
    assert await on_a_map.do("() => following.markers.faded('e0')")
    await on_a_map.look(BERLIN)
    await on_a_map.shown("e0", "e1", "e2")
    assert await on_a_map.do("() => window.kept === following.markers.get('e0') && !following.markers.faded('e0')")
    await on_a_map.look({"west": 2.0, "south": 48.0, "east": 3.0, "north": 49.0})
    await on_a_map.shown("e0")
    await on_a_map.do("() => following.markers.select(null)")
    await on_a_map.shown()
    await on_a_map.look(BERLIN)
    await on_a_map.shown("e0", "e1", "e2")
    await on_a_map.do("() => following.markers.select('e1')")
    await place.ask("DELETE", "/events/e1")
    await on_a_map.shown("e0", "e2")
    assert await on_a_map.do("() => following.markers.selected") is None


@pytest.mark.browser
async def test_an_open_popup_stays_open_and_says_what_is_new(place: Live, on_a_map: Map) -> None:
    await place.put(*spread(1))
    await on_a_map.begin(place, "leaflet")
    await on_a_map.shown("e0")
    await on_a_map.do("() => following.markers.get('e0').openPopup()")
    await place.put({**spread(1)[0], "title": "<i>later</i>"})
    popup = on_a_map.page.locator(".leaflet-popup-content")
    await on_a_map.chromium.run(lambda _: expect(popup).to_have_text("<i>later</i>", timeout=LONG_MS))


@pytest.mark.browser
async def test_both_sides_of_the_antimeridian_are_on_the_map(place: Live, on_a_map: Map) -> None:
    west, east = ({"latitude": -18.0, "longitude": longitude} for longitude in (179.5, -179.5))
    await place.put(event("west", location=west), event("east", location=east))
    await on_a_map.begin(place, "leaflet")
    await on_a_map.look(SUVA)
    await on_a_map.shown("west", "east")
    at = await on_a_map.do("() => Array.from(following.markers, ([id, marker]) => [id, marker.getLatLng().lng])")
    assert dict(at) == {"west": 179.5, "east": 180.5}


BOUNDS = [
    ({"west": -10, "south": 40, "east": 20, "north": 60}, {"west": -10, "south": 40, "east": 20, "north": 60}),
    ({"west": 170, "south": -20, "east": 190, "north": 0}, {"west": 170, "south": -20, "east": -170, "north": 0}),
    ({"west": -190, "south": -95, "east": -170, "north": 95}, {"west": 170, "south": -90, "east": -170, "north": 90}),
    ({"west": -200, "south": -80, "east": 300, "north": 80}, {"west": -180, "south": -80, "east": 180, "north": 80}),
    ({"west": 0, "south": -80, "east": 360, "north": 80}, {"west": -180, "south": -80, "east": 180, "north": 80}),
    ({"west": 713, "south": 1, "east": 714, "north": 2}, {"west": -7, "south": 1, "east": -6, "north": 2}),
]


async def test_bounds_beyond_the_antimeridian_are_viewports_of_the_protocol() -> None:
    module = (ROOT / "client-examples" / "markers.js").as_uri()
    script = f"""const {{ viewportOf }} = await import({module!r});
        console.log(JSON.stringify({json.dumps([bounds for bounds, _ in BOUNDS])}.map(viewportOf)));"""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(node_path(), "--input-type=module", "-", stdin=pipe, stdout=pipe)
    said, _ = await process.communicate(script.encode())
    assert json.loads(said) == [viewport for _, viewport in BOUNDS]
