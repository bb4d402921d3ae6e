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
    RawPacket,
    armored,
    has_key_material,
    is_key,
    packet_at,
)
from kt_es.importers.views import utf8_text

_BETWEEN = b"\r\n\t "
_PRIMARY_HEADER = re.compile(rb"[\x94-\x96\x98-\x9a\xc5\xc6]")
_CUT = "is cut off or damaged"


@dataclass(frozen=True, slots=True)
class Piece:
    """A certificate, from its primary key up to the next one; or ``problem``, why there is none.

    Packets that are to be ignored (RFC 9580, section 4.3) are not in ``data``. ``where`` says which block
    of the file or which byte it is, where there is a problem.
    """

    data: bytes
    where: str = ""
    problem: str = ""


def split_keyring(data: bytes) -> Iterator[Piece]:
    """The certificates of a file and its damaged parts, in order.

    Raises ``MalformedError`` where the file is no keyring at all.
    """
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
        # A packet that is cut off may be one of the certificate before it, and that one's revocation.
        if (
            not parts
            or not data[offset] & 0x80
            or (packet is not None and packet.tag in (*PRIMARY, COMPRESSED))
        ):
            yield from _certificate(parts)
        parts = []
        yield Piece(b"", f"byte {offset}", _problem(packet))
        offset = _next_certificate(data, offset + 1)
    yield from _certificate(parts)


def _problem(packet: RawPacket | None) -> str:
    # The library would unpack it: a few hundred bytes can become gigabytes.
    return "has compressed data" if packet is not None and packet.tag == COMPRESSED else _CUT


def _certificate(parts: list[bytes]) -> Iterator[Piece]:
    if parts:
        yield Piece(b"".join(parts))


def _next_certificate(data: bytes, offset: int) -> int:
    """Where the next primary key begins that is whole, or the end of ``data``."""
    for match in _PRIMARY_HEADER.finditer(data, offset):
        packet = packet_at(data, match.start())
        if packet is None or packet.tag not in PRIMARY or not packet.whole or not is_key(data, packet):
            continue
        if has_key_material(data, packet) and (packet.end == len(data) or data[packet.end] & 0x80):
            return packet.start
    return len(data)


@dataclass(slots=True)
class _Component:
    """A key, user id or user attribute, and the signatures that follow it, each by its body."""

    data: bytes
    signatures: dict[bytes, bytes] = field(default_factory=dict)


def merge_certificates(first: bytes, second: bytes) -> bytes:
    """``first`` and what only ``second`` has; both are whole certificates of the same primary key.

    The order of ``first`` stays. New user ids stand before its subkeys, new subkeys at the end.
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
    for tag, packet, body in _packets(data):
        if tag == SIGNATURE and current is not None:
            current.signatures.setdefault(body, packet)
        else:
            current = components.setdefault((tag, body), _Component(packet))
    return components


def _packets(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    offset = 0
    while offset < len(data) and (packet := packet_at(data, offset)) is not None:
        yield packet.tag, data[packet.start : packet.end], data[packet.body : packet.end]
        offset = packet.end
