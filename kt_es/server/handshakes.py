"""The beginning of a connection: its TLS handshake, within a time limit."""

from __future__ import annotations

import asyncio
import socket
import ssl

from prometheus_client import Counter


async def begin(
    protocol: asyncio.Protocol, accepted: socket.socket, context: ssl.SSLContext | None, seconds: float
) -> None:
    """Give the socket ``accepted`` to ``protocol`` after the TLS handshake, which may take ``seconds``.

    Raises ``OSError`` or ``EOFError`` if the handshake fails. The socket is closed unless the call succeeds.
    """
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_accepted_socket(
            lambda: protocol,
            accepted,
            ssl=context,
            ssl_handshake_timeout=None if context is None else seconds,
        )
    except BaseException:
        accepted.close()
        raise


def count_failure(error: Exception, refused: Counter) -> None:
    """Count a failed handshake. It is the client's fault, so it is not logged."""
    is_slow = isinstance(error, ConnectionAbortedError | TimeoutError)
    refused.labels("slow-handshake" if is_slow else "handshake").inc()
