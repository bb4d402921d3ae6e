"""OpenPGP packets, and the self-signatures of certificates. RFC 9580.

This module does not need the extra ``openpgp``, so secret keys are recognized without it.

SHA-1 and RIPEMD-160 are accepted: old certificates bind their user ids with them, and the known attacks do
not let anybody but the owner make such a binding. MD5 is refused.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

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
    """Return the packet of definite length at ``offset``, or None. Only data packets have other lengths."""
    tag, header, length = _header(data, offset)
    if tag == 0:
        return None
    end = offset + header + length
    return RawPacket(tag, offset, offset + header, min(end, len(data)), end <= len(data))


def packets_of(data: bytes) -> Iterator[RawPacket]:
    """Yield the packets of ``data``. The first bytes that are not a packet end the iteration."""
    offset = 0
    while offset < len(data) and (packet := packet_at(data, offset)) is not None:
        yield packet
        offset = packet.end


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
    """Return whether the body of ``packet``, which ``is_key`` accepts, has the structure of key material.

    Random bytes hardly ever have this structure.
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
    for begin, end, limit in delimited(text, _BEGIN, _END):
        if end is None:
            yield Armor(begin.start(), limit, None)
        else:
            yield Armor(begin.start(), end.end(), _packets_of(text[begin.end() : end.start()]))


def delimited(
    text: bytes, begins: re.Pattern[bytes], ends: re.Pattern[bytes]
) -> Iterator[tuple[re.Match[bytes], re.Match[bytes] | None, int]]:
    """Yield every begin line with its end line, or None, and the offset at which the next block begins."""
    begin = begins.search(text)
    while begin is not None:
        following = begins.search(text, begin.end())
        limit = len(text) if following is None else following.start()
        yield begin, ends.search(text, begin.end(), limit), limit
        begin = following


def without_armor(data: bytes) -> bytes:
    """Return the packets of the first armored block of ``data``, or ``data`` if it has no such block."""
    return next((block.packets or b"" for block in armored(data)), data)


def _packets_of(block: bytes) -> bytes | None:
    _, *body = _EMPTY_LINE.split(block, maxsplit=1)
    lines = b"".join(body).split()
    if lines and lines[-1].startswith(b"="):
        lines.pop()
    try:
        return base64.b64decode(b"".join(lines), validate=True) or None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Layout:
    """The differences between versions, such as the octets of a length and where the key material begins."""

    size: int
    key_prefix: bytes
    material: int
    salted: bool


_LAYOUTS = {4: _Layout(2, b"\x99", 6, salted=False), 6: _Layout(4, b"\x9b", 10, salted=True)}
_RIPEMD160 = 3
_HASHES: dict[int, hashes.HashAlgorithm] = {
    2: hashes.SHA1(),  # noqa: S303
    8: hashes.SHA256(),
    9: hashes.SHA384(),
    10: hashes.SHA512(),
    11: hashes.SHA224(),
    12: hashes.SHA3_256(),
    14: hashes.SHA3_512(),
}
_CURVES: dict[bytes, ec.EllipticCurve] = {
    bytes.fromhex("2a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("2b81040022"): ec.SECP384R1(),
    bytes.fromhex("2b81040023"): ec.SECP521R1(),
    bytes.fromhex("2b8104000a"): ec.SECP256K1(),
    bytes.fromhex("2b2403030208010107"): ec.BrainpoolP256R1(),
    bytes.fromhex("2b240303020801010b"): ec.BrainpoolP384R1(),
    bytes.fromhex("2b240303020801010d"): ec.BrainpoolP512R1(),
}
_RSA, _DSA, _ECDSA, _EDDSA_LEGACY, _ED25519, _ED448 = (1, 3), 17, 19, 22, 27, 28
_DIGEST_INFO_RIPEMD160 = bytes.fromhex("3021300906052b2403020105000414")


def binds(key: bytes, user_id: bytes | None, signature: bytes) -> bool:
    """Return whether ``signature`` by ``key`` verifies, over the key and ``user_id`` or over the key alone.

    All three are packet bodies. The caller checks the type of the signature. A signature or key of another
    version or of an unknown algorithm does not verify.
    """
    try:
        if key[0] not in _LAYOUTS or signature[0] != key[0] or signature[2] != key[5]:
            return False
        layout = _LAYOUTS[key[0]]
        hashed_end = 4 + layout.size + int.from_bytes(signature[4 : 4 + layout.size], "big")
        unhashed_end = hashed_end + layout.size
        unhashed_end += int.from_bytes(signature[hashed_end:unhashed_end], "big")
        # The first two octets of the digest, and in version 6 the salt, come before the signature itself.
        start = unhashed_end + 2
        salt = b""
        if layout.salted:
            salt = signature[start + 1 : start + 1 + signature[start]]
            start += 1 + len(salt)
        message = b"".join(
            (
                salt,
                layout.key_prefix + len(key).to_bytes(layout.size, "big") + key,
                b"" if user_id is None else b"\xb4" + len(user_id).to_bytes(4, "big") + user_id,
                signature[:hashed_end],
                bytes((key[0], 0xFF)) + hashed_end.to_bytes(4, "big"),
            )
        )
        _verify(key[5], key[layout.material :], signature[start:], message, signature[3])
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, LookupError, OverflowError):
        return False
    return True


def _verify(kind: int, key: bytes, signature: bytes, message: bytes, hash_id: int) -> None:
    if kind in _RSA:
        _verify_rsa(key, signature, message, hash_id)
    elif kind == _DSA:
        p, q, g, y = _integers(key, 4)
        numbers = dsa.DSAPublicNumbers(y, dsa.DSAParameterNumbers(p, q, g))
        der = encode_dss_signature(*_integers(signature, 2))
        numbers.public_key().verify(der, message, _HASHES[hash_id])
    elif kind == _ECDSA:
        (point,) = _integers(key[1 + key[0] :], 1)
        encoded = point.to_bytes((point.bit_length() + 7) // 8, "big")
        public = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[key[1 : 1 + key[0]]], encoded)
        public.verify(encode_dss_signature(*_integers(signature, 2)), message, ec.ECDSA(_HASHES[hash_id]))
    elif kind in (_EDDSA_LEGACY, _ED25519, _ED448):
        digest = hashes.Hash(_HASHES[hash_id])
        digest.update(message)
        if kind == _EDDSA_LEGACY:
            (point,) = _integers(key[1 + key[0] :], 1)
            # The prefix of the point is 0x40 (section 11.2.1). Points of other curves have another length.
            key = point.to_bytes(33, "big").removeprefix(b"\x40")
            signature = b"".join(value.to_bytes(32, "big") for value in _integers(signature, 2))
        signer = Ed448PublicKey if kind == _ED448 else Ed25519PublicKey
        signer.from_public_bytes(key).verify(signature, digest.finalize())
    else:
        raise UnsupportedAlgorithm("public-key algorithm")


def _verify_rsa(key: bytes, signature: bytes, message: bytes, hash_id: int) -> None:
    n, e = _integers(key, 2)
    (value,) = _integers(signature, 1)
    encoded = value.to_bytes((n.bit_length() + 7) // 8, "big")
    public = rsa.RSAPublicNumbers(e, n).public_key()
    if hash_id != _RIPEMD160:
        public.verify(encoded, message, PKCS1v15(), _HASHES[hash_id])
        return
    # cryptography has no RIPEMD-160. hashlib raises ValueError if OpenSSL is built without it.
    digest = hashlib.new("ripemd160", message, usedforsecurity=False).digest()
    if public.recover_data_from_signature(encoded, PKCS1v15(), None) != _DIGEST_INFO_RIPEMD160 + digest:
        raise InvalidSignature


def _integers(data: bytes, count: int) -> list[int]:
    """Return the first ``count`` multiprecision integers of ``data`` (RFC 9580, section 3.2)."""
    values = []
    for _ in range(count):
        size = (int.from_bytes(data[:2], "big") + 7) // 8
        if len(data) < 2 + size:
            raise ValueError("truncated integer")
        values.append(int.from_bytes(data[2 : 2 + size], "big"))
        data = data[2 + size :]
    return values
