"""What tests of tracking over HTTP say again and again: campaigns, posts in them, counts, creators and administrators."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from server.batching.tracking.money import Observed
from server.batching.tracking.settlement import Settlement
from server.edge.postgres import Database
from tests.handlers.asking import Answer, Serving

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
"""Counts of the tests come after it, and posts are moved back to it."""


@dataclass
class Books:
    """A running server as administrators and creators see it, and the counts of its clips."""

    serving: Serving
    posts: int = 0

    async def ask(self, method: str, path: str, body: object = None, *, sub: str | None = None, **more: Any) -> Answer:
        """As an admin, or as the creator of this name."""
        given: dict[str, Any] = {} if body is None else {"json": body}
        role = more.pop("role", "admin" if sub is None else "viewer")
        return await self.serving.ask(method, f"/tracking{path}", role, sub=sub, **given, **more)

    async def good(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        """The answer of what must work; a change of something has its number in the trail."""
        answer = await self.ask(method, path, body, **more)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer.json

    async def get(self, path: str, **more: Any) -> Any:
        return await self.good("GET", path, **more)

    async def campaign(self, budget: int = 100_000, rate: int = 1_000, **more: Any) -> int:
        """A campaign that pays a cent a view, unless it is said otherwise."""
        body = {"name": "Spring", "budgetCents": budget, "rateCents": rate, **more}
        return int((await self.good("POST", "/campaigns", body))["campaign"]["id"])

    async def post(self, campaign: int, sub: str = "paul", approve: bool = True, url: str = "") -> Any:
        """A post of a creator, submitted at START."""
        self.posts += 1
        address = url or f"https://youtu.be/video{self.posts:06}"
        made = await self.good("POST", "/submissions", {"campaignId": campaign, "url": address}, sub=sub)
        number = made["submission"]["id"]
        await self.tell(
            "update tracking.clip_submissions set baseline_from = $2 where id = $1 and baseline_from is not null",
            number,
            START,
        )
        if approve:
            await self.good("POST", f"/submissions/{number}/approve")
        return await self.get(f"/submissions/{number}")

    async def count(self, post: Any, views: int, hour: float) -> None:
        """One count of a post's clip at this hour."""
        at = START + dt.timedelta(hours=hour)
        await Settlement(self.database).record([Observed(post["clipId"], views, at)])

    async def earned(self, cents: int, sub: str = "paul", end: bool = True) -> Any:
        """The submission of a creator that has earned so much, in a campaign that has ended by it, or not."""
        post = await self.post(await self.campaign(cents + (0 if end else 1)), sub)
        await self.count(post, 0, 1)
        await self.count(post, cents, 2)
        return await self.get(f"/submissions/{post['id']}")

    async def pages(self, path: str, name: str, cursor: str = "before", limit: int = 2, **more: Any) -> list[Any]:
        """All rows of a list, a page at a time."""
        rows: list[Any] = []
        mark = "&" if "?" in path else "?"
        following: Any = None
        while True:
            ahead = "" if following is None else f"&{cursor}={following}"
            page = await self.get(f"{path}{mark}limit={limit}{ahead}", **more)
            rows += page[name]
            if page["next"] is None:
                return rows
            assert len(page[name]) == limit
            following = page["next"]

    async def audited(self, number: int) -> Any:
        """An entry of the trail."""
        trail = (await self.serving.ask("GET", f"/admin/audit?before={number + 1}&limit=1")).json["entries"]
        assert trail[0]["id"] == number
        return trail[0]

    async def tell(self, sql: str, *values: Any) -> None:
        async with self.database.connection() as connection:
            await connection.execute(sql, *values)

    @property
    def database(self) -> Database:
        found = self.serving.app._database
        assert found is not None
        return found
