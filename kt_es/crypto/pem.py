"""Private keys in PEM files: unencrypted PKCS#8, or SEC 1 for P-256.

The library cryptography reads and writes the files. This module is imported only when a key file is read or
written, so a verifier does not need cryptography.
"""

from __future__ import annotations

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from kt_es.crypto import p256
from kt_es.crypto.signatures import ECDSA_P256, ED25519, SEED_SIZE
from kt_es.errors import ConfigError, MalformedError


def to_pem(algorithm: int, secret: bytes) -> bytes:
    """Return a private key of 32 secret bytes as unencrypted PKCS#8 in PEM."""
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
    if algorithm == ED25519:
        key = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
    else:
        key = p256.private_key(secret)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_signing_key(pem: bytes) -> tuple[int, bytes]:
    """Return the algorithm and the 32 secret bytes of the key in ``pem``, for ``PrivateKey.from_seed``.

    Raises:
        MalformedError: ``pem`` is not a private key in PEM.
        ConfigError: kt-es cannot use the key, because it is encrypted or of another algorithm.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigError("the private key is encrypted; remove its password with `openssl pkey`") from None
    except UnsupportedAlgorithm as error:
        raise ConfigError(f"the private key cannot be used ({error}): use an Ed25519 or P-256 key") from None
    except (ValueError, InternalError):
        # OpenSSL gives no reason for an Ed25519 seed of a wrong length, so cryptography raises InternalError.
        raise MalformedError("private key", "is not a readable private key in PEM format") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return ED25519, key.private_bytes_raw()
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return ECDSA_P256, key.private_numbers().private_value.to_bytes(SEED_SIZE, "big")
    raise ConfigError("the private key is neither Ed25519 nor ECDSA P-256: use a key of one of these kinds")


def read_ed25519_seed(pem: bytes, what: str) -> bytes:
    """Return the seed of the Ed25519 key in ``pem``.

    Raises:
        MalformedError: ``pem`` is not an unencrypted Ed25519 private key. The error names ``what``.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        raise MalformedError(what, "is not a readable private key in PEM format") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise MalformedError(what, "must be an Ed25519 key")
    return key.private_bytes_raw()
