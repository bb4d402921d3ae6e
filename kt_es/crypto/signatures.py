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

P-256 and PEM need the library cryptography, and import it when the first such key comes. Where it is not
installed that raises ``ModuleNotFoundError``: a signature that cannot be checked is never called invalid.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from nacl import bindings
from nacl.exceptions import BadSignatureError

from kt_es.errors import MalformedError

ED25519: Final = 1
ECDSA_P256: Final = 2

SEED_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
PUBLIC_KEY_SIZES: Final = {ED25519: 32, ECDSA_P256: 33}
MESSAGE_KINDS: Final = frozenset({"entry", "marker", "map-head", "config", "erasure"})

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # general categories Cc and Cs


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
    from kt_es.crypto import p256

    return p256.verify(public_key, message, signature)


def is_point(algorithm: int, public_key: bytes) -> bool:
    """Whether ``public_key`` is one that a private key can have.

    Ed25519: encoded canonically, in the group of prime order, not the identity. P-256: a compressed point of
    the curve. Never raises.
    """
    if len(public_key) != PUBLIC_KEY_SIZES.get(algorithm):
        return False
    if algorithm == ED25519:
        return bindings.crypto_core_ed25519_is_valid_point(public_key)
    from kt_es.crypto import p256

    return p256.is_point(public_key)


def _verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
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
            from kt_es.crypto import p256

            return cls(ECDSA_P256, p256.public_of(seed), seed)
        raise MalformedError("private key", f"algorithm {algorithm} is unknown")

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over ``message``: always the same one for the same message.

        P-256 signs deterministically (RFC 6979) with a low ``s``.
        """
        if self.algorithm == ED25519:
            return bindings.crypto_sign(message, self._secret + self.public)[:SIGNATURE_SIZE]
        from kt_es.crypto import p256

        return p256.sign(self._secret, message)

    def to_pem(self) -> bytes:
        """The key as unencrypted PKCS#8 in PEM; whoever writes it to a file sees to its mode."""
        from kt_es.crypto import pem

        write = pem.ed25519_pem if self.algorithm == ED25519 else pem.p256_pem
        return write(self._secret)

    @classmethod
    def from_pem(cls, data: bytes) -> PrivateKey:
        """The key in a PEM file: unencrypted PKCS#8 (or SEC 1 for P-256).

        Raises ``MalformedError`` if ``data`` is no private key in PEM, ``ConfigError`` if it is one that
        kt-es cannot use: encrypted, or of another algorithm.
        """
        from kt_es.crypto import pem

        return cls.from_seed(*pem.read_signing_key(data))
