"""TLS with the nodes of a shared store. This module does not need the driver."""

from __future__ import annotations

import socket
import ssl

from kt_es.errors import ConfigError
from kt_es.ledger.cassandra_settings import CassandraSettings

_PROBE = 2.0
"""Seconds for the connection to one node, and for the handshake with it."""


def tls_context(settings: CassandraSettings) -> ssl.SSLContext | None:
    """Return the context of TLS with the nodes, None if TLS is not used.

    Raises:
        ConfigError: A file cannot be used.
    """
    if settings.tls_ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_cert:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:
        files = ", ".join(
            str(path) for path in (settings.tls_ca, settings.tls_cert, settings.tls_key) if path
        )
        raise ConfigError(
            f"TLS with the shared store cannot be set up from {files}: {error.strerror or error}; mend them"
        ) from None
    return context


def check_plain(settings: CassandraSettings) -> None:
    """Raise ``ConfigError`` if TLS is not used and a contact point asks for it.

    Such a node only closes connections, as one does that is going down. So try a handshake with each.
    """
    if settings.tls_ca is None and any(_asks_for_tls(host, settings.port) for host in settings.hosts):
        raise ConfigError(
            f"the shared store at {settings.place} asks for TLS: name the certificates that issue those of "
            "its nodes in [store] tls_ca"
        )


def _asks_for_tls(host: str, port: int) -> bool:
    # Nothing is sent over this connection, so it does not matter whose certificate it is.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), _PROBE) as connection,
            context.wrap_socket(connection),
        ):
            return True
    except OSError:
        return False
