"""The opening handshake (RFC 6455, sections 4.1, 4.2.1, 4.2.2, 4.4, 9.1, 10.2; RFC 7230 for what is a request)."""

import base64
import hashlib

from tests.wire.conformance.values import PING, TEXT, Door, close, frame, padded, parts, ping, text

S = "6455 4.2.1"
LINE = "GET /ws HTTP/1.1"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="
HEADERS = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
WELCOME = ("upgrade: websocket", "connection: upgrade")
VERSION = ("sec-websocket-version: 13",)
NO_OFFERS = ("sec-websocket-extensions", "sec-websocket-protocol")


def asked(*more: str, line: str = LINE, behind: bytes = b"", **changed: str | None) -> bytes:
    """The request of the RFC's example with lines added or, by their names with underscores, changed (None: left out)."""
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changed.items()}  # type: ignore[operator]
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None), *more, "", ""]
    return "\r\n".join(lines).encode("latin-1") + behind


def accept_of(key: str) -> str:
    """The header line that accepts a key (4.2.2, item 5.4)."""
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode(), usedforsecurity=False).digest()
    return f"sec-websocket-accept: {base64.b64encode(digest).decode().lower()}"


def good(name: str, said: bytes, *, section: str = S, has: tuple[str, ...] = (), **how: object) -> Door:
    return Door(name, section, said, 101, (*WELCOME, *has), NO_OFFERS, **how)  # type: ignore[arg-type]


def bad(name: str, said: bytes, status: int = 400, *, section: str = S, has: tuple[str, ...] = ()) -> Door:
    return Door(name, section, said, status, has, ("sec-websocket-accept",))


OTHER_KEY = base64.b64encode(bytes(range(16))).decode()
KEYS = [
    good("the example of the RFC", asked(), section="6455 4.2.2", has=(ACCEPT,)),
    good("another key", asked(Sec_WebSocket_Key=OTHER_KEY), section="6455 4.2.2", has=(accept_of(OTHER_KEY),)),
    good(
        "a key of zeros",
        asked(Sec_WebSocket_Key="A" * 22 + "=="),
        section="6455 4.2.2",
        has=(accept_of("A" * 22 + "=="),),
    ),
    good("a key with spaces around it", asked(Sec_WebSocket_Key=f"  {KEY} "), has=(ACCEPT,)),
    bad("no key", asked(Sec_WebSocket_Key=None)),
    bad("an empty key", asked(Sec_WebSocket_Key="")),
    bad("a key of 15 bytes", asked(Sec_WebSocket_Key=base64.b64encode(b"x" * 15).decode())),
    bad("a key of 17 bytes", asked(Sec_WebSocket_Key=base64.b64encode(b"x" * 17).decode())),
    bad("a key of 12 bytes", asked(Sec_WebSocket_Key="dGhlIHNhbXBsZSBu")),
    bad("a key that is no base64", asked(Sec_WebSocket_Key="this is no base64 at all")),
    bad("a key without its padding", asked(Sec_WebSocket_Key=KEY.rstrip("="))),
    bad("a key in the alphabet of URLs", asked(Sec_WebSocket_Key="-_" * 11 + "==")),
    bad("a key that is not ASCII", asked(Sec_WebSocket_Key="ÿ" + KEY[1:])),
    bad("two keys", asked(f"Sec-WebSocket-Key: {OTHER_KEY}")),
    bad("the same key twice", asked(f"Sec-WebSocket-Key: {KEY}")),
]
VERSIONS = [
    bad(f"version {version!r}", asked(Sec_WebSocket_Version=version), section="6455 4.4", has=VERSION)
    for version in ("0", "7", "8", "12", "14", "255", "256", "013", "13.0", "-13", "x", "", "13, 8")
] + [
    bad("no version", asked(Sec_WebSocket_Version=None), section="6455 4.4", has=VERSION),
    bad("the version twice", asked("Sec-WebSocket-Version: 13"), section="6455 4.4", has=VERSION),
    bad("two versions", asked("Sec-WebSocket-Version: 8"), section="6455 4.4", has=VERSION),
    good("a version with spaces around it", asked(Sec_WebSocket_Version=" 13  "), section="6455 4.4"),
]
UPGRADES = [
    *(
        good(f"Upgrade: {value}", asked(Upgrade=value))
        for value in ("websocket", "WebSocket", "WEBSOCKET", "  websocket ")
    ),
    *(
        good(f"Connection: {value}", asked(Connection=value))
        for value in (
            "upgrade",
            "UPGRADE",
            "keep-alive, Upgrade",
            "Upgrade,keep-alive",
            "keep-alive , upgrade , x",
            ",Upgrade,",
        )
    ),
    good("Connection in two lines", asked("Connection: Upgrade", Connection="keep-alive")),
    bad("no Upgrade", asked(Upgrade=None), 426, has=("upgrade: websocket",)),
    bad("no Connection", asked(Connection=None), 426, has=("upgrade: websocket",)),
    bad("neither of them", asked(Upgrade=None, Connection=None), 426, has=("upgrade: websocket",)),
    # What else a client would change to is its choice; this server takes who wants nothing but a WebSocket.
    *(
        bad(f"Upgrade: {value}", asked(Upgrade=value), 426)
        for value in ("h2c", "websocket, h2c", "websocket/13", "websockets")
    ),
    *(bad(f"Connection: {value}", asked(Connection=value), 426) for value in ("close", "keep-alive", "upgraded")),
    bad("an Upgrade that is no list of tokens", asked(Upgrade="web socket")),
    bad("a Connection that is no list of tokens", asked(Connection="Upgrade;")),
]
REQUESTS = [
    *(
        bad(f"the method {method}", asked(line=f"{method} /ws HTTP/1.1"), 405, has=("allow: get",))
        for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "BREW")
    ),
    bad("HTTP/1.0", asked(line="GET /ws HTTP/1.0"), 505),
    *(
        bad(version, asked(line=f"GET /ws {version}"))
        for version in ("HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.11", "FTP/1.1")
    ),
    bad("a line without a version", asked(line="GET /ws")),
    bad("a line without a path", asked(line="GET HTTP/1.1")),
    bad("two spaces in the line", asked(line="GET  /ws HTTP/1.1")),
    bad("an empty line first", asked(line="")),
    bad("a path that is not ASCII", asked(line="GET /wß HTTP/1.1")),
    bad("a request for HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    bad("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n" + b"x" * 200),
    bad("a frame instead of a request", text() + b"\r\n"),
    good("a query", asked(line="GET /ws?page=7 HTTP/1.1")),
    good("an absolute address", asked(line="GET http://localhost/ws HTTP/1.1")),
    bad("a token in the address", asked(line="GET /ws?token=secret HTTP/1.1"), 422),
    *(
        bad(f"the path {path}", asked(line=f"GET {path} HTTP/1.1"), 404)
        for path in (
            "/",
            "/WS",
            "/ws/",
            "/ws/x",
            "//ws",
            "*",
            "/%2e/ws",
            "//[",
            "http://[/ws",
            "http://localhost",
            "//ws]",
        )
    ),
    bad("no Host", asked(Host=None)),
    bad("two Hosts", asked("Host: elsewhere")),
    bad("the same Host twice", asked("Host: localhost")),
    bad("two lines of Authorization", asked("Authorization: Bearer a", "Authorization: Bearer b")),
    bad("a token that is none", asked("Authorization: Bearer nonsense"), 401),
    bad("a token that is not ASCII", asked("Authorization: Bearer \xe9\xff"), 401),
    bad("an empty token", asked("Authorization: Bearer "), 401),
    bad("a body", asked("Content-Length: 5", behind=b"hello")),
    bad("a body in chunks", asked("Transfer-Encoding: chunked", behind=b"0\r\n\r\n")),
    good("a body of nothing", asked("Content-Length: 0")),
    good("a header with bytes above ASCII", asked("X-Name: J\xfcrgen")),
    good("headers nobody knows", asked("X: ", "Pragma: no-cache", "Cookie: a=b; c=d")),
]
SYNTAX = [
    good(
        "header names in lower case",
        asked()
        .lower()
        .replace(b"get ", b"GET ")
        .replace(b"http/1.1", b"HTTP/1.1")
        .replace(KEY.lower().encode(), KEY.encode()),
    ),
    good(
        "header names in upper case",
        b"\r\n".join(
            b":".join([one.partition(b":")[0].upper(), one.partition(b":")[2]]) if b":" in one else one
            for one in asked().split(b"\r\n")
        ),
    ),
    good("no space behind the colons", asked().replace(b": ", b":")),
    good("tabs behind the colons", asked().replace(b": ", b":\t ")),
    bad("a space before a colon", asked("X : y")),
    bad("a header on two lines", asked("X: y", " z")),
    bad("a line without a colon", asked("X")),
    bad("a header without a name", asked(": y")),
    bad("NUL in a header", asked("X: \0")),
    bad("a carriage return in a header", asked("X: y\rz")),
    bad("a header name with a space", asked("X Y: z")),
    bad("lines that end in a line feed alone", asked().replace(b"\r\n", b"\n")),
]
SIZES = [
    good("a long query", asked(line=f"GET /ws?{'x' * 8000} HTTP/1.1")),
    good("a long header", asked(f"X: {'x' * 8000}")),
    good("a hundred headers", asked(*(f"X-{n}: y" for n in range(100)))),
    bad("an endless address", asked(line=f"GET /ws?{'x' * 20_000} HTTP/1.1"), 414),
    bad("an endless header", asked(f"X: {'x' * 20_000}"), 431),
    bad("headers without number", asked(*(f"X-{n}: y" for n in range(300))), 431),
    bad("40 KiB of headers", asked(*(f"X-{n}: {'y' * 4000}" for n in range(10))), 431),
]
ORIGINS = (
    [
        good(f"the origin {origin}", asked(f"Origin: {origin}"), section="6455 10.2")
        for origin in (
            "http://localhost",
            "http://localhost:3000",
            "https://127.0.0.1",
            "HTTP://LOCALHOST",
            "http://[::1]:5000",
        )
    ]
    + [
        bad(f"the origin {origin}", asked(f"Origin: {origin}"), 403, section="6455 10.2")
        for origin in (
            "https://evil.example",
            "null",
            "",
            "http://",
            "http://[",
            "localhost",
            "http://localhost.evil.example",
            "http://user@localhost",
            "file://",
            "http://localhost:99999",
        )
    ]
    + [
        bad("two origins", asked("Origin: http://localhost", "Origin: https://evil.example"), section="6455 10.2"),
        bad(
            "the same origin twice", asked("Origin: http://localhost", "Origin: http://localhost"), section="6455 10.2"
        ),
        good(
            "the origin of its own host",
            asked("Origin: http://map.example", Host="map.example:8081"),
            section="6455 10.2",
        ),
        bad(
            "another origin than its host",
            asked("Origin: http://map.example", Host="other.example"),
            403,
            section="6455 10.2",
        ),
    ]
)
OFFERS = [
    good(f"the subprotocol {name}", asked(f"Sec-WebSocket-Protocol: {name}"), section="6455 4.2.2")
    for name in ("chat", "chat, superchat", "CHAT")
] + [
    good(
        "two lines of subprotocols",
        asked("Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b"),
        section="6455 4.2.2",
    ),
    bad("subprotocols that are no list of tokens", asked("Sec-WebSocket-Protocol: a b")),
    bad("an empty list of subprotocols", asked("Sec-WebSocket-Protocol: ")),
    *(
        good(f"the extension {offer}", asked(f"Sec-WebSocket-Extensions: {offer}"), section="6455 9.1")
        for offer in (
            "x-unknown",
            "x-unknown; level=9, other",
            "bbf-usp-protocol",
            "x-webkit-deflate-frame",
            'x; y="z"',
        )
    ),
]
BEHIND = [
    good("a message right behind the request", asked(behind=text()), section="6455 4.2.2", heard=("pong x",)),
    good("forty messages right behind", asked(behind=text() * 40), section="6455 4.2.2", heard=("pong x",) * 40),
    good("a ping right behind", asked(behind=frame(PING, b"early")), section="6455 4.2.2", heard=(b"early",)),
    good("a large message right behind", asked(behind=text(padded(100_000))), section="6455 4.2.2", heard=("pong x",)),
    good(
        "fragments right behind",
        asked(behind=parts(TEXT, [ping()[:7], ping()[7:]])),
        section="6455 4.2.2",
        heard=("pong x",),
    ),
    bad(
        "frames behind a request that is refused",
        asked(Sec_WebSocket_Version="8", behind=text() + close(1000)),
        section="6455 4.2.2",
    ),
    bad("a request behind one that is refused", asked(Sec_WebSocket_Version="8", behind=asked()), section="6455 4.2.2"),
    *(
        good(
            f"in packets of {size} bytes",
            asked(behind=text() + frame(PING, b"p")),
            section="6455 4.2.2",
            piece=size,
            heard=("pong x", b"p"),
        )
        for size in (1, 2, 5, 100)
    ),
]
DOORS = [*KEYS, *VERSIONS, *UPGRADES, *REQUESTS, *SYNTAX, *SIZES, *ORIGINS, *OFFERS, *BEHIND]
