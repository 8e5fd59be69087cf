"""Is an address this machine's own? Pure: names are not looked up, so of names only `localhost` is."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """127.0.0.0/8, ::1 (also in brackets, also as an IPv4 address inside IPv6), localhost and what ends in .localhost."""
    name = host.strip().strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    inside = getattr(address, "ipv4_mapped", None)
    return (inside or address).is_loopback
