"""What tests of the schedules over HTTP say again and again: a server that asks the provider's double, teams and their tokens."""

import socket
from dataclasses import dataclass
from typing import Any

from server.edge.secrets import mint
from tests.doubles.apify import Apify
from tests.doubles.apify.reviews import World
from tests.handlers.asking import Answer, Serving, until

SECRET = "what the provider sends with every webhook"
CSV = {"Content-Type": "text/csv"}
URLS = {
    "google": "ChIJN1t_tDeuEmsR",
    "facebook": "https://www.facebook.com/cafe.adler",
    "tripadvisor": "https://www.tripadvisor.com/Hotel_Review-g187323-d199753-Reviews-Adler.html",
    "booking": "https://www.booking.com/hotel/de/adler.html",
}
PLATFORMS = tuple(URLS)


def free_port() -> int:
    """A port of now; PUBLIC_URL has to be known before the server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(double: Apify, **more: Any) -> dict[str, Any]:
    """A server that starts runs at this provider and is told of their ends."""
    port = free_port()
    given = {"apify_url": double.url, "apify_token": double.token, "apify_webhook_secret": SECRET, "http_port": port}
    return {**given, "public_url": f"http://127.0.0.1:{port}", "imports_lanes": 0, **more}


def world(**more: Any) -> tuple[World, Apify]:
    """Places with reviews, and the provider that looks at them."""
    places = World(**{"seed": 7, "reviews": 5, **more})
    return places, Apify(places.actors(), run_s=0.02)


@dataclass
class Desk:
    """A running server, for administrators and teams."""

    serving: Serving

    def of(self, team: str | None, roles: tuple[str, ...] = ()) -> dict[str, str]:
        """The header of a token that speaks for this team."""
        token = mint(self.serving.app.settings, sub=f"somebody of {team}", roles=roles, team=team)
        return {"Authorization": f"Bearer {token}"}

    async def ask(self, method: str, path: str, body: object = None, **options: Any) -> Answer:
        """As an admin."""
        given: dict[str, Any] = {} if body is None else {"json": body}
        return await self.serving.ask(method, path, **given, **options)

    async def get(self, path: str, **options: Any) -> Any:
        """What is there, as an admin; it must be."""
        return await self.good("GET", path, **options)

    async def good(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        """The answer of what must work, as an admin."""
        answer = await self.ask(method, path, body, **options)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer.json

    async def team(self, team: str | None, method: str, path: str, body: object = None, **options: Any) -> Answer:
        """As somebody of a team."""
        headers = {**self.of(team), **options.pop("headers", {})}
        given: dict[str, Any] = {} if body is None else {"json": body}
        return await self.serving.ask(method, path, None, headers=headers, **given, **options)

    async def follow(self, team: str, platform: str, identifier: str, **more: Any) -> Any:
        """A business of a team; its profile."""
        body = {"team": team, "identifier": identifier, **more}
        return (await self.good("POST", f"/api/{platform}/profile", body))["profile"]

    async def pages(self, path: str, name: str, cursor: str = "after", limit: int = 3) -> list[Any]:
        """All rows of a list, a page at a time."""
        rows: list[Any] = []
        mark = "&" if "?" in path else "?"
        following = ""
        while True:
            page = await self.get(f"{path}{mark}limit={limit}", params={cursor: following} if following != "" else {})
            rows += page[name]
            if page["next"] is None:
                return rows
            assert len(page[name]) == limit
            following = page["next"]

    async def turn(self, loop: str) -> Any:
        """A turn of a loop, once this node leads."""

        async def led() -> bool:
            answer = await self.ask("POST", f"/loops/schedules-{loop}/run")
            said.update(answer.json)
            return answer.status == 200

        said: dict[str, Any] = {}
        await until(led)
        assert said["turn"]["error"] is None, said
        return said["turn"]

    async def ended(self, run: int) -> Any:
        """A run, once its dataset is attributed."""
        found: dict[str, Any] = {}

        async def over() -> bool:
            await self.turn("process")
            runs = (await self.get("/admin/runs?limit=1000"))["runs"]
            found.update(next(one for one in runs if one["id"] == run))
            return found["processedAtMs"] is not None

        await until(over)
        return found
