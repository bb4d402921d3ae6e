"""Imports PEM bundles of X.509 certificates: one account for each subject name or e-mail address.

Each name is read separately from the bytes of the certificate (RFC 5280). A library that parses all
extensions, or the whole subject, refuses certificates for faults that do not concern the owner's name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from kt_es.errors import MalformedError
from kt_es.formats.entries import ProfileKey
from kt_es.formats.labels import EMAIL
from kt_es.importers.accounts import Collector, ImportPlan, read_bytes
from kt_es.importers.private import children, content_of, private_key_in
from kt_es.importers.views import utf8_text

_COMMON_NAME, _ORGANIZATION, _UNIT = (bytes.fromhex(oid) for oid in ("550403", "55040a", "55040b"))
_EMAIL_ADDRESS = bytes.fromhex("2a864886f70d010901")
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")
_OID, _SEQUENCE, _SET, _OCTETS, _VERSION, _EXTENSIONS, _RFC822_NAME = 0x06, 0x30, 0x31, 0x04, 0xA0, 0xA3, 0x81
# There is no agreed encoding of Teletex strings (0x14), so they count as names only if they are UTF-8.
_ENCODINGS = {**dict.fromkeys((0x0C, 0x12, 0x13, 0x14, 0x16), "utf-8"), 0x1E: "utf-16-be", 0x1C: "utf-32-be"}

# The label, the body up to the next dash, and the end line that RFC 7468, section 2 requires.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----([^-]*)(-----END \1-----)?")
_CERTIFICATE = ("CERTIFICATE", "X509 CERTIFICATE")
_NAMES = (_COMMON_NAME, _UNIT, _ORGANIZATION)


def read_pem(path: Path, policy: str) -> ImportPlan:
    """Return the accounts of the bundle at ``path`` in a directory with the label policy ``policy``.

    With the policy ``text``, the label is the subject's common name, else its organizational unit, else its
    organization. With ``email``, each address in the subject alternative names and in the subject is a label.
    Certificates with the same label share an account. Expired certificates are published too.
    Raises ``ConfigError`` or ``MalformedError``.
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
        # Some root certificates break rules of RFC 5280. They are only published, and nothing relies on them.
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
    if policy == EMAIL:
        labels = list(dict.fromkeys([*_alternative_addresses(der), *_subject_names(der, _EMAIL_ADDRESS)]))
    else:
        labels = next(filter(None, (_subject_names(der, kind) for kind in _NAMES)), [])[:1]
    for label in labels:
        found.add(label, key, where)
    if not labels:
        missing = "e-mail address" if policy == EMAIL else "name"
        found.skip(name, f"the certificate has no {missing}", where)


def _subject_names(certificate: bytes, kind: bytes) -> list[str]:
    """Return the values of the attribute ``kind`` in the subject of ``certificate`` (DER), in order.

    Bytes that are invalid in the encoding of the value become lone surrogates, which no label can contain.
    """
    # serial number, algorithm, issuer, validity, subject
    fields = [content for tag, content in _fields(certificate) if tag != _VERSION]
    subject = fields[4] if len(fields) > 4 else b""
    return [name for oid, name in _attributes(subject) if oid == kind and name]


def _alternative_addresses(certificate: bytes) -> list[str]:
    """Return the e-mail addresses among the alternative names of ``certificate`` (DER), in order."""
    return [
        content.decode("utf-8", "surrogateescape").strip(" ")
        for extensions in (content for tag, content in _fields(certificate) if tag == _EXTENSIONS)
        for tag, extension in children(content_of(extensions, _SEQUENCE))
        if tag == _SEQUENCE
        for names in _values(extension, _ALTERNATIVE_NAMES)
        for tag, content in children(content_of(names, _SEQUENCE))
        if tag == _RFC822_NAME and content
    ]


def _fields(certificate: bytes) -> Iterator[tuple[int, bytes]]:
    yield from children(content_of(content_of(certificate, _SEQUENCE), _SEQUENCE))


def _attributes(subject: bytes) -> Iterator[tuple[bytes, str]]:
    for tag, relative in children(subject):
        for inner, attribute in children(relative) if tag == _SET else ():
            parts = list(children(attribute)) if inner == _SEQUENCE else []
            if len(parts) == 2 and parts[0][0] == _OID and parts[1][0] in _ENCODINGS:
                yield parts[0][1], _text(*parts[1])


def _text(tag: int, content: bytes) -> str:
    encoding = _ENCODINGS[tag]
    if encoding == "utf-8":
        return content.decode(encoding, "surrogateescape").strip(" ")
    try:
        return content.decode(encoding).strip(" ")
    except UnicodeDecodeError:
        return "\udcff"


def _values(extension: bytes, kind: bytes) -> Iterator[bytes]:
    parts = list(children(extension))
    if parts and parts[0] == (_OID, kind) and parts[-1][0] == _OCTETS:
        yield parts[-1][1]
