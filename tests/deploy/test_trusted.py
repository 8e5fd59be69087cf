"""What the server believes of a proxy, without one: who sets TRUSTED_PROXIES is told apart by what the proxy says."""

import pytest
from websockets.exceptions import InvalidStatus

from server.errors import StartRefused
from tests.serving import Live, Start, start

__all__ = ["start"]


async def knock(server: Live, claimed: str | None) -> int:
    """The status that a handshake ends with."""
    headers = {} if claimed is None else {"X-Forwarded-For": claimed}
    try:
        await server.talk(additional_headers=headers)
    except InvalidStatus as refused:
        return refused.response.status_code
    return 101


async def test_clients_of_a_trusted_proxy_count_each_for_itself(start: Start) -> None:
    server = await start(TRUSTED_PROXIES="127.0.0.1", CONNECTIONS_PER_USER=2)
    assert [await knock(server, "9.9.9.1") for _ in range(3)] == [101, 101, 503]
    assert [await knock(server, "6.6.6.6, 9.9.9.2") for _ in range(3)] == [101, 101, 503]
    assert await knock(server, "9.9.9.2, 9.9.9.3") == 101, "what stands before the last one was only claimed"
    assert [await knock(server, None) for _ in range(3)] == [101, 101, 503], "nobody is taken for this machine"
    assert [await knock(server, "127.0.0.9") for _ in range(3)] == [101, 101, 503], "nor who says that it is"


async def test_of_nobody_else_anything_is_believed(start: Start) -> None:
    server = await start(TRUSTED_PROXIES="10.0.0.0/8", CONNECTIONS_PER_USER=2)
    assert [await knock(server, "9.9.9.1") for _ in range(4)] == [101] * 4, "it comes from this machine"


async def test_who_signs_in_counts_as_itself_wherever_it_comes_from(start: Start) -> None:
    server = await start(TRUSTED_PROXIES="127.0.0.1", CONNECTIONS_PER_USER=1)
    talk = await server.talk(additional_headers={"X-Forwarded-For": "9.9.9.1"})
    assert (await talk.ask("authenticate", token=server.token(sub="ada")))["type"] == "authenticated"
    assert await knock(server, "9.9.9.1") == 101
    other = await server.talk(additional_headers={"X-Forwarded-For": "9.9.9.2"})
    assert (await other.ask("authenticate", token=server.token(sub="ada")))["code"] == "too_many"


async def test_pages_that_came_by_a_proxy_speak_to_where_they_came_from(start: Start) -> None:
    server = await start(TRUSTED_PROXIES="127.0.0.1")
    for host in ("maps.example", "maps.example:8443"):
        answer = await server.ask("GET", "/", None, headers={"Host": host})
        assert b'name="batchcast-ws" content=""' in answer.body
        assert f"ws://{host} wss://{host};" in answer.headers["Content-Security-Policy"]
    direct = await start(HTTP_PORT=0)
    answer = await direct.ask("GET", "/", None)
    assert f'name="batchcast-ws" content="{direct.ws_port}"'.encode() in answer.body


async def test_with_a_proxy_a_key_is_needed_and_statistics_ask_for_a_token(start: Start) -> None:
    with pytest.raises(StartRefused, match="TRUSTED_PROXIES"):
        await start(TRUSTED_PROXIES="127.0.0.1", JWT_SECRET="")
    server = await start(TRUSTED_PROXIES="127.0.0.1")
    assert (await server.ask("GET", "/stats", None)).status == 401
    assert (await server.ask("GET", "/stats", "viewer")).status == 200


async def test_a_network_that_is_none_stops_the_start(start: Start) -> None:
    with pytest.raises(StartRefused, match="TRUSTED_PROXIES is"):
        await start(TRUSTED_PROXIES="127.0.0.1, proxy.example")
