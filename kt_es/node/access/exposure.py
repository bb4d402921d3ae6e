"""To whom a node is exposed: TLS from PEM files, and where it may listen without."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificates

from kt_es.errors import ConfigError


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``. A name other than localhost counts as another one."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, tls: bool, users: bool, anonymous: bool) -> None:
    """Return if a node may listen on ``host`` so.

    Raises:
        ConfigError: others than this machine would reach it without TLS or without logging in.
    """
    if is_loopback(host):
        return
    if anonymous:
        raise ConfigError(f"anonymous access is for loopback only, not for {host}")
    if not tls:
        raise ConfigError(f"{host} is not loopback: listen there with --tls-cert and --tls-key only")
    if not users:
        raise ConfigError(f"{host} is not loopback: add a user first, with kt node user add")


def server_credentials(certificate: Path | None, key: Path | None) -> grpc.ServerCredentials | None:
    """For a server with this certificate, the leaf first, then those between it and the root.

    None if neither file is given.

    Raises:
        ConfigError: a file is missing, unreadable or not PEM, or they do not belong together.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("TLS needs both a certificate and its key")
    chain, private = _read(certificate, "TLS certificate"), _read(key, "TLS key")
    try:
        leaf = load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise ConfigError(f"TLS certificate {certificate} is not a certificate in PEM") from None
    try:
        loaded = load_pem_private_key(private, None)
    except TypeError:
        raise ConfigError(
            f"TLS key {key} has a password: store it without one, readable by the node only"
        ) from None
    except ValueError:
        raise ConfigError(f"TLS key {key} is not a private key in PEM") from None
    spki = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if leaf.public_key().public_bytes(*spki) != loaded.public_key().public_bytes(*spki):
        raise ConfigError(f"TLS key {key} does not belong to the certificate {certificate}")
    return grpc.ssl_server_credentials([(private, chain)])
