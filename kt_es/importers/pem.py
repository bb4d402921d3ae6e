"""PEM bundles of X.509 certificates: one account per subject name, or per address in an e-mail directory."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from kt_es.errors import MalformedError
from kt_es.formats.labels import EMAIL
from kt_es.formats.profiles import ProfileKey
from kt_es.importers.accounts import Collector, ImportPlan, read_bytes
from kt_es.importers.private import private_key_in
from kt_es.importers.views import utf8_text
from kt_es.importers.x509_names import (
    COMMON_NAME,
    EMAIL_ADDRESS,
    ORGANIZATION,
    UNIT,
    alternative_addresses,
    subject_names,
)

# A label, the body up to the next dash, and the end that RFC 7468, section 2 demands.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----([^-]*)(-----END \1-----)?")
_CERTIFICATE = ("CERTIFICATE", "X509 CERTIFICATE")
_NAMES = (COMMON_NAME, UNIT, ORGANIZATION)


def read_pem(path: Path, policy: str) -> ImportPlan:
    """The accounts of the bundle at ``path`` in a directory of the label policy ``policy``.

    ``text``: the label is the subject's common name, else its organizational unit, else its
    organization. ``email``: each address in the subject alternative names and the subject is a label.
    Certificates with the same label share an account. Expired ones are published like the others.

    Raises ``ConfigError`` where the file cannot be read and ``MalformedError`` where it has no PEM block.
    """
    data = utf8_text(read_bytes(path))
    found = Collector(policy)
    count = number = 0
    for number, match in enumerate(_BLOCK.finditer(data), 1):
        kind = match[1].decode()
        where = f"PEM block {number}"
        if kind not in _CERTIFICATE:
            found.skip(where, f"is a {kind}, not a certificate")
            continue
        certificate = _certificate(match[2]) if match[3] else None
        if certificate is None:
            found.skip(where, "the certificate is damaged")
            continue
        count += 1
        _add(found, where, certificate, policy)
    if number == 0:
        raise MalformedError("PEM bundle", "has no PEM block in it")
    return found.plan(count)


def _certificate(body: bytes) -> x509.Certificate | None:
    block = b"-----BEGIN CERTIFICATE-----\n" + body.strip() + b"\n-----END CERTIFICATE-----\n"
    with warnings.catch_warnings():
        # Some root certificates break rules of RFC 5280; they are shown as they are, not relied on.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            return x509.load_pem_x509_certificate(block)
        except (ValueError, x509.InvalidVersion):
            return None


def _add(found: Collector, where: str, certificate: x509.Certificate, policy: str) -> None:
    name = certificate.fingerprint(SHA256()).hex().upper()
    key = ProfileKey(name, "pem", certificate.public_bytes(Encoding.PEM))
    der = certificate.public_bytes(Encoding.DER)
    private = private_key_in(der)
    if private is not None:
        found.skip(where, f"the certificate holds {private}")
        return
    labels = _addresses(der) if policy == EMAIL else _names(der)
    for label in labels:
        found.add(label, key, where)
    if not labels:
        missing = "e-mail address" if policy == EMAIL else "name"
        found.skip(name, f"the certificate has no {missing}", where)


def _names(certificate: bytes) -> list[str]:
    for kind in _NAMES:
        names = subject_names(certificate, kind)
        if names:
            return names[:1]
    return []


def _addresses(certificate: bytes) -> list[str]:
    return list(
        dict.fromkeys([*alternative_addresses(certificate), *subject_names(certificate, EMAIL_ADDRESS)])
    )
