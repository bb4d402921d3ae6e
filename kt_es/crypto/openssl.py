"""ECDSA P-256 with SHA-256, and private keys in PEM files, by the library cryptography.

``signatures`` states the rules. Key files are unencrypted PKCS#8, or SEC 1 for P-256. This module is imported
when the first P-256 key is used or the first key file is read. A verifier of Ed25519 signatures, which are
the default of all directories, therefore does not need cryptography.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from kt_es.errors import ConfigError, MalformedError

_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ECDSA_SHA256: Final = ec.ECDSA(hashes.SHA256())


def is_point(public_key: bytes) -> bool:
    """Return whether ``public_key`` is a compressed point of the curve."""
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    except ValueError:
        return False
    return True


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether ``signature``, ``r || s``, is valid over ``message``. A high ``s`` is invalid."""
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if not (1 <= r < _ORDER and 1 <= s <= _ORDER // 2):
        return False
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
        key.verify(encode_dss_signature(r, s), message, _ECDSA_SHA256)
    except (ValueError, InvalidSignature):
        return False
    return True


def public_of(scalar: bytes) -> bytes:
    """Return the compressed public key of ``scalar``. Raises ``MalformedError``."""
    public = private_key(scalar).public_key()
    return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def sign(scalar: bytes, message: bytes) -> bytes:
    """Return the signature ``r || s`` over ``message``, deterministic (RFC 6979) and with a low ``s``."""
    r, s = decode_dss_signature(private_key(scalar).sign(message, _deterministic()))
    return r.to_bytes(32, "big") + min(s, _ORDER - s).to_bytes(32, "big")


def private_key(scalar: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key of ``scalar``, big endian. Raises ``MalformedError``."""
    number = int.from_bytes(scalar, "big")
    if not 1 <= number < _ORDER:
        raise MalformedError("private key", "the P-256 scalar is not between 1 and the order of the group")
    return ec.derive_private_key(number, ec.SECP256R1())


def _deterministic() -> ec.ECDSA:
    try:
        return ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        raise ConfigError(
            "the installed OpenSSL cannot sign with P-256 deterministically: install OpenSSL 3.2 or newer"
        ) from None


def to_pem(secret: bytes, *, is_p256: bool) -> bytes:
    """Return a private key of 32 secret bytes, P-256 or Ed25519, as unencrypted PKCS#8 in PEM."""
    key = private_key(secret) if is_p256 else ed25519.Ed25519PrivateKey.from_private_bytes(secret)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_signing_key(pem: bytes) -> tuple[bool, bytes]:
    """Return whether the key in ``pem`` is of P-256 and not of Ed25519, and its 32 secret bytes.

    Raises ``MalformedError`` or ``ConfigError``.
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
        return False, key.private_bytes_raw()
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return True, key.private_numbers().private_value.to_bytes(32, "big")
    raise ConfigError("the private key is neither Ed25519 nor ECDSA P-256: use a key of one of these kinds")


def read_ed25519_seed(pem: bytes, what: str) -> bytes:
    """Return the seed of the unencrypted Ed25519 key in ``pem``. Errors name ``what``."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        raise MalformedError(what, "is not a readable private key in PEM format") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise MalformedError(what, "must be an Ed25519 key")
    return key.private_bytes_raw()
