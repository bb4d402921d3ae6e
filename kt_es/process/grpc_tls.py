"""The certificate of a gRPC server, which can be exchanged while it serves."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import grpc

from kt_es.process.tls import read_certificate

_EXCHANGE_PAUSE = 0.05  # seconds


class Credentials:
    """The certificate that a gRPC server serves, with those between it and its root.

    Any thread may ``exchange`` it. Open connections keep the certificate with which they began.

    Raises as ``read_certificate``.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = read_certificate(certificate, key)
        self._lock = threading.Lock()
        self._next: grpc.ServerCertificateConfiguration | None = None  # guarded by the lock
        # The stubs do not know that None is allowed, which gRPC's documentation says.
        self.server = grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._take_next,  # type: ignore[arg-type]
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.certificate.key, self.certificate.chain)])

    def _take_next(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is served from now on, once after each exchange. gRPC asks at each handshake.

        None changes nothing. A configuration replaces the one before, and gRPC frees that one even if another
        handshake has just looked it up and has not begun to use it: the process would end. gRPC lets no
        handshake pass this call while it lasts, so a pause gives the others time to begin.
        """
        with self._lock:
            taken, self._next = self._next, None
        if taken is not None:
            time.sleep(_EXCHANGE_PAUSE)
        return taken

    def exchange(self, certificate: Path, key: Path) -> bool:
        """Serve the content of the files from now on; return whether it differs. Raises as the class."""
        loaded = read_certificate(certificate, key)
        changed = loaded != self.certificate
        self.certificate = loaded
        if changed:
            with self._lock:
                self._next = self._configuration()
        return changed
