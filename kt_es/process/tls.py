"""Reads a server's certificate and key from PEM files, and checks that they belong together."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificates

from kt_es.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A server's certificate.

    Attributes:
        chain: The leaf, followed by the intermediate certificates.
        until: When the leaf expires.
    """

    chain: bytes
    key: bytes = field(repr=False)
    until: datetime

    @property
    def expired(self) -> bool:
        return self.until < datetime.now(UTC)


def both_or_none(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Return the two files, None if neither is given. Raises ``ConfigError`` for one without the other."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError(
            f"TLS needs both a certificate and its key, but only {certificate or key} is given: give both"
        )
    return certificate, key


def read_certificate(certificate: Path, key: Path) -> ServerCertificate:
    """Read and check both files.

    Raises:
        ConfigError: A file is missing, unreadable or not PEM, or they do not belong together.
    """
    chain, private = _read(certificate, "TLS certificate"), _read(key, "TLS key")
    try:
        leaf = load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise ConfigError(
            f"TLS certificate {certificate} is not a certificate in PEM: name the file with the chain"
        ) from None
    try:
        loaded = load_pem_private_key(private, None)
    except TypeError:
        raise ConfigError(
            f"TLS key {key} has a password: store it without one, readable by this user only"
        ) from None
    except ValueError:
        raise ConfigError(
            f"TLS key {key} is not a private key in PEM: name the file with the key of {certificate}"
        ) from None
    spki = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if leaf.public_key().public_bytes(*spki) != loaded.public_key().public_bytes(*spki):
        raise ConfigError(
            f"TLS key {key} does not belong to the certificate {certificate}: give the key of its leaf, and "
            f"put the leaf first in the file"
        )
    return ServerCertificate(chain, private, leaf.not_valid_after_utc)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from None
