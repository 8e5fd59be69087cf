"""The demo's tracking: campaigns, creators and their posts on four platforms, looked at every few seconds, until money is paid out.

The provider is the one of the demo's schedules (scraping.py), so this part of the demo is there in a checkout only; it answers
with counts that grow. Everything is done over HTTP, like anybody would, with one exception: hours go by in seconds. A clip is next looked
at in two hours at the earliest, so every HURRY_MS the demo writes into its database that this time has passed, for its own clips.

One campaign is full at once, so there are payouts to decide: the first is paid, the others wait for whoever looks. Where all that may
grant has been spent, budgets are raised.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final

import asyncpg

from server.batching.loop import Occasion, Turn
from server.batching.tracking.posts import post_of
from server.batching.tracking.store import SERVICE
from server.commands.calling import Failed, Json, Server
from server.commands.jobs import rows_of
from server.commands.operating import inner, number
from server.commands.tracking_lists import hundredths
from server.edge.secrets import KEY_FILE

HURRY_MS: Final = 15_000
PACE: Final = {
    "TRACKING_INTERVAL_MS": "10000",
    "TRACKING_CACHE_MS": "0",
    "TRACKING_PAUSE_MS": "500",
    "TRACKING_PLAN": "team",
    "TRACKING_POPULARITY": "true",
}
TRANSACTION: Final = "demo-"
STAYS_PAUSED: Final = "Winter coats"
CONFLICT: Final = 409
PAGE: Final = 500

# A clip with a count that somebody has to judge waits, or it would have another one every few seconds.
HURRY: Final = """
update tracking.clips c set next_due_at = clock_timestamp()
where id = any($1) and tracked <> 'none' and state = 'ok' and next_due_at > clock_timestamp() and lease_until is null
    and not exists (select from tracking.view_tracking v where v.clip_id = c.id and v.state = 'held')"""


@dataclass(frozen=True, slots=True)
class Clip:
    """A post of the sample: where it is submitted by whom, what moves with it, what becomes of it."""

    campaign: str
    creator: str
    url: str
    event: str
    decision: str


def pace(given: Mapping[str, str]) -> dict[str, str]:
    """Settings under which something happens while one looks."""
    return {name: value for name, value in PACE.items() if not ("TRACKING_PRESET" in given and "INTERVAL" in name)}


def begun(data_dir: Path) -> float | None:
    """When the demo over this DATA_DIR was first started, in epoch seconds: views go on where they were."""
    try:
        return (data_dir / KEY_FILE).stat().st_mtime
    except OSError:
        return None


def campaigns() -> list[Json]:
    """The sample's campaigns, as the API takes them."""
    return [_campaign(row) for row in csv.DictReader(_sample("campaigns.csv").splitlines())]


def _campaign(row: Mapping[str, str]) -> Json:
    cents = {f"{name}Cents": hundredths(row[name], name) for name in ("budget", "reserved", "rate")}
    return {"name": row["name"], "baseline": row["baseline"], **cents}


def clips() -> list[Clip]:
    """The sample's posts."""
    return [Clip(**row) for row in csv.DictReader(_sample("clips.csv").splitlines())]


def _sample(name: str) -> str:
    return (resources.files("server") / "sample" / "tracking" / name).read_text()


@dataclass(slots=True)
class Clips:
    """The client that makes the campaigns, submits and judges posts, has hours go by, and pays."""

    url: str
    token: str
    dsn: str
    ours: dict[str, int] = field(default_factory=dict)
    """The campaigns' numbers by their names."""
    clips: set[int] = field(default_factory=set)

    async def turn(self, occasion: Occasion) -> Turn:
        """First everything is set up; then hours go by, and whoever can be paid asks for it."""
        async with Server(self.url, self.token) as there:
            if not self.ours:
                return await self._begin(there)
            hurried = await self._hurry()
            asked = await self._pay(there)
            raised = await self._go_on(there)
        return Turn(hurried, hurried, detail={"asked": asked, "raised": raised})

    async def _begin(self, there: Server) -> Turn:
        """What an earlier run of the demo has made is found again by its names and posts."""
        found = await there.get("/tracking/campaigns", [("limit", str(PAGE))])
        known = {str(row["name"]): int(number(row["id"])) for row in rows_of(found, "campaigns")}
        for campaign in campaigns():
            name = str(campaign["name"])
            if name not in known:
                made = await there.call("POST", "/tracking/campaigns", body=campaign)
                known[name] = int(number(inner(made, "campaign").get("id")))
        for name in dict.fromkeys(clip.campaign for clip in clips()):
            await self._fill(there, name, known[name])
        await _once(there, f"/tracking/campaigns/{known[STAYS_PAUSED]}/pause")
        self.ours = known
        return Turn(len(self.clips), len(self.clips))

    async def _fill(self, there: Server, name: str, campaign: int) -> None:
        """A campaign's posts, submitted and judged as the sample says."""
        params = [("campaign", str(campaign)), ("limit", str(PAGE))]
        rows = rows_of(await there.get("/tracking/submissions", params), "submissions")
        there_are = {str(row["postId"]): row for row in rows}
        for clip in clips():
            if clip.campaign != name:
                continue
            row = there_are.get(post_of(clip.url).post_id) or await self._submit(there, clip, campaign)
            if not row:
                continue
            self.clips.add(int(number(row["clipId"])))
            if clip.decision and row["status"] == "PENDING":
                note: Json = {"note": "the product is not to be seen"} if clip.decision == "reject" else {}
                await there.call("POST", f"/tracking/submissions/{row['id']}/{clip.decision}", body=note)

    async def _submit(self, there: Server, clip: Clip, campaign: int) -> Json:
        """The submission; nothing when the campaign takes none any more."""
        body: Json = {"campaignId": campaign, "url": clip.url, "creator": clip.creator}
        made = inner(await _once(there, "/tracking/submissions", body), "submission")
        if made and clip.event:
            await there.call("PUT", f"/tracking/clips/{made['clipId']}/event", body={"eventId": clip.event})
        return made

    async def _hurry(self) -> int:
        """Clips whose time has come because the demo says so."""
        connection = await asyncpg.connect(self.dsn)
        try:
            async with connection.transaction():
                await connection.execute("select set_config('role', $1, true)", SERVICE)
                done: str = await connection.execute(HURRY, sorted(self.clips))
        finally:
            await connection.close()
        return int(done.rpartition(" ")[2])

    async def _pay(self, there: Server) -> int:
        """Whoever can be paid asks for it; the first that waits is paid, if none was yet."""
        asked = 0
        creators = sorted({clip.creator for clip in clips()})
        for creator in creators:
            balance = await there.get("/tracking/balance", [("creator", creator)])
            if number(balance.get("payableCents")) >= number(balance.get("minimumCents")):
                asked += bool(await _once(there, "/tracking/payouts", {"creator": creator}))
        payouts = rows_of(await there.get("/tracking/payouts", [("limit", str(PAGE))]), "payouts")
        waiting = [row for row in payouts if row["status"] in ("PENDING", "APPROVED") and row["creator"] in creators]
        if waiting and not any(str(row["transactionId"]).startswith(TRANSACTION) for row in payouts):
            await self._settle(there, waiting[-1])
        return asked

    async def _settle(self, there: Server, payout: Json) -> None:
        path = f"/tracking/payouts/{payout['id']}"
        if payout["status"] == "PENDING":
            await there.call("POST", f"{path}/approve", body={"feeBasis": 250})
        else:
            await there.call("POST", f"{path}/complete", body={"transactionId": f"{TRANSACTION}{payout['id']}"})

    async def _go_on(self, there: Server) -> int:
        """Campaigns that were given more money, because none grants any more."""
        rows = rows_of(await there.get("/tracking/campaigns", [("limit", str(PAGE))]), "campaigns")
        mine = [row for row in rows if row["id"] in self.ours.values()]
        if any(row["status"] == "ACTIVE" for row in mine):
            return 0
        ended = [row for row in mine if row["status"] == "COMPLETED" and row["baseline"] != "zero"]
        for row in ended:
            path = f"/tracking/campaigns/{row['id']}"
            await there.call("PATCH", path, body={"budgetCents": 2 * round(number(row["budgetCents"]))})
            await there.call("POST", f"{path}/reactivate")
        return len(ended)


async def _once(there: Server, path: str, body: Json | None = None) -> Json:
    """Do what may have been done before; nothing when it was."""
    try:
        return await there.call("POST", path, body=body)
    except Failed as failed:
        if failed.status != CONFLICT:
            raise
        return {}
