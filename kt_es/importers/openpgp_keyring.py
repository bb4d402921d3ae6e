"""Splits a keyring, binary or ASCII-armored, into certificates, and merges the copies of one certificate.

Damage in one certificate does not affect the others. A merged certificate has the packets of all its copies,
byte for byte, so that no revocation in one copy is lost (RFC 9580, section 10.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kt_es.errors import MalformedError
from kt_es.importers.packets import (
    COMPRESSED,
    IGNORED,
    PRIMARY,
    PUBLIC_SUBKEY,
    SIGNATURE,
    armored,
    has_key_material,
    is_key,
    packet_at,
    packets_of,
)
from kt_es.importers.views import utf8_text

_BETWEEN = b"\r\n\t "
_PRIMARY_HEADER = re.compile(rb"[\x94-\x96\x98-\x9a\xc5\xc6]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A certificate, or a damaged part of a keyring.

    ``data`` has the packets from one primary key up to the next one, without the packets that readers must
    ignore (RFC 9580, section 4.3). ``problem`` is the reason why there is no certificate, and ``where`` names
    the block and the byte in the file; both are empty if there is a certificate.
    """

    data: bytes
    where: str = ""
    problem: str = ""


def split_keyring(data: bytes) -> Iterator[Piece]:
    """Yield the certificates and the damaged parts of a file, in order. Raises ``MalformedError``."""
    if not data:
        raise MalformedError("OpenPGP keyring", "the file is empty")
    if data[8:12] == b"KBXf":
        raise MalformedError("OpenPGP keyring", "this is a GnuPG keybox; write a keyring with gpg --export")
    text = utf8_text(data)
    blocks = [] if _begins_with_key(data) else list(armored(text))
    if not blocks:
        if not data.lstrip(_BETWEEN)[:1] >= b"\x80":
            raise MalformedError("OpenPGP keyring", "the file is neither a binary nor an armored keyring")
        yield from _pieces(data)
    for number, block in enumerate(blocks, 1):
        where = f"armored block {number}"
        if block.packets is None:
            yield Piece(b"", where, "the ASCII armor is damaged or cut off")
            continue
        for piece in _pieces(block.packets):
            yield Piece(piece.data, f"{where}, {piece.where}" if piece.where else "", piece.problem)


def _begins_with_key(data: bytes) -> bool:
    start = len(data) - len(data.lstrip(_BETWEEN))
    packet = packet_at(data, start) if start < len(data) else None
    return packet is not None and is_key(data, packet)


def _pieces(data: bytes) -> Iterator[Piece]:
    parts: list[bytes] = []
    offset = 0
    while offset < len(data):
        if data[offset] in _BETWEEN:
            offset += 1
            continue
        packet = packet_at(data, offset)
        if packet is not None and packet.whole and packet.tag != COMPRESSED:
            if packet.tag in PRIMARY:
                yield from _certificate(parts)
                parts = []
            if packet.tag not in IGNORED and (parts or packet.tag in PRIMARY):
                parts.append(data[offset : packet.end])
            offset = packet.end
            continue
        # A truncated packet may belong to the certificate before it and be its revocation.
        if (
            not parts
            or not data[offset] & 0x80
            or (packet is not None and packet.tag in (*PRIMARY, COMPRESSED))
        ):
            yield from _certificate(parts)
        parts = []
        # The library would decompress the data: a few hundred bytes can become gigabytes.
        compressed = packet is not None and packet.tag == COMPRESSED
        problem = "has compressed data" if compressed else "is cut off or damaged"
        yield Piece(b"", f"byte {offset}", problem)
        offset = _next_certificate(data, offset + 1)
    yield from _certificate(parts)


def _certificate(parts: list[bytes]) -> Iterator[Piece]:
    if parts:
        yield Piece(b"".join(parts))


def _next_certificate(data: bytes, offset: int) -> int:
    """Return the offset of the next complete primary key, or the end of ``data``."""
    for match in _PRIMARY_HEADER.finditer(data, offset):
        packet = packet_at(data, match.start())
        if packet is None or packet.tag not in PRIMARY or not packet.whole or not is_key(data, packet):
            continue
        if has_key_material(data, packet) and (packet.end == len(data) or data[packet.end] & 0x80):
            return packet.start
    return len(data)


@dataclass(slots=True)
class _Component:
    """A key, user id or user attribute, and the signatures that follow it, by their bodies."""

    data: bytes
    signatures: dict[bytes, bytes] = field(default_factory=dict)


def merge_certificates(first: bytes, second: bytes) -> bytes:
    """Return ``first`` with the packets that only ``second`` has.

    Both are complete certificates with the same primary key. The order of ``first`` stays. New user ids come
    before its subkeys, and new subkeys come last.
    """
    if first == second:
        return first
    merged = _components(first)
    for key, component in _components(second).items():
        present = merged.setdefault(key, _Component(component.data))
        for body, signature in component.signatures.items():
            present.signatures.setdefault(body, signature)
    ordered = sorted(merged.items(), key=lambda item: item[0][0] == PUBLIC_SUBKEY)
    return b"".join(part for _, each in ordered for part in (each.data, *each.signatures.values()))


def _components(data: bytes) -> dict[tuple[int, bytes], _Component]:
    components: dict[tuple[int, bytes], _Component] = {}
    current: _Component | None = None
    for packet in packets_of(data):
        whole, body = data[packet.start : packet.end], data[packet.body : packet.end]
        if packet.tag == SIGNATURE and current is not None:
            current.signatures.setdefault(body, whole)
        else:
            current = components.setdefault((packet.tag, body), _Component(whole))
    return components
