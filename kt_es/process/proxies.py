"""Proxies that the environment names (``http_proxy`` and the like), and what is never asked through one.

A proxy reaches its own loopback and not ours, and it must not see what stays on this machine.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def is_loopback(host: str) -> bool:
    """Whether ``host``, an address or a name, is this machine for whoever asks (RFC 6761 for names)."""
    host = host.strip("[]").lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    # 0.0.0.0 and :: as a destination are this machine, too; kt up may be told to listen there.
    return (mapped or address).is_loopback or address.is_unspecified


def uses_proxies(url: str) -> bool:
    """Whether ``url`` may be asked through a proxy: ``trust_env`` of httpx."""
    try:
        return not is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return True


def proxy_for(url: str) -> bool:
    """Whether the environment names a proxy for ``url``, for messages."""
    if not uses_proxies(url):
        return False
    try:
        address = urlsplit(url)
        found = getproxies()
        is_named = address.scheme in found or "all" in found
        return is_named and not proxy_bypass(address.hostname or "")
    except ValueError:
        return False
