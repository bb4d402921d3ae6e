"""TLS with the nodes of a shared store. This module does not need the driver."""

from __future__ import annotations

import ssl

from kt_es.errors import ConfigError
from kt_es.ledger.cassandra_settings import CassandraSettings


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
