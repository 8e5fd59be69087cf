"""How the provider tells of a run's end: webhooks, again and again until somebody takes them."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.doubles.apify.platform import EVENTS, Run, iso, now

ATTEMPTS = 11
"""As the provider does; it waits a minute at first, here RETRY_S."""


@dataclass(frozen=True)
class Sending:
    """How the webhooks of a run are sent; the default is once, at once, and again until it is taken."""

    times: int = 1
    """Copies, each of them until it is taken."""
    delay_s: float = 0.0
    never: bool = False
    retry_s: float = 0.05
    """The wait before the second attempt; it doubles."""
    attempts: int = ATTEMPTS


class Sender:
    """Sends; `told` are all attempts: (run, event, status or the name of what went wrong)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int | str]] = []
        self._session: aiohttp.ClientSession | None = None

    async def send(self, run: Run, how: Sending, event: str | None = None) -> None:
        """All webhooks of a run that has ended."""
        if how.never:
            return
        await asyncio.sleep(how.delay_s)
        kind = event or EVENTS[run.status]
        for hook in run.webhooks:
            if kind in hook["eventTypes"]:
                await asyncio.gather(*(self._until_taken(run, hook, kind, how) for _ in range(how.times)))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _until_taken(self, run: Run, hook: dict[str, Any], kind: str, how: Sending) -> None:
        for attempt in range(how.attempts):
            status = await self._once(run, hook, kind)
            self.told.append((run.id, kind, status))
            if isinstance(status, int) and 200 <= status < 300:
                run.sent += 1
                return
            await asyncio.sleep(how.retry_s * 2**attempt)

    async def _once(self, run: Run, hook: dict[str, Any], kind: str) -> int | str:
        self._session = self._session or aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        headers = {"Content-Type": "application/json", **json.loads(hook.get("headersTemplate") or "{}")}
        body = payload(run, hook, kind)
        try:
            async with self._session.post(hook["requestUrl"], data=body.encode(), headers=headers) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__


def payload(run: Run, hook: dict[str, Any], kind: str) -> str:
    """The body, from the webhook's template: each {{variable}} becomes its JSON."""
    values = {
        "userId": "user1",
        "createdAt": iso(now()),
        "eventType": kind,
        "eventData": {"actorId": run.actor_id, "actorRunId": run.id},
        "resource": run.told(),
    }
    template = hook.get("payloadTemplate") or (
        '{"userId": {{userId}}, "createdAt": {{createdAt}}, "eventType": {{eventType}}, '
        '"eventData": {{eventData}}, "resource": {{resource}}}'
    )
    return re.sub(r"\{\{(\w+)\}\}", lambda found: json.dumps(values.get(found[1])), template)
