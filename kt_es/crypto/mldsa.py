"""ML-DSA-44 (FIPS 204), by the library cryptography: signatures that a quantum computer does not forge.

Only cosignatures use it. Older versions of the library do not have it: then ``is_available`` is False, and
the other functions raise ``ImportError``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from kt_es.errors import ConfigError, MalformedError

PUBLIC_KEY_SIZE: Final = 1312
SIGNATURE_SIZE: Final = 2420
SEED_SIZE: Final = 32


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Return whether the installed library can sign and verify."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
    except ImportError:
        return False
    try:
        MLDSA44PrivateKey.from_seed_bytes(bytes(SEED_SIZE))
    except UnsupportedAlgorithm:
        # The OpenSSL below it does not have it.
        return False
    return True


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether ``signature`` (2420 bytes) over ``message`` is by ``public_key`` (1312 bytes).

    The context of FIPS 204 is empty. The result is False for all invalid input.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

    if len(public_key) != PUBLIC_KEY_SIZE or len(signature) != SIGNATURE_SIZE:
        return False
    try:
        MLDSA44PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (ValueError, InvalidSignature):
        return False
    return True


@dataclass(frozen=True, slots=True)
class MlDsaKey:
    """A signing key. ``public`` is its public key, 1312 bytes."""

    public: bytes
    _seed: bytes = field(repr=False, compare=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> MlDsaKey:
        """Return the key of a seed of 32 bytes. Raises ``MalformedError``."""
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

        if len(seed) != SEED_SIZE:
            raise MalformedError("ML-DSA-44 key", f"seed has {len(seed)} bytes instead of {SEED_SIZE}")
        return cls(MLDSA44PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw(), seed)

    @classmethod
    def from_pem(cls, data: bytes) -> MlDsaKey:
        """Read the key in a PEM file, unencrypted PKCS#8. Raises ``MalformedError`` and ``ConfigError``."""
        from cryptography.exceptions import InternalError, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
            raise MalformedError("ML-DSA-44 key", "is not a readable private key in PEM format") from None
        if not isinstance(key, MLDSA44PrivateKey):
            raise ConfigError("the private key is not of ML-DSA-44: use the one that was made here")
        return cls.from_seed(key.private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Return a signature of 2420 bytes. Two signatures of one message differ."""
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

        return MLDSA44PrivateKey.from_seed_bytes(self._seed).sign(message)

    def to_pem(self) -> bytes:
        """Return the key as unencrypted PKCS#8 in PEM. A caller must restrict the mode of the file."""
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = MLDSA44PrivateKey.from_seed_bytes(self._seed)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
