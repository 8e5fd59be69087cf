"""What providers tell us: POST /webhooks/apify. Guarded by the secret in its header, not by a token; answered at once.

The body is noted and nothing of it is believed: a loop asks the provider itself.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from server.batching.schedules.hooks import HEADER, PATH, verify
from server.core.identity import Identity
from server.edge.web import body, json
from server.handlers.ports import TRUTH, Ports, Route, object_of, of_json


async def apify_webhook(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A run has ended."""
    given = request.headers.get(HEADER)
    verify(ports.settings.apify_webhook_secret, given)  # Before anything of the body is read.
    received = await ports.schedules.runs.receive(given, await body(request, ports.settings.schedules_webhook_bytes))
    return json({"received": True, "new": received.kept})


ROUTES: Final = (
    Route(
        "POST",
        PATH,
        apify_webhook,
        "The scraping provider tells of the end of a run",
        of_json(object_of({"received": TRUTH, "new": TRUTH}), "Noted; not new: known already, or of no interest here"),
        body=of_json({"type": "object"}),
        refusals=(400, 403, 413, 422, 503),
        headers={HEADER: "the secret (APIFY_WEBHOOK_SECRET)"},
    ),
)
