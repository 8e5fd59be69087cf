"""Who is behind a proxy? Pure.

A proxy tells in X-Forwarded-For where a request came from; so may anybody who reaches us directly. So nothing is believed but what
a proxy of TRUSTED_PROXIES has added itself: from the right, the first address that is no such proxy is the client. What stands left
of it was only claimed.

    proxies = trusted(("127.0.0.1", "10.0.0.0/8"))          ValueError for what is no address or network
    client_of("127.0.0.1", ["1.2.3.4, 10.0.0.7"], proxies)  Client("1.2.3.4", proxied=True)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

HOPS_MOST: Final = 32
"""Further to the right of a header than this nothing is looked at: the chain of proxies is no longer."""


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from; `proxied` when a proxy of ours brought it."""

    address: str
    proxied: bool


def trusted(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks; ValueError names the one that is neither."""
    return tuple(ip_network(text.strip(), strict=True) for text in texts)


def client_of(peer: str, headers: Sequence[str], proxies: Sequence[Network]) -> Client:
    """The client, given who speaks to us and what its X-Forwarded-For headers say, in their order."""
    if not proxies or not _within(_address(peer), proxies):
        return Client(peer, proxied=False)
    hops = [hop for header in headers for hop in header.split(",")][-HOPS_MOST:]
    nearest = peer
    for hop in reversed(hops):
        address = _address(hop)
        if address is None:  # A proxy of ours writes addresses; what is none, and what is left of it, was claimed.
            break
        nearest = str(address)
        if not _within(address, proxies):
            break
    return Client(nearest, proxied=True)


def _within(address: Address | None, proxies: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in proxies)


def _address(text: str) -> Address | None:
    """An address as proxies write it: perhaps in brackets, with a port or a zone, or an IPv4 address inside IPv6."""
    bare = text.strip().strip('"')
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
