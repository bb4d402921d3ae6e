"""Addresses of clients, and the networks that count as one client and as its surroundings."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

from kt_es.server.limits import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@functools.lru_cache(4096)
def address_in(text: str) -> Address | None:
    """Parse an address, with or without a zone. None if it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@functools.lru_cache(4096)
def networks_around(address: Address) -> tuple[Network, Network]:
    """Return the network that counts as one address, and the larger network around it."""
    lengths = (32, 24) if address.version == 4 else (64, 48)
    single, network = (ipaddress.ip_network((address, length), strict=False) for length in lengths)
    return single, network


def address_network(text: str) -> str:
    """Return what counts as one address: an IPv4 address or an IPv6 /64. Other texts are returned as such."""
    parsed = address_in(text)
    return text if parsed is None else str(networks_around(parsed)[0])


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
