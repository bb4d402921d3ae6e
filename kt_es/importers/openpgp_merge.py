"""Copies of one certificate become one that has the packets of all of them, byte for byte.

So a revocation that stands in one copy is not lost, whichever copy is read first. RFC 9580, section 10.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kt_es.importers.packets import PUBLIC_SUBKEY, SIGNATURE, packet_at

_Key = tuple[int, bytes]


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


def _components(data: bytes) -> dict[_Key, _Component]:
    components: dict[_Key, _Component] = {}
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
