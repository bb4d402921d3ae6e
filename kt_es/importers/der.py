"""Recognizes private and public keys in DER and BER by their structure. X.690; RFC 5208, 5915, 7292, 8017.

A truncated structure is read as far as it goes, because most of a private key is still a secret.
"""

from __future__ import annotations

from collections.abc import Iterator

_INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x30
_MAX_ELEMENTS = 16
# Prefixes of encryption algorithms: PKCS #5 (PBES2 and others), and the older algorithms of PKCS #12.
_ENCRYPTIONS = (bytes.fromhex("2a864886f70d0105"), bytes.fromhex("2a864886f70d010c01"))
# The types data and signedData of PKCS #7.
_CONTENTS = (bytes.fromhex("2a864886f70d010701"), bytes.fromhex("2a864886f70d010702"))
# Bytes of a large integer: far less than an RSA prime has, far more than a version or a public exponent.
_LARGE = 16


def private_structure(data: bytes, offset: int = 0) -> str | None:
    """Describe the private key, or the container of private keys, at ``offset``; None if there is none."""
    elements = _elements_of_sequence(data, offset)
    if not elements:
        return None
    tags = [tag for tag, _ in elements]
    first = elements[0][1]
    if tags[0] == _INTEGER and len(first) == 1:
        return _versioned(first[0], tags, elements)
    if tags[:2] == [_SEQUENCE, _OCTETS] and _identifier(first).startswith(_ENCRYPTIONS):
        return "an encrypted private key (PKCS #8)"
    return None


def _versioned(version: int, tags: list[int], elements: list[tuple[int, bytes]]) -> str | None:
    if version == 3 and tags[1:2] == [_SEQUENCE] and _identifier(elements[1][1]) in _CONTENTS:
        return "a PKCS #12 container"
    if version > 1:
        return None
    if tags[1:3] == [_SEQUENCE, _OCTETS] and _identifier(elements[1][1]):
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
    return [tag for tag, _ in elements] == [_SEQUENCE, _BITS] and bool(_identifier(elements[0][1]))


def is_rsa_public_key(data: bytes) -> bool:
    """Return whether ``data`` is exactly one RSAPublicKey. RFC 8017, appendix A.1.1."""
    elements = _whole_sequence(data)
    return [tag for tag, _ in elements] == [_INTEGER, _INTEGER] and len(elements[0][1]) >= _LARGE


def is_certificate(data: bytes) -> bool:
    """Return whether ``data`` is exactly one signed X.509 structure. RFC 5280, section 4.1."""
    elements = _whole_sequence(data)
    if [tag for tag, _ in elements] != [_SEQUENCE, _SEQUENCE, _BITS] or not _identifier(elements[1][1]):
        return False
    inner = [tag for tag, _ in _elements(elements[0][1], 0, len(elements[0][1]))]
    # version, serial number, algorithm, issuer, validity, subject, key
    return inner[:7] == [0xA0, _INTEGER, *[_SEQUENCE] * 5] or inner[:6] == [_INTEGER, *[_SEQUENCE] * 5]


def content_of(data: bytes, tag: int) -> bytes:
    """Return the content of the first element of ``data`` if it has this tag; otherwise nothing."""
    found, content, _ = _element(data, 0, len(data))
    return content if found == tag else b""


def children(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of every element in the content of a constructed element.

    The first bytes that are not an element end the iteration.
    """
    offset = 0
    while offset < len(content):
        tag, inner, offset = _element(content, offset, len(content))
        if tag == 0:
            return
        yield tag, inner


def _identifier(sequence: bytes) -> bytes:
    """Return the object identifier at the beginning of a sequence; empty if there is none."""
    tag, content, _ = _element(sequence, 0, len(sequence))
    return content if tag == _OID else b""


def _whole_sequence(data: bytes) -> list[tuple[int, bytes]]:
    tag, content, end = _element(data, 0, len(data))
    if tag != _SEQUENCE or end != len(data):
        return []
    return list(_elements(content, 0, len(content)))


def _elements_of_sequence(data: bytes, offset: int) -> list[tuple[int, bytes]]:
    if data[offset : offset + 1] != b"\x30":
        return []
    _, content, _ = _element(data, offset, len(data))
    return list(_elements(content, 0, len(content)))


def _elements(data: bytes, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    for _ in range(_MAX_ELEMENTS):
        tag, content, offset = _element(data, offset, end)
        if tag == 0:
            return
        yield tag, content


def _element(data: bytes, offset: int, end: int) -> tuple[int, bytes, int]:
    """Return tag, content and end of one element. Tag 0 means that there is none.

    An element of indefinite length extends to ``end``.
    """
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
