"""HTTP plumbing: what every answer has in common, whatever it is about. Knows no verb and no route.

- Errors are always JSON, {error {code, message, field?, limit?}}: `Refused` with the status of its code, `Unavailable` 503,
  aiohttp's own (404, 405 with Allow, 413) likewise, and what is our bug 500 without a word of its insides. 429 and 503 carry
  Retry-After, 401 WWW-Authenticate.
- Every answer has the security headers; a page of another origin may read it only when `Origins.allows` says so (CORS), and
  a request that would change something is refused (403) when it comes from a page that may not.
- JSON and text above 1 KiB is compressed with gzip for those who accept it.
- A body is read up to a limit (413); one that is compressed counts as what it unpacks to.
- A token comes from the Authorization header. One in the URL is refused: URLs end up in logs and histories.
- Nothing is logged per request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import orjson
import structlog
from aiohttp import ClientError, hdrs, http_exceptions, web

from server.errors import Code, Refused, StartRefused, Unavailable

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

SAFE_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS"))
COMPRESS_ABOVE: Final = 1024
PREFLIGHT_S: Final = 600
TOKEN_NAMES: Final = ("token", "access_token", "jwt")
JSON_TYPE: Final = "application/json"
INTERNAL: Final = "internal"
"""The code of a bug of ours (500); there is nothing a client can do about it."""
_READ_ERRORS: Final = (ConnectionError, ClientError, web.RequestPayloadError, http_exceptions.HttpProcessingError)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Origins:
    """Which pages may speak to us, by their Origin and our Host."""

    allows: Callable[[str | None, str | None], bool]
    anyone: bool = False


# --- answers ---


def json(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer, not to be kept by caches."""
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    kept = {hdrs.CACHE_CONTROL: "no-store", **(headers or {})}
    return web.Response(body=body, status=status, content_type=JSON_TYPE, headers=kept)


def problem(status: int, error: Mapping[str, object], **headers: str) -> web.Response:
    """An error answer; `error` has code and message, and perhaps field and limit."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return json(
        {"error": {name: value for name, value in error.items() if value is not None}}, status=status, headers=named
    )


def refusal(refused: Refused) -> web.Response:
    """The answer to what the caller can't have."""
    headers = {}
    if refused.status == 401:
        headers["WWW_Authenticate"] = "Bearer"
    if refused.retry:
        headers["Retry_After"] = "1"
    return problem(refused.status, error_of(refused), **headers)


def unavailable(error: Unavailable) -> web.Response:
    """The answer when the world is not there just now."""
    return problem(503, error_of(error), Retry_After=str(max(1, math.ceil(error.retry_after_s))))


def error_of(error: Refused | Unavailable) -> dict[str, object]:
    """The inside of an error answer."""
    if isinstance(error, Unavailable):
        return {"code": str(error.code), "message": error.message}
    return {"code": str(error.code), "message": error.message, "field": error.field, "limit": error.limit}


# --- questions ---


def bearer(request: web.Request) -> str | None:
    """The token of a request, None without one."""
    named = [name for name in TOKEN_NAMES if name in request.query]
    if named:
        raise Refused(
            Code.UNAUTHORIZED,
            f"a token does not belong into a URL (?{named[0]}=): send it as `Authorization: Bearer TOKEN`",
            field=named[0],
        )
    header = request.headers.get(hdrs.AUTHORIZATION)
    if header is None:
        return None
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refused(Code.UNAUTHORIZED, "the Authorization header must be `Bearer TOKEN`")
    return token.strip()


async def chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes in; what is not asked for stays with the sender."""
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except _READ_ERRORS as error:
        raise Refused(Code.BAD_JSON, f"the body ended too early or is damaged ({type(error).__name__})") from None


async def body(request: web.Request, limit: int) -> bytes:
    """The whole body; Refused(too_large) above the limit, where possible before a byte of it is read."""
    check_length(request, limit)
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks(request):
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
    return b"".join(parts)


def check_length(request: web.Request, limit: int) -> None:
    """Refuse by what the request says of its length."""
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> Refused:
    return Refused(Code.TOO_LARGE, f"a body has at most {limit} bytes (HTTP_BODY_BYTES)", limit=limit)


def media_type(request: web.Request) -> str | None:
    """The Content-Type without parameters, None when there is none."""
    return None if hdrs.CONTENT_TYPE not in request.headers else request.content_type


async def json_body(request: web.Request, limit: int) -> object:
    """The body as JSON; Refused(bad_json) when it is none or says that it is something else."""
    kind = media_type(request)
    if kind is not None and kind != JSON_TYPE and not kind.endswith("+json"):
        raise Refused(Code.BAD_JSON, f"Content-Type is {kind[:80]}; send {JSON_TYPE}")
    try:
        value: object = orjson.loads(await body(request, limit))
    except orjson.JSONDecodeError as error:
        raise Refused(Code.BAD_JSON, f"not JSON: {error}") from None
    return value


async def json_object(request: web.Request, limit: int) -> dict[str, Any]:
    """The body as a JSON object."""
    value = await json_body(request, limit)
    if not isinstance(value, dict):
        raise Refused(Code.BAD_MESSAGE, "the body is a JSON object")
    return value


def whole_number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    """A number of the query; Refused when it is out of bounds."""
    text = request.query.get(name, "")
    if text == "":
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise Refused(
            Code.BAD_MESSAGE,
            f"{name} is a whole number from {least} to {most}, not {text[:40]!r}",
            field=name,
            limit=most,
        )
    return int(text)


# --- the shell round every handler ---


def application(origins: Origins, content_security: Callable[[web.BaseRequest], str]) -> web.Application:
    """An application without routes; `content_security` makes the CSP of a request's answer."""
    app = web.Application(middlewares=[_shell(origins)], client_max_size=0)

    async def finish(request: web.BaseRequest, response: web.StreamResponse) -> None:
        headers = response.headers
        headers.update(_SECURITY)
        headers[hdrs.SERVER] = "batchcast"
        headers["Content-Security-Policy"] = content_security(request)
        _let_read(request, headers, origins)

    app.on_response_prepare.append(finish)
    return app


_SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_PREFLIGHT: Final = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, HEAD, POST, PUT, PATCH, DELETE",
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type, If-Match, Idempotency-Key",
    hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_S),
}


def _let_read(request: web.BaseRequest, headers: Any, origins: Origins) -> None:
    """CORS: no cookies are used here, so no credentials are allowed."""
    origin = request.headers.get(hdrs.ORIGIN)
    headers[hdrs.VARY] = "Origin, Accept-Encoding"
    if origin is not None and origins.allows(origin, request.host):
        headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*" if origins.anyone else origin
        headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = "ETag, Retry-After, Allow"


def _shell(origins: Origins) -> Any:
    @web.middleware
    async def shell(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_origin(request, origins)
            response = _preflight(request) or await handler(request)
        except Refused as refused:
            response = refusal(refused)
        except Unavailable as error:
            response = unavailable(error)
        except web.HTTPException as error:
            response = _translated(request, error)
        except Exception as error:  # noqa: BLE001  # the shell: a bug costs its request, never the server
            response = _bug(request, error)
        _compress(request, response)
        return response

    return shell


def _check_origin(request: web.Request, origins: Origins) -> None:
    origin = request.headers.get(hdrs.ORIGIN)
    changes = request.method not in SAFE_METHODS or hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    if origin is not None and changes and not origins.allows(origin, request.host):
        raise Refused(
            Code.FORBIDDEN, f"pages of {origin[:200]} may not change anything here; add it to ALLOWED_ORIGINS"
        )


def _preflight(request: web.Request) -> web.Response | None:
    asks = request.method == "OPTIONS" and hdrs.ORIGIN in request.headers
    if not asks or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
        return None
    return web.Response(status=204, headers=_PREFLIGHT)


def _translated(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """aiohttp's own refusals in our words."""
    if isinstance(error, web.HTTPNotFound):
        text = f"there is nothing at {request.path[:200]}; /openapi.json tells what there is"
        return problem(404, {"code": str(Code.NOT_FOUND), "message": text})
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        text = f"{request.method} is not for {request.path[:200]}; allowed: {allow}"
        return problem(405, {"code": str(Code.BAD_MESSAGE), "message": text}, Allow=allow)
    if error.status < 400:
        return error
    return problem(error.status, {"code": str(Code.BAD_MESSAGE), "message": error.reason})


def _bug(request: web.Request, error: Exception) -> web.Response:
    if isinstance(error, ConnectionError):  # The asker has gone; our own connections raise Unavailable.
        return problem(400, {"code": str(Code.BAD_JSON), "message": "the connection was lost"})
    log.error("request failed", method=request.method, path=request.path[:200], error=repr(error), exc_info=error)
    return problem(500, {"code": INTERNAL, "message": "a bug of the server; it is in its log"})


def _compress(request: web.Request, response: web.StreamResponse) -> None:
    """Of gzip and deflate always gzip; what is already sent, short, binary or compressed stays as it is."""
    if response.prepared or not isinstance(response, web.Response) or hdrs.CONTENT_ENCODING in response.headers:
        return
    size = len(response.body) if isinstance(response.body, bytes | bytearray) else 0
    texts = response.content_type.startswith("text/") or response.content_type.endswith("json")
    if size > COMPRESS_ABOVE and texts and accepts_gzip(request):
        response.enable_compression(web.ContentCoding.gzip)


def accepts_gzip(request: web.BaseRequest) -> bool:
    """Does the asker take gzip?"""
    for part in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower().split(","):
        coding, _, quality = part.strip().partition(";")
        if coding.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


# --- listening ---


class Listener:
    """An application that listens; `port` is the real one, also when 0 was asked for."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner = runner
        self.port = port

    @classmethod
    async def open(cls, app: web.Application, host: str, port: int, *, drain_s: float = 5.0) -> Listener:
        """Accept from now on; StartRefused when the port can't be had. `drain_s`: how long `close` waits for requests."""
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=drain_s)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError as error:
            await runner.cleanup()
            reason = error.strerror or type(error).__name__
            raise StartRefused(f"HTTP cannot listen on {host}:{port} ({reason}); set HOST or HTTP_PORT.") from None
        return cls(runner, int(runner.addresses[0][1]))

    async def close(self) -> None:
        """Stop accepting, let requests end, close what is left."""
        await self._runner.cleanup()


def hostname(request: web.BaseRequest) -> str:
    """The name in the Host header, without the port; empty when there is none that is one."""
    try:
        return urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return ""


def own_port(request: web.BaseRequest) -> int | None:
    """The port in the Host header; None for the scheme's own."""
    try:
        return urlsplit(f"//{request.host}").port
    except ValueError:
        return None


async def apart(work: Callable[[], Any]) -> Any:
    """Run what takes long in a thread, so that others are served meanwhile."""
    return await asyncio.to_thread(work)
