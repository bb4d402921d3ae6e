"""Recognizes the public keys of a file. FORMATS, "Profiles, commitments and openings", defines their bytes.

A file is recognized only if every part of it is understood. Only text around armored blocks and comments
between lines are left out.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from kt_es.importers.packets import (
    IGNORED,
    PUBLIC_KEY,
    armored,
    delimited,
    fingerprint,
    is_key,
    packet_at,
    without_armor,
)
from kt_es.importers.private import (
    bare_key,
    is_certificate,
    is_clamped,
    is_public_key,
    is_rsa_public_key,
    is_x25519,
)
from kt_es.importers.views import utf8_text

# Packets after the primary key: signatures, subkeys, user ids, user attributes, trust, markers, padding.
_CERTIFICATE_TAGS = frozenset((2, 10, 12, 13, 14, 17, 21, *IGNORED))
_BEGIN = re.compile(rb"-----BEGIN (?P<pem>[A-Z0-9 ,/]+)-----|---- BEGIN SSH2 PUBLIC KEY ----")
_END = re.compile(rb"-----END (?P<pem>[A-Z0-9 ,/]+)-----|---- END SSH2 PUBLIC KEY ----")
_SSH2 = b"SSH2 PUBLIC KEY"
# By PEM label, the check of the structure in DER.
_PEM = {
    b"CERTIFICATE": is_certificate,
    b"X509 CERTIFICATE": is_certificate,
    b"PUBLIC KEY": is_public_key,
    b"RSA PUBLIC KEY": is_rsa_public_key,
}
_SSH = re.compile(rb"([a-z0-9@.-]+)[ \t]+(AAAA[A-Za-z0-9+/]+={0,2})(?:[ \t]+[^\r\n]*)?")
_AGE = re.compile(rb"age1(?:[a-z0-9+._-]+1)?[02-9ac-hj-np-z]{58,}")
# Number of strings in the wire format of a key, including its type. RFC 4253, 5656, 8709; PROTOCOL.u2f.
_SSH_STRINGS = {
    "ssh-ed25519": 2, "ssh-ed448": 2, "ssh-rsa": 3, "ssh-dss": 5,
    "ecdsa-sha2-nistp256": 3, "ecdsa-sha2-nistp384": 3, "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3, "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublicPart:
    """One public key or certificate, with its type and bytes as in a profile."""

    type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Recognized:
    """The keys of a file. ``left_out`` is True if the file has other text, which is not in the keys."""

    parts: tuple[PublicPart, ...]
    left_out: bool = False


def recognize(data: bytes) -> Recognized | None:
    """Return the keys of which ``data`` consists; None if a part of ``data`` is not understood."""
    if certificates := openpgp_certificates(data):
        return Recognized(tuple(PublicPart("openpgp", each) for each in certificates))
    bare = bare_key(data)
    if bare is not None:
        usable = is_x25519(bare) and not is_clamped(bare)
        return Recognized((PublicPart("x25519", bare),)) if usable else None
    for name, is_of_kind in _PEM.items():
        if is_of_kind(data):
            return Recognized((PublicPart("pem", _pem(name, data)),))
    text = utf8_text(data)
    return _blocks(text) if _BEGIN.search(text) else _lines(text)


def fingerprint_of(kind: str, data: bytes) -> str:
    """Return the fingerprint of a key as the tools of its kind print it; otherwise SHA-256 of its bytes."""
    if kind == "openpgp":
        binary = without_armor(data)
        packet = packet_at(binary, 0) if binary else None
        if packet is not None and is_key(binary, packet):
            return fingerprint(binary[packet.body : packet.end]) or _sha256(data)
    if kind == "ssh" and (match := _SSH.match(data)) is not None and (blob := _base64(match[2])):
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    if kind == "pem" and (block := next(_blocks_of(data), None)) and (body := _base64(block.body)):
        return _sha256(body)
    return _sha256(data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest().upper()


def openpgp_certificates(data: bytes) -> list[bytes]:
    """Return the certificates of which ``data`` consists, with line ends after them; empty for other data."""
    data = data.rstrip(b"\r\n")
    starts: list[int] = []
    offset = 0
    while offset < len(data):
        packet = packet_at(data, offset)
        if packet is None or not packet.whole:
            return []
        if packet.tag == PUBLIC_KEY and is_key(data, packet):
            starts.append(offset)
        elif not starts or packet.tag not in _CERTIFICATE_TAGS:
            return []
        offset = packet.end
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=False)]


@dataclass(frozen=True, slots=True)
class _Block:
    kind: bytes
    text: bytes
    body: bytes
    start: int
    end: int


def _blocks_of(text: bytes) -> Iterator[_Block]:
    """Yield the blocks with matching begin and end lines. A block without an end is left out."""
    for begin, end, _ in delimited(text, _BEGIN, _END):
        if end is not None and end["pem"] == begin["pem"]:
            body = text[begin.end() : end.start()]
            block = text[begin.start() : end.end()]
            yield _Block(begin["pem"] or _SSH2, block, body, begin.start(), end.end())


def _blocks(text: bytes) -> Recognized | None:
    """Return the keys of armored blocks; None if a block is damaged or of another kind."""
    parts: list[PublicPart] = []
    outside, end = [], 0
    for block in _blocks_of(text):
        found = list(_block_parts(block))
        if not found:
            return None
        parts += found
        outside.append(text[end : block.start])
        end = block.end
    outside.append(text[end:])
    if not parts or any(_BEGIN.search(each) for each in outside):
        return None
    return Recognized(tuple(parts), any(each.strip() for each in outside))


def _block_parts(block: _Block) -> Iterator[PublicPart]:
    if block.kind == b"PGP PUBLIC KEY BLOCK":
        for armor in armored(block.text):
            for certificate in openpgp_certificates(armor.packets or b""):
                yield PublicPart("openpgp", certificate)
    elif block.kind == _SSH2:
        blob = _base64(b"".join(_without_headers(block.body)))
        name = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
        if _is_ssh(name, blob):
            yield PublicPart("ssh", name + b" " + base64.b64encode(blob))
    elif block.kind in _PEM and _PEM[block.kind](_base64(block.body)):
        yield PublicPart("pem", block.text + b"\n")


def _without_headers(body: bytes) -> Iterator[bytes]:
    """Yield the lines of base64. A header has a colon; a backslash continues it. RFC 4716, section 3.3."""
    continued = False
    for line in body.splitlines():
        header = continued or b":" in line
        continued = header and line.endswith(b"\\")
        if not header:
            yield line


def _lines(text: bytes) -> Recognized | None:
    """Return the SSH keys and age recipients of a file with one key a line; None if a line is neither."""
    lines = [stripped for line in text.split(b"\n") if (stripped := line.strip(b" \t\r"))]
    keys = [line for line in lines if not line.startswith(b"#")]
    parts = []
    for line in keys:
        match = _SSH.fullmatch(line)
        if match is not None and _is_ssh(match[1], _base64(match[2])):
            parts.append(PublicPart("ssh", line))
        elif _AGE.fullmatch(line):
            parts.append(PublicPart("age", line))
        else:
            return None
    if not parts:
        return None
    return Recognized(tuple(parts), len(keys) < len(lines))


def _is_ssh(name: bytes, blob: bytes) -> bool:
    """Return whether ``blob`` is exactly one key of the type ``name`` in the wire format of SSH."""
    strings, offset = [], 0
    while offset < len(blob):
        end = offset + 4 + int.from_bytes(blob[offset : offset + 4], "big")
        strings.append(blob[offset + 4 : end])
        offset = end
    if offset != len(blob) or not strings or strings[0] != name:
        return False
    return len(strings) == _SSH_STRINGS.get(name.decode("ascii", "replace")) and all(strings[1:])


def _base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except ValueError:
        return b""


def _pem(name: bytes, body: bytes) -> bytes:
    encoded = base64.b64encode(body)
    lines = [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
    return b"\n".join((b"-----BEGIN " + name + b"-----", *lines, b"-----END " + name + b"-----", b""))
