"""What the network of this machine does: proxies of the environment, loopback, and TLS behind a port.

Loopback addresses never use a proxy. A proxy would reach its own loopback and not ours, and it must not see
traffic that stays on this machine.
"""

from __future__ import annotations

import socket
import ssl
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

TIMEOUT = 2.0  # seconds for each step of ``speaks_tls``


def is_loopback(host: str) -> bool:
    """Return whether ``host``, an address or a name (RFC 6761), always means the machine that connects."""
    host = host.strip("[]").lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    # As destinations, 0.0.0.0 and :: are this machine too. The options of kt up may name them.
    return (mapped or address).is_loopback or address.is_unspecified


def is_public(host: str) -> bool:
    """Return whether ``host`` is an IP address that belongs to nobody's own network."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
    return bool(mapped.is_global and address.is_global and not mapped.is_multicast)


def is_safe(url: str) -> bool:
    """Return whether documents at ``url`` come from whom it names: HTTPS, or this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def uses_proxies(url: str) -> bool:
    """Return whether requests to ``url`` may use a proxy: the value for ``trust_env`` of httpx."""
    try:
        return not is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return True


def proxy_for(url: str) -> bool:
    """Return whether the environment names a proxy for ``url``. Messages mention the proxy."""
    if not uses_proxies(url):
        return False
    try:
        address = urlsplit(url)
        found = getproxies()
        is_named = address.scheme in found or "all" in found
        return is_named and not proxy_bypass(address.hostname or "")
    except ValueError:
        return False


def speaks_tls(host: str, port: int) -> bool:
    """Return whether a TLS handshake with the server succeeds. Nothing is sent after the handshake."""
    context = ssl.create_default_context()
    # The identity of the server does not matter: nothing is trusted because of the result.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False
