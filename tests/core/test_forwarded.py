"""Whom to believe about where a request comes from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.forwarded import Client, client_of, trusted

pytestmark = pytest.mark.pure

OURS = trusted(("127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("1.2.3.4", [], Client("1.2.3.4", False)),
        ("1.2.3.4", ["9.9.9.9"], Client("1.2.3.4", False)),
        ("127.0.0.1", ["9.9.9.9"], Client("9.9.9.9", True)),
        ("127.0.0.1", ["8.8.8.8, 9.9.9.9"], Client("9.9.9.9", True)),
        ("127.0.0.1", ["8.8.8.8", "9.9.9.9"], Client("9.9.9.9", True)),
        ("127.0.0.1", ["8.8.8.8, 9.9.9.9, 10.1.2.3"], Client("9.9.9.9", True)),
        ("127.0.0.1", ["10.1.2.3, 10.4.5.6"], Client("10.1.2.3", True)),
        ("127.0.0.1", [], Client("127.0.0.1", True)),
        ("127.0.0.1", ["unknown"], Client("127.0.0.1", True)),
        ("127.0.0.1", ["9.9.9.9, unknown, 10.1.2.3"], Client("10.1.2.3", True)),
        ("::ffff:127.0.0.1", ["9.9.9.9"], Client("9.9.9.9", True)),
        ("::1", ["[2001:db8::1]:4711"], Client("2001:db8::1", True)),
        ("fd00::5%eth0", ["9.9.9.9:80"], Client("9.9.9.9", True)),
        ("", ["9.9.9.9"], Client("", False)),
    ],
)
def test_the_nearest_address_that_is_no_proxy_of_ours_is_the_client(
    peer: str, headers: list[str], client: Client
) -> None:
    assert client_of(peer, headers, OURS) == client


def test_without_trusted_proxies_nothing_that_is_claimed_counts() -> None:
    assert client_of("127.0.0.1", ["9.9.9.9"], ()) == Client("127.0.0.1", False)


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "", "*"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        trusted((text,))


@given(claimed=st.lists(st.text(max_size=40), max_size=5), real=st.ip_addresses().map(str))
def test_whatever_a_client_claims_the_address_that_our_proxy_saw_counts(claimed: list[str], real: str) -> None:
    seen = client_of("127.0.0.1", [", ".join([*claimed, real])], trusted(("127.0.0.1",)))
    alone = client_of("127.0.0.1", [real], trusted(("127.0.0.1",)))
    if alone.address != "127.0.0.1":
        assert seen == alone
