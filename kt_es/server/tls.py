"""TLS of the front end: a certificate that can be exchanged while connections are served.

The listener keeps one context. At each handshake the context of the current certificate takes its place,
so a connection has one certificate from its beginning to its end.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from kt_es.errors import ConfigError
from kt_es.process.tls import ServerCertificate, read_certificate

_LOG = structlog.get_logger("kt_es.server")


class Exchangeable:
    """The certificate that is served. The listener uses ``context``. Any thread may call ``exchange``."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._current, self.certificate = _load(certificate, key)
        self.context = self._current
        self.context.sni_callback = self._choose

    def exchange(self, certificate: Path, key: Path) -> bool:
        """Serve the certificate in the files to new connections; return whether it has changed.

        Raises ``ConfigError`` for files that cannot be served: the old certificate stays.
        """
        context, loaded = _load(certificate, key)
        if loaded == self.certificate:
            return False
        self._current, self.certificate = context, loaded
        return True

    def until(self) -> float:
        """When the certificate that is served ends, in seconds since 1970."""
        return self.certificate.until.timestamp()

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str, _: ssl.SSLContext) -> None:
        # Called at each handshake, even if the client names no host.
        connection.context = self._current


def _load(certificate: Path, key: Path) -> tuple[ssl.SSLContext, ServerCertificate]:
    loaded = read_certificate(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        # The files were replaced meanwhile, or OpenSSL does not support the key.
        raise ConfigError(f"TLS certificate {certificate} cannot be served: {error.strerror}") from None
    if loaded.expired:
        _LOG.warning("the TLS certificate has expired", until=loaded.until.isoformat())
    return context, loaded
