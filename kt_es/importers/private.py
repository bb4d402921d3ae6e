"""Refuses private keys, which are recognized in PEM, DER and other containers by their structure.

A comment that mentions private keys is not one. A key counts even if it is damaged, cut off or surrounded by
other data, as long as its structure can be recognized: most of a private key is still a secret.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from kt_es.crypto.signatures import ED25519, is_point
from kt_es.importers.packets import PUBLIC_KEY, SECRET, has_key_material, is_key, packet_at, packets_of
from kt_es.importers.views import forms

_INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x30
_MAX_ELEMENTS = 16
# Prefixes of encryption algorithms: PKCS #5 (PBES2 and others), and the older algorithms of PKCS #12.
_ENCRYPTIONS = (bytes.fromhex("2a864886f70d0105"), bytes.fromhex("2a864886f70d010c01"))
# The types data and signedData of PKCS #7.
_CONTENTS = (bytes.fromhex("2a864886f70d010701"), bytes.fromhex("2a864886f70d010702"))
# Bytes of a large integer: far less than an RSA prime has, far more than a version or a public exponent.
_LARGE = 16


def _private_structure(data: bytes, offset: int) -> str | None:
    """Describe the private key, or the container of private keys, at ``offset``; None if there is none."""
    tag, content, _ = _element(data, offset)
    elements = _elements(content) if tag == _SEQUENCE else []
    if not elements:
        return None
    tags = [tag for tag, _ in elements]
    first = elements[0][1]
    if tags[0] == _INTEGER and len(first) == 1:
        return _versioned(first[0], tags, elements)
    if tags[:2] == [_SEQUENCE, _OCTETS] and content_of(first, _OID).startswith(_ENCRYPTIONS):
        return "an encrypted private key (PKCS #8)"
    return None


def _versioned(version: int, tags: list[int], elements: list[tuple[int, bytes]]) -> str | None:
    if version == 3 and tags[1:2] == [_SEQUENCE] and content_of(elements[1][1], _OID) in _CONTENTS:
        return "a PKCS #12 container"
    if version > 1:
        return None
    if tags[1:3] == [_SEQUENCE, _OCTETS] and content_of(elements[1][1], _OID):
        return "a private key (PKCS #8)"
    if version == 1 and tags[1:2] == [_OCTETS] and len(elements[1][1]) >= _LARGE:
        return "a private key (SEC 1)"
    if tags[1:3] == [_INTEGER, _INTEGER] and len(elements[1][1]) >= _LARGE:
        # RSA: version, n, e, d, ...; DSA: version, p, q, g, y, x.
        return "a private key (PKCS #1 or DSA)"
    return None


def is_public_key(data: bytes) -> bool:
    """Return whether ``data`` is exactly one SubjectPublicKeyInfo. RFC 5280, section 4.1."""
    elements = _whole_sequence(data)
    return [tag for tag, _ in elements] == [_SEQUENCE, _BITS] and bool(content_of(elements[0][1], _OID))


def is_rsa_public_key(data: bytes) -> bool:
    """Return whether ``data`` is exactly one RSAPublicKey. RFC 8017, appendix A.1.1."""
    elements = _whole_sequence(data)
    return [tag for tag, _ in elements] == [_INTEGER, _INTEGER] and len(elements[0][1]) >= _LARGE


def is_certificate(data: bytes) -> bool:
    """Return whether ``data`` is exactly one signed X.509 structure. RFC 5280, section 4.1."""
    elements = _whole_sequence(data)
    if [tag for tag, _ in elements] != [_SEQUENCE, _SEQUENCE, _BITS] or not content_of(elements[1][1], _OID):
        return False
    inner = [tag for tag, _ in _elements(elements[0][1])]
    # version, serial number, algorithm, issuer, validity, subject, key
    return inner[:7] == [0xA0, _INTEGER, *[_SEQUENCE] * 5] or inner[:6] == [_INTEGER, *[_SEQUENCE] * 5]


def content_of(data: bytes, tag: int) -> bytes:
    """Return the content of the first element of ``data`` if it has this tag; otherwise nothing."""
    found, content, _ = _element(data, 0)
    return content if found == tag else b""


def children(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of every element in the content of a constructed element.

    The first bytes that are not an element end the iteration.
    """
    offset = 0
    while offset < len(content):
        tag, inner, offset = _element(content, offset)
        if tag == 0:
            return
        yield tag, inner


def _whole_sequence(data: bytes) -> list[tuple[int, bytes]]:
    tag, content, end = _element(data, 0)
    return _elements(content) if tag == _SEQUENCE and end == len(data) else []


def _elements(content: bytes) -> list[tuple[int, bytes]]:
    return list(islice(children(content), _MAX_ELEMENTS))


def _element(data: bytes, offset: int) -> tuple[int, bytes, int]:
    """Return tag, content and end of one element. Tag 0 means that there is none.

    An element of indefinite length extends to the end of ``data``.
    """
    end = len(data)
    if offset + 2 > end:
        return 0, b"", end
    tag, length = data[offset], data[offset + 1]
    offset += 2
    if length == 0x80:
        return tag, data[offset:end], end + 1
    if length > 0x80:
        size = length & 0x7F
        if size > 4 or offset + size > end:
            return 0, b"", end
        length = int.from_bytes(data[offset : offset + size], "big")
        offset += size
    return tag, data[offset : min(offset + length, end)], offset + length


_P = 2**255 - 19
_BECH32 = rb"[02-9ac-hj-np-z]"
_DASHES = rb"(?:-|\xe2\x80[\x90-\x95]){2}[ \t]{0,8}"

# Texts and magic numbers by which formats mark private keys.
_MARKS = [
    (re.compile(mark), what)
    for mark, what in (
        (rb"(?i)" + _DASHES + rb"BEGIN[^\r\n-]{0,60}PGP[^\r\n-]{0,20}(?:PRIVATE|SECRET)",
         "an OpenPGP secret key"),
        (rb"(?i)" + _DASHES + rb"BEGIN[^\r\n-]{0,60}(?:PRIVATE|SECRET)[ _]?KEY", "a private key (PEM)"),
        (rb"openssh-key-v1\x00", "an OpenSSH private key"),
        (rb"SSH PRIVATE KEY FILE FORMAT 1\.1", "an SSH-1 private key"),
        (rb"PuTTY-User-Key-File-[0-9]|(?:^|\n)Private-(?:Lines|MAC|Hash):", "a PuTTY private key"),
        (rb"(?i)AGE-SECRET-KEY-(?:[A-Z]{1,16}-)?1" + _BECH32 + rb"{16}", "an age identity"),
        (rb"(?i)AGE-PLUGIN-[A-Z0-9+._-]{1,64}?1" + _BECH32 + rb"{6}", "an age identity"),
        (rb"(?i)\b(?:private|preshared|secret)[_ -]?key[\"']?[ \t]*[:=][ \t]*[\"']?[A-Za-z0-9+/_-]{40,}",
         "a private key in a configuration, such as WireGuard's"),
        (rb"PRIVATE\+KEY\+", "a private key of signed notes"),
        (rb"\((?:[0-9]+:)?(?:protected-|shadowed-)?private-key", "a private key of GnuPG's agent"),
        (rb"(?:^|\n)Private-key-format: v", "a private key of DNSSEC"),
        (rb"(?:^|\n)(?:RSA )?Private-Key: \(|(?:^|\n) *(?:privateExponent|priv):", "a private key, printed"),
        (rb"<D>[A-Za-z0-9+/=\s]{40,2000}</D>", "an RSA private key in XML"),
        (rb"== ed25519v1-secret:", "a private key of Tor"),
        (rb"^Ed(?:Sc|\x00\x00)B2|^EdBK", "a private key of minisign or signify"),
        (rb"\bnsec1" + _BECH32 + rb"{58}\b", "a private key of Nostr"),
        (rb"^\x1e\xf1\xb5\xb0|^(?:RSA[23]|ECS[246]|ECK[246])[^ -~]{4}", "a private key of Windows"),
        (rb"\x07\x02\x00\x00\x00[\x22\x24\xa4]\x00\x00(?:RSA|DSS)2", "a private key of Windows"),
        (rb"^(?:\xfe\xed\xfe\xed|\xce\xce\xce\xce)\x00\x00\x00[\x01\x02]", "a Java key store"),
    )
]  # fmt: skip
_JWK_PRIVATE = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"))
_JWK_TEXT = re.compile(rb'"kty"\s*:')
_JWK_MEMBER = re.compile(rb'"(?:d|k|priv|p|q)"\s*:\s*"[A-Za-z0-9_-]{16,}')
# A sequence that begins with a version, or with the identifier of an encryption algorithm.
_DER_BEGIN = re.compile(
    rb"(?s)\x30(?=(?:[\x2c-\x80]|\x81.|\x82..|\x83...|\x84....)"
    rb"(?:\x02\x01[\x00\x01\x03]|\x30.{1,5}\x06[\x09\x0a]\x2a\x86\x48\x86\xf7\x0d\x01))"
)
_SECRET_HEADER = re.compile(rb"[\x94-\x97\x9c-\x9f\xc5\xc7]")
# Bytes of a file with one bare key: enough for UTF-32 with a byte order mark and white space.
_MAX_BARE = 256
_BASE64_32 = re.compile(rb"\s*([A-Za-z0-9+/_-]{43}=?)\s*")


def private_key_in(data: bytes) -> str | None:
    """Return what kind of private key ``data`` contains in any form, as a noun; None if there is none."""
    bare = bare_key(data)
    if bare is not None and is_clamped(bare):
        return "32 bytes in the form of an X25519 (WireGuard) private key"
    return next(filter(None, map(_in_form, forms(data))), None)


def bare_key(data: bytes) -> bytes | None:
    """Return the 32 bytes of which ``data`` consists, binary or in base64 (WireGuard); otherwise None."""
    if len(data) == 32:
        return data
    if len(data) > _MAX_BARE:
        return None
    for form in forms(data):
        if match := _BASE64_32.fullmatch(form):
            return base64.b64decode(match[1].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/")) + b"=")
    return None


def is_clamped(key: bytes) -> bool:
    """Return whether ``key`` is clamped as a scalar of X25519 is (RFC 7748, section 5).

    One public key in 16 also has this form.
    """
    return not key[0] & 7 and key[31] & 0xC0 == 0x40


def is_x25519(key: bytes) -> bool:
    """Return whether X25519 can produce the public key ``key``: canonical, in the group of prime order.

    One in 32 random strings of 32 bytes passes. The library checks points on the Edwards curve, so the point
    is mapped to it (RFC 7748, section 4.1): y = (u - 1) / (u + 1).
    """
    u = int.from_bytes(key, "little")
    if len(key) != 32 or u >= _P - 1:
        return False
    y = (u - 1) * pow(u + 1, -1, _P) % _P
    return is_point(ED25519, y.to_bytes(32, "little"))


def _in_form(data: bytes) -> str | None:
    for mark, what in _MARKS:
        if mark.search(data):
            return what
    if has_secret_packet(data):
        return "an OpenPGP secret key"
    return _private_der(data) or _private_jwk(data)


def has_secret_packet(data: bytes) -> bool:
    """Return whether ``data`` contains an OpenPGP secret key or subkey, among packets or any other data."""
    first = last = None
    for packet in packets_of(data):
        if packet.tag in SECRET and is_key(data, packet):
            return True
        first, last = first or packet, packet
    if first and last and first.tag == PUBLIC_KEY and last.whole and last.end == len(data):
        # The data consists of packets of certificates. A pattern of a secret key within one is a coincidence.
        return False
    return any(_is_secret_at(data, match.start()) for match in _SECRET_HEADER.finditer(data))


def _is_secret_at(data: bytes, offset: int) -> bool:
    packet = packet_at(data, offset)
    if packet is None or packet.tag not in SECRET or not is_key(data, packet):
        return False
    return has_key_material(data, packet)


def _private_der(data: bytes) -> str | None:
    """Describe a private key in DER, at the beginning of ``data`` or later; None if there is none."""
    offsets = chain((0,), (match.start() for match in _DER_BEGIN.finditer(data)))
    return next(filter(None, (_private_structure(data, offset) for offset in offsets)), None)


def _private_jwk(data: bytes) -> str | None:
    if not _JWK_TEXT.search(data):
        return None
    try:
        private = _has_private_jwk(json.loads(data.decode("utf-8", "replace").strip("\ufeff \t\r\n\0")))
    except (ValueError, RecursionError):
        private = _JWK_MEMBER.search(data) is not None
    return "a private JSON Web Key" if private else None


def _has_private_jwk(value: Any) -> bool:
    if isinstance(value, dict):
        if "kty" in value and not _JWK_PRIVATE.isdisjoint(value):
            return True
        return any(map(_has_private_jwk, value.values()))
    return isinstance(value, list) and any(map(_has_private_jwk, value))
