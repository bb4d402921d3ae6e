"""The names in a certificate, each read by itself: what is damaged beside them does not matter. RFC 5280.

A library that parses all extensions, or all of the subject, before it shows one refuses a certificate
for an extension that says nothing about who its owner is.
"""

from __future__ import annotations

from collections.abc import Iterator

from kt_es.importers.der import children, content_of

COMMON_NAME, ORGANIZATION, UNIT = (bytes.fromhex(oid) for oid in ("550403", "55040a", "55040b"))
EMAIL_ADDRESS = bytes.fromhex("2a864886f70d010901")
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")
_OID, _SEQUENCE, _SET, _OCTETS, _VERSION, _EXTENSIONS, _RFC822_NAME = 0x06, 0x30, 0x31, 0x04, 0xA0, 0xA3, 0x81
# Teletex strings have no encoding that is agreed on: what is not UTF-8 in them is no name.
_ENCODINGS = {
    0x0C: "utf-8",
    0x12: "utf-8",
    0x13: "utf-8",
    0x14: "utf-8",
    0x16: "utf-8",
    0x1E: "utf-16-be",
    0x1C: "utf-32-be",
}


def subject_names(certificate: bytes, kind: bytes) -> list[str]:
    """The values of the attribute ``kind`` in the subject of ``certificate`` (DER), in order.

    Bytes that are not of the value's encoding are lone surrogates, which no label can have.
    """
    # serial number, algorithm, issuer, validity, subject
    fields = [content for tag, content in _fields(certificate) if tag != _VERSION]
    subject = fields[4] if len(fields) > 4 else b""
    return [name for oid, name in _attributes(subject) if oid == kind and name]


def alternative_addresses(certificate: bytes) -> list[str]:
    """The e-mail addresses among the alternative names of ``certificate`` (DER), in order."""
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
