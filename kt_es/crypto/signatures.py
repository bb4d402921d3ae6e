"""The two signature algorithms of kt-es, on raw bytes, and the message that is signed.

Verdicts are replayed by everybody for ever, so what verifies must not depend on who verifies:

Ed25519 (RFC 8032, by libsodium): ``S`` below the group order, neither key nor ``R`` of small order,
no non-canonical encoding of either, and the equation ``S B = R + k A`` without the cofactor. libsodium
enforces all of it; OpenSSL, at twice the time, would accept a key or an ``R`` of small order. The tests
pin each rule, the missing cofactor included, so that an upgrade that changes one is noticed.

ECDSA P-256 with SHA-256 (FIPS 186-5): a compressed point, ``r || s`` of 32 bytes each, big endian,
``1 <= r < n`` and ``1 <= s <= n // 2``. Of the two values of ``s`` that ECDSA admits only the low one
is taken, so nobody can turn a signature into another one; signers that do not know the rule (WebCrypto)
replace a high ``s`` by ``n - s``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from nacl import bindings
from nacl.exceptions import BadSignatureError

from kt_es.errors import ConfigError, MalformedError

ED25519: Final = 1
ECDSA_P256: Final = 2

SEED_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
PUBLIC_KEY_SIZES: Final = {ED25519: 32, ECDSA_P256: 33}
MESSAGE_KINDS: Final = frozenset({"entry", "marker", "map-head", "config", "erasure"})

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # general categories Cc and Cs
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ECDSA_SHA256: Final = ec.ECDSA(hashes.SHA256())


def signed_message(kind: str, origin: str, payload: bytes) -> bytes:
    """``"kt-es/v1 " kind "\\n" origin "\\n" payload``: what a signature of ``kind`` is over.

    See docs/DESIGN.md, section 3.

    Raises ``MalformedError`` for an unknown kind and for an origin that is empty or has control
    characters: with a line break in it, two different (origin, payload) would be one message.
    """
    return _message_prefix(kind, origin) + payload


@lru_cache(maxsize=64)
def _message_prefix(kind: str, origin: str) -> bytes:
    if kind not in MESSAGE_KINDS:
        raise MalformedError("signed message", f"kind {kind!r} is unknown")
    if not origin or _CONTROL.search(origin):
        raise MalformedError("origin", "must not be empty or contain control characters")
    return f"kt-es/v1 {kind}\n{origin}\n".encode()


def verify(algorithm: int, public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) is by ``public_key`` (32 or 33 bytes) over ``message``.

    False for anything invalid: unknown algorithm, wrong lengths, a key that is no point. Never raises.
    """
    if len(signature) != SIGNATURE_SIZE or len(public_key) != PUBLIC_KEY_SIZES.get(algorithm):
        return False
    if algorithm == ED25519:
        return _verify_ed25519(public_key, message, signature)
    return _verify_p256(public_key, message, signature)


def is_point(algorithm: int, public_key: bytes) -> bool:
    """Whether ``public_key`` is one that a private key can have.

    Ed25519: encoded canonically, in the group of prime order, not the identity. P-256: a compressed point of
    the curve. Never raises.
    """
    if len(public_key) != PUBLIC_KEY_SIZES.get(algorithm):
        return False
    if algorithm == ED25519:
        return bindings.crypto_core_ed25519_is_valid_point(public_key)
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    except ValueError:
        return False
    return True


def _verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def _verify_p256(public_key: bytes, message: bytes, signature: bytes) -> bool:
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if not (1 <= r < _P256_ORDER and 1 <= s <= _P256_ORDER // 2):
        return False
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
        key.verify(encode_dss_signature(r, s), message, _ECDSA_SHA256)
    except (ValueError, InvalidSignature):
        return False
    return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A signing key. ``public`` is its public key: 32 bytes for Ed25519, 33 for P-256.

    Make one with ``from_seed`` or ``from_pem``; randomness is the caller's.
    """

    algorithm: int
    public: bytes
    _secret: bytes = field(repr=False, compare=False)

    @classmethod
    def from_seed(cls, algorithm: int, seed: bytes) -> PrivateKey:
        """The key of 32 secret bytes: the Ed25519 seed (RFC 8032, 5.1.5) or the P-256 scalar, big endian.

        Raises ``MalformedError`` for other lengths or algorithms, and for a scalar that is 0 or not
        below the order, which 32 random bytes are once in 2^32: then draw again (FIPS 186-5, A.2.2).
        """
        if len(seed) != SEED_SIZE:
            raise MalformedError("private key", f"seed has {len(seed)} bytes instead of {SEED_SIZE}")
        if algorithm == ED25519:
            return cls(ED25519, bindings.crypto_sign_seed_keypair(seed)[0], seed)
        if algorithm == ECDSA_P256:
            return cls(ECDSA_P256, _compressed(_p256_private(seed).public_key()), seed)
        raise MalformedError("private key", f"algorithm {algorithm} is unknown")

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over ``message``: always the same one for the same message.

        P-256 signs deterministically (RFC 6979) with a low ``s``.
        """
        if self.algorithm == ED25519:
            return bindings.crypto_sign(message, self._secret + self.public)[:SIGNATURE_SIZE]
        der = _p256_private(self._secret).sign(message, _deterministic_ecdsa())
        r, s = decode_dss_signature(der)
        return r.to_bytes(32, "big") + min(s, _P256_ORDER - s).to_bytes(32, "big")

    def to_pem(self) -> bytes:
        """The key as unencrypted PKCS#8 in PEM; whoever writes it to a file sees to its mode."""
        key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
        if self.algorithm == ED25519:
            key = ed25519.Ed25519PrivateKey.from_private_bytes(self._secret)
        else:
            key = _p256_private(self._secret)
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @classmethod
    def from_pem(cls, pem: bytes) -> PrivateKey:
        """The key in a PEM file: unencrypted PKCS#8 (or SEC 1 for P-256).

        Raises ``MalformedError`` if ``pem`` is no private key in PEM, ``ConfigError`` if it is one that
        kt-es cannot use: encrypted, or of another algorithm.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            raise ConfigError(
                "the private key is encrypted; remove its password with `openssl pkey`"
            ) from None
        except UnsupportedAlgorithm as error:
            raise ConfigError(f"the private key cannot be used: {error}") from None
        except (ValueError, InternalError):
            # InternalError: an Ed25519 seed of a wrong length, for which OpenSSL gives no reason.
            raise MalformedError("private key", "is not a readable private key in PEM format") from None
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return cls.from_seed(ED25519, key.private_bytes_raw())
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
            scalar = key.private_numbers().private_value
            return cls.from_seed(ECDSA_P256, scalar.to_bytes(SEED_SIZE, "big"))
        raise ConfigError("the private key is neither Ed25519 nor ECDSA P-256")


def _p256_private(scalar: bytes) -> ec.EllipticCurvePrivateKey:
    number = int.from_bytes(scalar, "big")
    if not 1 <= number < _P256_ORDER:
        raise MalformedError("private key", "the P-256 scalar is not between 1 and the order of the group")
    return ec.derive_private_key(number, ec.SECP256R1())


def _compressed(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def _deterministic_ecdsa() -> ec.ECDSA:
    try:
        return ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        raise ConfigError(
            "the installed OpenSSL cannot sign with P-256 deterministically; 3.2 or newer is needed"
        ) from None
