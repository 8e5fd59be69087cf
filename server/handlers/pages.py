"""The pages and their files, from memory: GET /, /jobs, /schedules, /tiers, /tracking and /site/*.

Read once at the start: the files of `site/` (its batchcast.js is a link to the one of client-examples/) and, below `leaflet/`,
what pages need of the Leaflet package. Served are exactly the names in that table, so no path leads anywhere else. Texts are
compressed once. Each answer has an ETag of its content: a browser asks again (`no-cache`) and is told 304 while nothing has changed.

In HTML the placeholder {{WS_PORT}} becomes the port of the WebSocket server, when it is asked for. What a proxy of ours brought
gets none: such a proxy has one address for pages and WebSocket.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import xstatic.pkg.leaflet
from aiohttp import hdrs, web

from server.core.forwarded import client_of, trusted
from server.core.identity import Identity
from server.edge.web import COMPRESS_ABOVE, accepts_gzip, hostname, own_port
from server.handlers.ports import Content, Ports, Route

SITE: Final = Path(__file__).parent / "site"
EXAMPLES: Final = Path(__file__).parents[2] / "client-examples" / "browser"
"""The example page, where this is a checkout: served as /site/examples/index.html."""
INDEX: Final = "index.html"
JOBS: Final = "jobs.html"
SCHEDULES: Final = "schedules.html"
TIERS: Final = "tiers.html"
TRACKING: Final = "tracking.html"
PLACEHOLDER: Final = b"{{WS_PORT}}"
LEAFLET_FILES: Final = ("leaflet.js", "leaflet.css", "images/*.png")
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file as it is sent; `packed` is None where compressing gains nothing."""

    body: bytes
    packed: bytes | None
    content_type: str
    etag: str


@lru_cache(maxsize=1)
def files() -> dict[str, File]:
    """All files by the name after /site/."""
    return dict(_read())


def _read() -> Iterator[tuple[str, File]]:
    for path in sorted(SITE.rglob("*")):
        # Not `is_file`: a link that leads nowhere is an error, not a file less.
        if not path.is_dir() and not path.name.startswith((".", "_")):
            yield path.relative_to(SITE).as_posix(), file_of(path.name, path.read_bytes())
    for path in sorted(EXAMPLES.glob("*.*")):
        yield f"examples/{path.name}", file_of(path.name, path.read_bytes())
    leaflet = Path(xstatic.pkg.leaflet.BASE_DIR)
    for pattern in LEAFLET_FILES:
        for path in sorted(leaflet.glob(pattern)):
            yield f"leaflet/{path.relative_to(leaflet).as_posix()}", file_of(path.name, path.read_bytes())


def file_of(name: str, body: bytes) -> File:
    """A file, compressed where that helps."""
    content_type = TYPES.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    packed = gzip.compress(body, 9, mtime=0) if len(body) > COMPRESS_ABOVE else body
    return File(
        body,
        packed if len(packed) < len(body) else None,
        content_type,
        hashlib.sha256(content_type.encode() + body).hexdigest()[:24],
    )


@lru_cache(maxsize=32)
def _filled(name: str, port: int | None) -> File:
    return file_of(name, files()[name].body.replace(PLACEHOLDER, b"" if port is None else str(port).encode()))


def ws_port(request: web.BaseRequest, ports: Ports) -> int | None:
    """Where a page that is asked for like this finds the WebSocket: a port, or None for the page's own address."""
    proxied = client_of(request.remote or "", (), _trusted(ports.settings.trusted_proxies)).proxied
    return None if proxied else ports.ws_port()


_trusted: Final = lru_cache(maxsize=8)(trusted)


async def index(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The live map."""
    return _send(request, ports, INDEX)


async def jobs(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The imports: queue, workers, lists."""
    return _send(request, ports, JOBS)


async def schedules(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The schedules: batches, teams, retries, the trail; for a team its businesses."""
    return _send(request, ports, SCHEDULES)


async def tiers(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The people: tiers, prices, months."""
    return _send(request, ports, TIERS)


async def tracking(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """The clips: campaigns, runs, payouts; for a creator the own posts and earnings."""
    return _send(request, ports, TRACKING)


async def site_file(request: web.Request, ports: Ports, who: Identity) -> web.StreamResponse:
    """A file of the pages."""
    return _send(request, ports, request.match_info["name"])


def _send(request: web.Request, ports: Ports, name: str) -> web.Response:
    file = files().get(name)
    if file is None:
        raise web.HTTPNotFound
    if name.endswith(".html"):
        file = _filled(name, ws_port(request, ports))
    packs = file.packed is not None and accepts_gzip(request)
    etag = f'"{file.etag}{"-gz" if packs else ""}"'
    headers = {hdrs.ETAG: etag, hdrs.CACHE_CONTROL: "no-cache"}
    if _known(request, file.etag):
        return web.Response(status=304, headers=headers)
    headers[hdrs.CONTENT_TYPE] = file.content_type
    if packs:
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    return web.Response(body=file.packed if packs else file.body, headers=headers)


def _known(request: web.Request, etag: str) -> bool:
    held = request.headers.get(hdrs.IF_NONE_MATCH, "")
    tags = (tag.strip().removeprefix("W/").strip('"').removesuffix("-gz") for tag in held.split(","))
    return any(tag in (etag, "*") for tag in tags)


def content_security(request: web.BaseRequest, port: int | None) -> str:
    """The Content-Security-Policy: everything from here, and the WebSocket on the same host."""
    return _policy(_sockets(hostname(request), port if port is not None else own_port(request)))


@lru_cache(maxsize=128)
def _policy(sockets: str) -> str:
    return (
        f"default-src 'self'; connect-src 'self' {sockets}; img-src 'self' data:; style-src 'self'; "
        "script-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )


def _sockets(host: str, port: int | None) -> str:
    """A CSP can't name an IPv6 address, and a Host header may hold anything: then any host's WebSocket is allowed."""
    plain = (
        host.isascii() and 0 < len(host) <= 253 and host.replace("-", "a").replace(".", "a").replace("_", "a").isalnum()
    )
    where = host if port is None else f"{host}:{port}"
    return f"ws://{where} wss://{where}" if plain else "ws: wss:"


_PAGE: Final = Content({"text/html": {"type": "string"}}, "The page")
_FILE: Final = Content({"*/*": {"type": "string"}}, "The file")
ROUTES: Final = (
    Route("GET", "/", index, "The live map", _PAGE),
    Route("GET", "/jobs", jobs, "The page of imports", _PAGE),
    Route("GET", "/schedules", schedules, "The page of schedules", _PAGE),
    Route("GET", "/tiers", tiers, "The page of tiers", _PAGE),
    Route("GET", "/tracking", tracking, "The page of view tracking", _PAGE),
    Route("GET", "/site/{name}", site_file, "A file of the pages", _FILE, refusals=(404,), pattern="/site/{name:.+}"),
)
