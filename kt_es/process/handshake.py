"""Whether a server speaks TLS: asked after a plain connection was closed without a word."""

from __future__ import annotations

import socket
import ssl

TIMEOUT = 2.0


def speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS handshake with the server succeeds, whoever it is. Nothing is sent to it after that."""
    context = ssl.create_default_context()
    # It is asked what it speaks, not who it is: nothing is trusted because of the answer.
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
