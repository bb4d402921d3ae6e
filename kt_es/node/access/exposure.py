"""On which addresses a node may listen, and its TLS credentials from PEM files."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import grpc

from kt_es.errors import ConfigError
from kt_es.process.tls import ServerCertificate, both_or_none, read_certificate


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``. Names other than localhost count as other machines."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, tls: bool, users: bool, anonymous: bool) -> None:
    """Check that a node with this configuration may be exposed on ``host``.

    Raises:
        ConfigError: other machines would reach it without TLS or without a login.
    """
    if is_loopback(host):
        return
    if anonymous:
        raise ConfigError(f"anonymous access is for loopback only, not for {host}")
    if not tls:
        raise ConfigError(f"{host} is not loopback: listen there with --tls-cert and --tls-key only")
    if not users:
        raise ConfigError(f"{host} is not loopback: add a user first, with kt node user add")


class Credentials:
    """The certificate that a node serves, with those between it and its root.

    Any thread may ``exchange`` it. Open connections keep the certificate with which they began.

    Raises:
        ConfigError: a file is missing, unreadable or not PEM, or they do not belong together.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = read_certificate(certificate, key)
        self.server = grpc.dynamic_ssl_server_credentials(
            _configuration(self.certificate), lambda: _configuration(self.certificate)
        )

    def exchange(self, certificate: Path, key: Path) -> bool:
        """Serve the content of the files from now on; return whether it differs. Raises as the class."""
        loaded = read_certificate(certificate, key)
        changed = loaded != self.certificate
        self.certificate = loaded
        return changed


def _configuration(certificate: ServerCertificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(certificate.key, certificate.chain)])


def server_credentials(certificate: Path | None, key: Path | None) -> Credentials | None:
    """None if neither file is given; raises as ``Credentials``."""
    files = both_or_none(certificate, key)
    return None if files is None else Credentials(*files)
