"""Reads OpenPGP packets and ASCII armor, but not the content of signatures. RFC 9580, sections 4 to 6.

This module needs no library, so secret keys are recognized even if the extra ``openpgp`` is not installed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY, COMPRESSED, PUBLIC_SUBKEY = 2, 5, 6, 7, 8, 14
SECRET = (SECRET_KEY, SECRET_SUBKEY)
PRIMARY = (PUBLIC_KEY, SECRET_KEY)
# Packets with these tags are not critical: a reader may ignore unknown ones. RFC 9580, section 4.3.
IGNORED = range(40, 64)
_KEYS = (*PRIMARY, SECRET_SUBKEY, PUBLIC_SUBKEY)
_VERSIONS = range(2, 7)
_ALGORITHMS = frozenset((1, 2, 3, 16, 17, 18, 19, 20, 22, 25, 26, 27, 28, *range(29, 37), *range(100, 111)))

_BEGIN = re.compile(rb"-----BEGIN PGP [A-Z0-9 ,/]+-----")
_END = re.compile(rb"-----END PGP [A-Z0-9 ,/]+-----")
_EMPTY_LINE = re.compile(rb"\n[ \t\r]*\n")


@dataclass(frozen=True, slots=True)
class RawPacket:
    """One packet: ``data[start:end]`` is the whole packet, ``data[body:end]`` is its body.

    ``whole`` is False if the data ends before the packet does.
    """

    tag: int
    start: int
    body: int
    end: int
    whole: bool = True


def packet_at(data: bytes, offset: int) -> RawPacket | None:
    """Return the packet that begins at ``offset``; None if no packet begins there.

    A packet of partial or indeterminate length gives None, because only data packets may have such lengths.
    """
    tag, header, length = _header(data, offset)
    if tag == 0:
        return None
    end = offset + header + length
    return RawPacket(tag, offset, offset + header, min(end, len(data)), end <= len(data))


def _header(data: bytes, offset: int) -> tuple[int, int, int]:
    """Return tag, header length and body length of the packet at ``offset``. Tag 0, reserved, means none."""
    first = data[offset]
    following = data[offset + 1 : offset + 6]
    if not first & 0x80 or len(following) < 1:
        return 0, 0, 0
    if not first & 0x40:
        size = (1, 2, 4, 0)[first & 3]
        if size == 0 or len(following) < size:
            return 0, 0, 0
        return (first >> 2) & 15, 1 + size, int.from_bytes(following[:size], "big")
    tag, octet = first & 63, following[0]
    if octet < 192:
        return tag, 2, octet
    if octet < 224 and len(following) >= 2:
        return tag, 3, ((octet - 192) << 8) + following[1] + 192
    if octet == 255 and len(following) == 5:
        return tag, 6, int.from_bytes(following[1:], "big")
    return 0, 0, 0


def is_key(data: bytes, packet: RawPacket) -> bool:
    """Return whether ``packet`` has the tag and the first octets of a public or secret key of any version."""
    body = data[packet.body : packet.body + 8]
    if packet.tag not in _KEYS or len(body) < 8 or body[0] not in _VERSIONS:
        return False
    return body[7 if body[0] < 4 else 5] in _ALGORITHMS


def has_key_material(data: bytes, packet: RawPacket) -> bool:
    """Return whether the body of ``packet`` has the structure of a public key's material.

    Random bytes hardly ever have this structure. The check is for a packet that ``is_key`` accepts in the
    middle of other data.
    """
    body = data[packet.body : packet.end]
    if packet.end - packet.start < 40 or not 0x28 <= body[1] < 0xA0:
        return False
    if body[0] in (5, 6):
        return 32 <= int.from_bytes(body[6:10], "big") <= 4096
    material, algorithm = (body[8:], body[7]) if body[0] < 4 else (body[6:], body[5])
    if algorithm in (18, 19, 22):
        return 3 <= material[0] <= 16 and material[1] in (0x2A, 0x2B)
    if algorithm in (25, 26, 27, 28):
        size = {25: 32, 26: 56, 27: 32, 28: 57}[algorithm]
        secret = packet.tag in SECRET
        return material[size : size + 1] in ((b"\x00", b"\xfd", b"\xfe", b"\xff") if secret else (b"",))
    bits = int.from_bytes(material[:2], "big")
    if not 256 <= bits <= 16384 or material[2].bit_length() != (bits - 1) % 8 + 1:
        return False
    second = material[2 + (bits + 7) // 8 :][:3]
    return len(second) < 3 or second[2].bit_length() == (int.from_bytes(second[:2], "big") - 1) % 8 + 1


def fingerprint(body: bytes) -> str:
    """Return the fingerprint of a key packet's body of version 4 or 6, else "". RFC 9580, section 5.5.4."""
    if body[:1] == b"\x04":
        prefix = b"\x99" + len(body).to_bytes(2, "big")
        return hashlib.sha1(prefix + body, usedforsecurity=False).hexdigest().upper()
    if body[:1] == b"\x06":
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    return ""


@dataclass(frozen=True, slots=True)
class Armor:
    """One armored block, ``text[start:end]``. ``packets`` is None if the block is damaged or cut off."""

    start: int
    end: int
    packets: bytes | None


def armored(text: bytes) -> Iterator[Armor]:
    """Yield the armored blocks of ``text`` (RFC 9580, section 6.2). Checksums are ignored (section 6.1).

    A block without an end line ends where the next block begins.
    """
    begin = _BEGIN.search(text)
    while begin is not None:
        following = _BEGIN.search(text, begin.end())
        limit = len(text) if following is None else following.start()
        end = _END.search(text, begin.end(), limit)
        if end is None:
            yield Armor(begin.start(), limit, None)
        else:
            yield Armor(begin.start(), end.end(), _packets_of(text[begin.end() : end.start()]))
        begin = following


def _packets_of(block: bytes) -> bytes | None:
    _, *body = _EMPTY_LINE.split(block, maxsplit=1)
    lines = b"".join(body).split()
    if lines and lines[-1].startswith(b"="):
        lines.pop()
    try:
        return base64.b64decode(b"".join(lines), validate=True) or None
    except ValueError:
        return None
