"""The two signature algorithms of kt-es, on raw bytes, and the message that is signed.

Every reader repeats every verdict, also years later. So all readers must agree on which signatures are valid.

Ed25519 (RFC 8032, by libsodium): ``S`` is below the group order. Neither the key nor ``R`` has a small order
or a non-canonical encoding. The equation is ``S B = R + k A``, without the cofactor. libsodium enforces all
these rules. OpenSSL takes twice the time and accepts a key or an ``R`` of small order. The tests check each
rule, including the missing cofactor, so they fail if an upgrade changes one.

ECDSA P-256 with SHA-256 (FIPS 186-5): a key is a compressed point. A signature is ``r || s`` with 32 bytes
each, big endian, ``1 <= r < n`` and ``1 <= s <= n // 2``. ECDSA admits two values of ``s``, and only the low
one is valid here, so nobody can derive a second signature from a first one. Signers that do not apply this
rule (WebCrypto) must replace a high ``s`` by ``n - s``.

P-256 and PEM need the library cryptography, which is imported when the first such key is used. If it is not
installed, the import raises ``ModuleNotFoundError``, because a signature that cannot be checked must not be
reported as invalid.
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
    """Return the message that a signature of ``kind`` covers.

    The message is ``"kt-es/v1 " kind "\\n" origin "\\n" payload`` (docs/DESIGN.md, section 3). An origin
    with a line break is refused: two different pairs of origin and payload could give one message.
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
    """Return whether ``signature`` (64 bytes) is a signature over ``message`` by ``public_key``.

    The result is False for all invalid input: an unknown algorithm, a wrong length or a key that is not a
    point. A public key has 32 bytes (Ed25519) or 33 bytes (P-256).
    """
    if len(signature) != SIGNATURE_SIZE or len(public_key) != PUBLIC_KEY_SIZES.get(algorithm):
        return False
    if algorithm == ECDSA_P256:
        from kt_es.crypto import openssl

        return openssl.verify(public_key, message, signature)
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return False
    return True


def is_point(algorithm: int, public_key: bytes) -> bool:
    """Return whether a private key with this public key can exist.

    An Ed25519 key must be encoded canonically, lie in the group of prime order and not be the identity. A
    P-256 key must be a compressed point of the curve.
    """
    if len(public_key) != PUBLIC_KEY_SIZES.get(algorithm):
        return False
    if algorithm == ED25519:
        return bindings.crypto_core_ed25519_is_valid_point(public_key)
    from kt_es.crypto import openssl

    return openssl.is_point(public_key)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A signing key. ``public`` is its public key: 32 bytes for Ed25519, 33 for P-256.

    Create a key with ``from_seed`` or ``from_pem``. The caller provides the random bytes.
    """

    algorithm: int
    public: bytes
    _secret: bytes = field(repr=False, compare=False)

    @classmethod
    def from_seed(cls, algorithm: int, seed: bytes) -> PrivateKey:
        """Return the key of an Ed25519 seed (RFC 8032, 5.1.5) or of a P-256 scalar, 32 bytes big endian.

        Raises:
            MalformedError: The algorithm is unknown, the length is wrong, or the scalar is 0 or not below the
                order. For 32 random bytes the latter has a probability of 2^-32; the caller then draws again
                (FIPS 186-5, A.2.2).
        """
        if len(seed) != SEED_SIZE:
            raise MalformedError("private key", f"seed has {len(seed)} bytes instead of {SEED_SIZE}")
        if algorithm == ED25519:
            return cls(ED25519, bindings.crypto_sign_seed_keypair(seed)[0], seed)
        if algorithm == ECDSA_P256:
            from kt_es.crypto import openssl

            return cls(ECDSA_P256, openssl.public_of(seed), seed)
        raise MalformedError("private key", f"algorithm {algorithm} is unknown: use Ed25519 (1) or P-256 (2)")

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over ``message``. The same message always has the same signature."""
        if self.algorithm == ED25519:
            return bindings.crypto_sign(message, self._secret + self.public)[:SIGNATURE_SIZE]
        from kt_es.crypto import openssl

        return openssl.sign(self._secret, message)

    def to_pem(self) -> bytes:
        """Return the key as unencrypted PKCS#8 in PEM. A caller must restrict the mode of the file."""
        from kt_es.crypto import openssl

        return openssl.to_pem(self._secret, is_p256=self.algorithm == ECDSA_P256)

    @classmethod
    def from_pem(cls, data: bytes) -> PrivateKey:
        """Read the key in a PEM file: unencrypted PKCS#8 (or SEC 1 for P-256).

        Raises ``MalformedError`` or ``ConfigError``.
        """
        from kt_es.crypto import openssl

        is_p256, secret = openssl.read_signing_key(data)
        return cls.from_seed(ECDSA_P256 if is_p256 else ED25519, secret)
