"""Whether a server speaks TLS: tried after a plain connection was closed without an answer."""

from __future__ import annotations

import socket
import ssl

TIMEOUT = 2.0  # seconds


def speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS handshake with the server succeeds, whoever it is. Nothing is sent to it after that."""
    context = ssl.create_default_context()
    # Only the protocol is of interest, not the identity: nothing is trusted because of the result.
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
