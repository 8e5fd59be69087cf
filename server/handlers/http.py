"""The HTTP API and the pages: all routes in one table, each guarded by its verb.

    app = build(Ports(...))                                                     # ports.py
    listener = await Listener.open(app, settings.host, settings.http_port)      # edge/web.py

A request passes the shell (errors as JSON, Origin, headers; edge/web.py), then `_guarded`: the token becomes an Identity
(edge/auth.py), the route's verb is looked up in the access table (access.py), and only then is anything of the body read.
HEAD goes with every GET. What a route answers is in its module: bulk, events, admin, pages, and the few below.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from server.core.identity import ANONYMOUS, Identity
from server.edge.auth import Keys
from server.edge.web import Handler, Origins, application, bearer, json
from server.errors import Code
from server.handlers import (
    admin,
    bulk,
    businesses,
    celebrities,
    events,
    imports,
    lists,
    openapi,
    pages,
    schedules,
    teams,
    tier_people,
    tiers,
    tracking,
    tracking_money,
    tracking_runs,
    webhooks,
    whatif,
)
from server.handlers.access import allow, origin_allowed, verb_of_route
from server.handlers.metrics import Metrics
from server.handlers.ports import Content, Ports, Route, object_of, of_json, ref
from server.settings import Settings


async def healthz(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The process lives."""
    return json({"status": "ok"})


async def readyz(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Both ports accept, events and pending are loaded."""
    missing = []
    if not ports.feed.ready:
        missing.append("events and pending are not loaded yet")
    if not ports.accepting():
        missing.append("not both ports accept connections")
    if not missing:
        return json({"ready": True, "missing": []})
    error = {"code": str(Code.UNAVAILABLE), "message": "not ready: " + "; ".join(missing)}
    return json({"ready": False, "missing": missing, "error": error}, status=503, headers={"Retry-After": "1"})


async def read_stats(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The nine statistics, then the rest."""
    return json(await ports.feed.stats())


async def read_metrics(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """Numbers for Prometheus."""
    return _metrics_of(request, ports.metrics)


def _metrics_of(request: web.Request, metrics: Metrics) -> web.StreamResponse:
    text, content_type = metrics.text(request.headers.get("Accept", ""))
    return web.Response(body=text, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


async def read_openapi(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """What this API is."""
    return json(openapi_document(), headers={"Cache-Control": "no-cache"})


_READY: Final = of_json(ref("Ready"))
_OK: Final = of_json(object_of({"status": {"const": "ok"}}))
_METRICS: Final = Content({"text/plain": {"type": "string"}}, "Prometheus text format")
ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/healthz", healthz, "Does the process live?", _OK),
    Route("GET", "/readyz", readyz, "Do both ports accept, is everything loaded?", _READY, refusals=(503,)),
    Route("GET", "/stats", read_stats, "The statistics", of_json(ref("Stats"))),
    Route("GET", "/metrics", read_metrics, "Numbers for Prometheus", _METRICS),
    Route("GET", "/openapi.json", read_openapi, "This document", of_json({"type": "object"})),
    *events.ROUTES,
    *bulk.ROUTES,
    *imports.ROUTES,
    *lists.ROUTES,
    *businesses.ROUTES,
    *schedules.ROUTES,
    *teams.ROUTES,
    *webhooks.ROUTES,
    *celebrities.ROUTES,
    *tiers.ROUTES,
    *tier_people.ROUTES,
    *tracking.ROUTES,
    *tracking_money.ROUTES,
    *tracking_runs.ROUTES,
    *admin.ROUTES,
    *whatif.ROUTES,
    *pages.ROUTES,
)


def openapi_document() -> dict[str, object]:
    """The OpenAPI document of this server."""
    return openapi.document(ROUTES)


def build(ports: Ports) -> web.Application:
    """The application, ready to listen."""
    allowed = ports.settings.allowed_origins
    origins = Origins(lambda origin, host: origin_allowed(origin, host, allowed), anyone="*" in allowed)
    app = application(origins, lambda request: pages.content_security(request, pages.ws_port(request, ports)))
    for route in ROUTES:
        handler = _guarded(route, ports)
        for method in (route.method, "HEAD") if route.method == "GET" else (route.method,):
            app.router.add_route(method, route.pattern or route.path, handler)
    pages.files()
    return app


def build_metrics(settings: Settings, metrics: Metrics, keys: Keys, *, exposed: bool) -> web.Application:
    """A process without pages and verbs: it lives, and its numbers are there, guarded as a server's are."""

    async def lives(request: web.Request) -> web.StreamResponse:
        return json({"status": "ok"})

    async def numbers(request: web.Request) -> web.StreamResponse:
        allow(identify(request, keys), "read-metrics", exposed=exposed)
        return _metrics_of(request, metrics)

    allowed = settings.allowed_origins
    origins = Origins(lambda origin, host: origin_allowed(origin, host, allowed), anyone="*" in allowed)
    app = application(origins, lambda request: "default-src 'none'")
    app.router.add_get("/healthz", lives)
    app.router.add_get("/metrics", numbers)
    return app


def _guarded(route: Route, ports: Ports) -> Handler:
    verb = verb_of_route(route.method, route.path)

    async def handle(request: web.Request) -> web.StreamResponse:
        who = identify(request, ports.keys)
        allow(who, verb, exposed=ports.exposed)
        return await route.handle(request, ports, who)

    return handle


def identify(request: web.Request, keys: Keys) -> Identity:
    """Who asks; a token that is not good is refused, never taken for none."""
    token = bearer(request)
    return ANONYMOUS if token is None else keys.verify(token)
