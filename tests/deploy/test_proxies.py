"""One address with TLS before a real server, by the very files of deploy/: nginx and Caddy.

A proxy is a process of its own on ports of its own; the configuration is that of deploy/ with other ports and certificates.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.client import Client
from tests.pages.site import free_port
from tests.serving import BERLIN, LIMIT_S, ROOT, Live, Process, Talk, event, live, process, spread, until

DEPLOY = Path(__file__).parents[2] / "deploy"
NAME = "localhost"


@dataclass
class Certificate:
    """One for localhost, which only its own context believes."""

    crt: Path
    key: Path

    @property
    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.crt))


@pytest.fixture(scope="module")
def certificate() -> Iterator[Certificate]:
    folder = Path(tempfile.mkdtemp(prefix="batchcast-tls-", dir="/tmp"))
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(pem)
    yield Certificate(folder / "tls.crt", folder / "tls.key")
    shutil.rmtree(folder)


@dataclass
class Proxy:
    """A proxy process; `port` has TLS."""

    kind: str
    certificate: Certificate
    http_port: int
    ws_port: int
    port: int = field(default_factory=free_port)
    plain_port: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="batchcast-proxy-", dir="/tmp")))
    popen: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"wss://{NAME}:{self.port}/ws"

    async def start(self) -> None:
        command = self._nginx() if self.kind == "nginx" else self._caddy()
        self._launch(command)
        assert self.popen is not None
        async with asyncio.timeout(LIMIT_S):
            while not await self._listens():
                assert self.popen.poll() is None, (self.folder / "log").read_text()
                await asyncio.sleep(0.02)

    def _launch(self, command: list[str]) -> None:
        home = {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
        with (self.folder / "log").open("ab") as log:
            self.popen = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"], **home})

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def _nginx(self) -> list[str]:
        text = changed(
            (DEPLOY / "nginx.conf").read_text(),
            ("server 127.0.0.1:8080;", f"server 127.0.0.1:{self.http_port};"),
            ("server 127.0.0.1:8081;", f"server 127.0.0.1:{self.ws_port};"),
            ("listen 443 ssl;", f"listen {self.port} ssl;"),
            ("listen 80;", f"listen {self.plain_port};"),
            ("/etc/nginx/batchcast.crt", str(self.certificate.crt)),
            ("/etc/nginx/batchcast.key", str(self.certificate.key)),
            ("batchcast.example", NAME),
        )
        (self.folder / "site.conf").write_text(text)
        places = "".join(f"{name}_temp_path {self.folder}/{name};" for name in NGINX_PLACES)
        whole = f"user root; events {{}} http {{ access_log off; {places} include {self.folder}/site.conf; }}"
        (self.folder / "nginx.conf").write_text(whole if os.geteuid() == 0 else whole.removeprefix("user root;"))
        given = f"daemon off; pid {self.folder}/pid; error_log stderr;"
        return ["nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-g", given]

    def _caddy(self) -> list[str]:
        text = changed(
            (DEPLOY / "Caddyfile").read_text(),
            ("{$BATCHCAST_SITE:batchcast.example}", self.url),
            ("{$BATCHCAST_WS:127.0.0.1:8081}", f"127.0.0.1:{self.ws_port}"),
            ("{$BATCHCAST_HTTP:127.0.0.1:8080}", f"127.0.0.1:{self.http_port}"),
            ("\thandle /ws", f"\ttls {self.certificate.crt} {self.certificate.key}\n\thandle /ws"),
        )
        whole = f"{{\n\tadmin off\n\tauto_https disable_redirects\n\thttp_port {self.plain_port}\n}}\n{text}"
        (self.folder / "Caddyfile").write_text(whole)
        return ["caddy", "run", "--adapter", "caddyfile", "--config", str(self.folder / "Caddyfile")]

    def remove(self) -> None:
        if self.popen is not None and self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(LIMIT_S)
        shutil.rmtree(self.folder, ignore_errors=True)


NGINX_PLACES = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def changed(text: str, *pairs: tuple[str, str]) -> str:
    for before, after in pairs:
        assert before in text, before
        text = text.replace(before, after)
    return text


def needs(kind: str) -> None:
    if shutil.which(kind) is None:
        pytest.skip(f"{kind} is not installed here")


@pytest.fixture(params=["nginx", "caddy"])
def kind(request: pytest.FixtureRequest) -> str:
    needs(request.param)
    return str(request.param)


@dataclass
class Front:
    """A server, the proxy before it, and clients of that."""

    server: Live
    proxy: Proxy
    session: aiohttp.ClientSession
    ends: AsyncExitStack

    async def ask(self, method: str, path: str, role: str | None = "admin", **options: Any) -> tuple[int, bytes, Any]:
        headers = {**self.server.headers(role), **options.pop("headers", {})}
        async with self.session.request(method, self.proxy.url + path, headers=headers, **options) as response:
            return response.status, await response.read(), response.headers

    async def talk(self, **options: Any) -> Talk:
        options = {"ssl": self.proxy.certificate.trusting, "compression": None, "close_timeout": 1, **options}
        return Talk(await self.ends.enter_async_context(connect(self.proxy.ws_url, **options)))


@pytest_asyncio.fixture
async def front(kind: str, dsn: str, tmp_path: Path, certificate: Certificate) -> AsyncIterator[Front]:
    async with live(tmp_path / "data", dsn, TRUSTED_PROXIES="127.0.0.1", CONNECTIONS_PER_USER=3) as server:
        proxy = Proxy(kind, certificate, int(server.app.http_url.rpartition(":")[2]), server.ws_port)
        connector = aiohttp.TCPConnector(ssl=certificate.trusting)
        try:
            await proxy.start()
            async with AsyncExitStack() as ends, aiohttp.ClientSession(connector=connector) as session:
                yield Front(server, proxy, session, ends)
        finally:
            proxy.remove()


async def test_pages_api_and_websocket_have_one_address(front: Front) -> None:
    status, page, headers = await front.ask("GET", "/", None)
    assert (status, b'name="batchcast-ws" content=""' in page) == (200, True), "the page speaks to where it came from"
    assert f"wss://{NAME}:{front.proxy.port}" in headers["Content-Security-Policy"]
    status, body, _ = await front.ask("POST", "/events", json=spread(20))
    assert (status, orjson.loads(body)["accepted"]) == (200, 20)
    origin = {"Origin": front.proxy.url}
    talk = await front.talk(additional_headers=origin)
    await talk.ask("register", viewport=BERLIN)
    assert len((await talk.get("replace-all"))["events"]) == 20
    status, _, _ = await front.ask("POST", "/events", json=[event("new")], headers=origin)
    assert status == 200, "a page of this address may change something"
    assert (await talk.get("add-event"))["event"]["id"] == "new"
    with pytest.raises(InvalidStatus) as refused:
        await front.talk(additional_headers={"Origin": "https://evil.example"})
    assert refused.value.response.status_code == 403


WS_URL = """
import asyncio, sys
from server.commands.calling import Server
from server.commands.watching import ws_url
async def main():
    async with Server(sys.argv[1]) as server:
        print(await ws_url(server))
asyncio.run(main())
"""


async def test_the_commands_find_the_websocket(front: Front) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SSL_CERT_FILE": str(front.proxy.certificate.crt)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WS_URL, front.proxy.url, env=environ, stdout=subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(child.communicate(), 2 * LIMIT_S)
    assert said.decode().strip() == front.proxy.ws_url


async def test_others_are_told_apart_by_the_address_that_the_proxy_saw(front: Front) -> None:
    """All come to the server from 127.0.0.1; the proxy sees them as they are, and what they claim is nothing to it."""
    for number in range(3):
        await front.talk(local_addr=("127.0.0.2", 0), additional_headers={"X-Forwarded-For": f"9.9.9.{number}"})
    with pytest.raises(InvalidStatus) as refused:
        await front.talk(local_addr=("127.0.0.2", 0), additional_headers={"X-Forwarded-For": "9.9.9.9"})
    assert refused.value.response.status_code == 503
    assert "127.0.0.2" in refused.value.response.body.decode()
    await front.talk(local_addr=("127.0.0.3", 0))


async def test_through_a_proxy_nobody_is_on_loopback(front: Front) -> None:
    assert (await front.ask("GET", "/stats", None))[0] == 401, "it is open to all only where nobody else can come"
    assert (await front.ask("GET", "/stats", "viewer"))[0] == 200
    assert (await front.server.ask("GET", "/metrics", None)).status == 401


async def test_a_stream_is_committed_while_it_is_sent(front: Front) -> None:
    """Nothing in between waits for the end of a body: its first rows are there before its last one is sent."""
    seen = asyncio.Event()

    async def rows() -> AsyncIterator[bytes]:
        for one in spread(3000):
            yield orjson.dumps(one) + b"\n"
        await asyncio.wait_for(seen.wait(), LIMIT_S)
        yield orjson.dumps(event("last")) + b"\n"

    kind = {"Content-Type": "application/x-ndjson"}
    sending = asyncio.create_task(front.ask("POST", "/events", data=rows(), headers=kind))
    await until(lambda: front.server.app.feed.events() > 0, "some rows are there")
    seen.set()
    status, body, _ = await sending
    assert (status, orjson.loads(body)["accepted"]) == (200, 3001)


async def test_a_close_comes_through_in_both_directions(front: Front) -> None:
    talk = await front.talk()
    await talk.ask("register", viewport=BERLIN)
    await talk.get("replace-all")
    await talk.socket.close()
    await until(lambda: len(front.server.app.hub) == 0, "the server knows that it is gone")
    other = await front.talk()
    await other.ask("ping")
    for member in front.server.app.hub:
        member.close(4003, "a frame waited too long")
    assert (await other.closed())[0] == 4003


async def test_after_a_restart_of_the_server_everything_goes_on_by_itself(
    kind: str, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the proxy is stale: not its connections, not its idea of who is there; and a client resumes."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.crt))
    with process(TRUSTED_PROXIES="127.0.0.1") as server:
        await server.start()
        proxy = Proxy(kind, certificate, int(server.ports["HTTP_PORT"]), int(server.ports["WS_PORT"]))
        try:
            await proxy.start()
            await server.ask("POST", "/events", spread(1))
            await _comes_back(server, proxy)
        finally:
            proxy.remove()


async def _comes_back(server: Process, proxy: Proxy) -> None:
    trusting = proxy.certificate.trusting
    async with Client(proxy.ws_url, viewport=tuple(BERLIN.values())) as client:
        assert set(client.events) == {"e0"}
        server.signal(signal.SIGTERM)
        assert await server.ended() == 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
            async with session.get(f"{proxy.url}/healthz") as away:
                assert away.status in (502, 503)
            await server.start()
            await server.ask("POST", "/events", spread(2))
            async with session.get(f"{proxy.url}/healthz") as back:
                assert back.status == 200
            async with asyncio.timeout(LIMIT_S):
                while set(client.events) != {"e0", "e1"}:
                    await client.next_change()
        assert client.divergences == 0
