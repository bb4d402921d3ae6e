"""Verifies self-signatures of certificates of versions 4 and 6, of any age. RFC 9580, sections 5.2, 5.5, 9.

SHA-1 and RIPEMD-160 are accepted: old certificates bind their user ids with them, and the known attacks do
not let anybody but the owner make such a binding. MD5 is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature


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
