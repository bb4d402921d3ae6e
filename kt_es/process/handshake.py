"""Finds out whether a server speaks TLS, after it closed a plain connection without an answer."""

from __future__ import annotations

import socket
import ssl

TIMEOUT = 2.0  # seconds


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
