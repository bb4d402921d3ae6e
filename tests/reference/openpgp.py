"""OpenPGP keys, packets and keyrings of the tests; needs the extra ``openpgp``."""

from __future__ import annotations

from pathlib import Path

from pysequoia import CipherSuite, Profile, Tsk
from pysequoia.packet import Packet, PacketPile


def generate(*user_ids: str, suite: CipherSuite | None = None, profile: Profile | None = None) -> Tsk:
    return Tsk.generate(user_ids=list(user_ids), cipher_suite=suite, profile=profile)


def public(key: Tsk) -> bytes:
    return bytes(key.extract_certificate())


def packets(data: bytes) -> list[Packet]:
    return list(PacketPile.from_bytes(data))


def packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "keyring"
    path.write_bytes(data)
    return path
