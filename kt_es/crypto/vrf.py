"""ECVRF-EDWARDS25519-SHA512-TAI (RFC 9381, section 5.5), with libsodium's group arithmetic.

The VRF maps a label to its index in the map. Each label has one ``beta``. Only the owner of the key can
compute ``beta``, and ``pi`` proves it to everybody. Names in capitals and section numbers are those of the
RFC.

This implementation is stricter than the RFC in one point: ``Y`` and ``Gamma`` must lie in the group of prime
order, because libsodium does not multiply other points. All proofs that ``prove`` returns satisfy this rule.
Only a key owner who wants several proofs of the same ``beta`` can make other ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from nacl import bindings, exceptions

from kt_es.errors import MalformedError, VerificationError

SEED_SIZE: Final = 32
PUBLIC_KEY_SIZE: Final = 32
PROOF_SIZE: Final = 80

# Section 5.5: suite_string, cLen, qLen, and the front separators of sections 5.2, 5.4.1.1 and 5.4.3.
_SUITE: Final = b"\x03"
_CHALLENGE_SIZE: Final = 16
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_ENCODE_TO_CURVE: Final = _SUITE + b"\x01"
_CHALLENGE: Final = _SUITE + b"\x02"
_PROOF_TO_HASH: Final = _SUITE + b"\x03"
_BACK: Final = b"\x00"

_FIELD_PRIME: Final = 2**255 - 19
_IDENTITY: Final = b"\x01" + bytes(31)


@dataclass(frozen=True, slots=True)
class VrfPrivateKey:
    """The secret key of the VRF of a directory. ``public`` is the 32-byte public key ``Y``."""

    public: bytes
    _scalar: bytes = field(repr=False, compare=False)
    _nonce_key: bytes = field(repr=False, compare=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> VrfPrivateKey:
        """Return the key of the 32 secret bytes ``SK`` (section 5.5, which refers to RFC 8032, 5.1.5).

        Raises ``MalformedError``.
        """
        if len(seed) != SEED_SIZE:
            raise MalformedError("VRF key", f"seed has {len(seed)} bytes instead of {SEED_SIZE}")
        hashed = hashlib.sha512(seed).digest()
        clamped = bytearray(hashed[:32])
        clamped[0] &= 248
        clamped[31] &= 127
        clamped[31] |= 64
        x = bindings.crypto_core_ed25519_scalar_reduce(bytes(clamped) + bytes(32))
        return cls(bindings.crypto_scalarmult_ed25519_base_noclamp(x), x, hashed[32:])

    @classmethod
    def from_pem(cls, data: bytes) -> VrfPrivateKey:
        """Return the key whose ``SK`` is the Ed25519 seed in a PEM file (unencrypted PKCS#8).

        Raises ``MalformedError``.
        """
        from kt_es.crypto import openssl

        return cls.from_seed(openssl.read_ed25519_seed(data, "VRF key"))

    def prove(self, alpha: bytes) -> tuple[bytes, bytes]:
        """Return ``beta`` (64 bytes) and ``pi`` (80 bytes) for ``alpha``. The result is deterministic.

        ECVRF_prove (section 5.1) and ECVRF_proof_to_hash (5.2).
        """
        x = self._scalar
        h = encode_to_curve(self.public, alpha)  # steps 2 and 3
        gamma = bindings.crypto_scalarmult_ed25519_noclamp(x, h)  # step 4
        k = bindings.crypto_core_ed25519_scalar_reduce(  # step 5: 5.4.2.2
            hashlib.sha512(self._nonce_key + h).digest()
        )
        k_b = bindings.crypto_scalarmult_ed25519_base_noclamp(k)
        k_h = bindings.crypto_scalarmult_ed25519_noclamp(k, h)
        c = _challenge(self.public, h, gamma, k_b, k_h)  # step 6
        c_x = bindings.crypto_core_ed25519_scalar_mul(_challenge_scalar(c), x)
        s = bindings.crypto_core_ed25519_scalar_add(k, c_x)  # step 7
        return _proof_to_hash(gamma), gamma + c + s  # step 8


def verify(public: bytes, alpha: bytes, pi: bytes) -> bytes:
    """Verify ``pi`` for ``alpha`` under the key ``public``, and return ``beta`` (64 bytes).

    ECVRF_verify (section 5.3) with key validation (5.4.5). All errors have the step "vrf".
    """
    if len(public) != PUBLIC_KEY_SIZE:
        raise VerificationError("vrf", f"the public key has {len(public)} bytes, not {PUBLIC_KEY_SIZE}")
    if len(pi) != PROOF_SIZE:
        raise VerificationError("vrf", f"the proof has {len(pi)} bytes instead of {PROOF_SIZE}")
    gamma, c, s = pi[:32], pi[32:48], pi[48:]  # steps 4 to 6: 5.4.4
    if int.from_bytes(s, "little") >= _ORDER:
        raise VerificationError("vrf", "the proof's s is not below the order of the group")
    # libsodium does not multiply by the scalar 0. An honest proof has such a scalar with probability 2^-128.
    if not any(c) or not any(s):
        raise VerificationError("vrf", "the proof has a scalar that is 0")
    c_y = _multiply(_challenge_scalar(c), public, "the public key")  # steps 1 to 3 as well
    c_gamma = _multiply(_challenge_scalar(c), gamma, "the proof's Gamma")
    h = encode_to_curve(public, alpha)  # step 7
    s_b = bindings.crypto_scalarmult_ed25519_base_noclamp(s)
    s_h = bindings.crypto_scalarmult_ed25519_noclamp(s, h)
    u = bindings.crypto_core_ed25519_sub(s_b, c_y)  # step 8
    v = bindings.crypto_core_ed25519_sub(s_h, c_gamma)  # step 9
    if _challenge(public, h, gamma, u, v) != c:  # steps 10 and 11
        raise VerificationError("vrf", "the proof is not for this label and key")
    return _proof_to_hash(gamma)


def index_of(beta: bytes) -> bytes:
    """Return the 32-byte index in the map: the first half of ``beta`` (docs/DESIGN.md, section 3)."""
    return beta[:32]


def encode_to_curve(salt: bytes, alpha: bytes) -> bytes:
    """Return ``H``, a point of prime order, 32 bytes.

    ECVRF_encode_to_curve_try_and_increment (section 5.4.1.1). ``salt`` is the encoded public key. Half of all
    candidates are points, so the probability that none of 256 candidates is a point is negligible.
    """
    for counter in range(256):
        candidate = hashlib.sha512(_ENCODE_TO_CURVE + salt + alpha + bytes([counter]) + _BACK).digest()[:32]
        if (point := candidate_point(candidate)) is not None:
            return point
    raise VerificationError("vrf", "no point of the curve belongs to this label")


def candidate_point(candidate: bytes) -> bytes | None:
    """Return ``cofactor * string_to_point(candidate)``, or None if the result is INVALID or the identity.

    string_to_point is RFC 8032, 5.1.3. It requires that ``y`` is below the prime, which the addition of
    libsodium does not check. It also forbids a sign bit for ``x = 0``. This rule applies only to points of
    small order, and their product with the cofactor is the identity.
    """
    if int.from_bytes(candidate, "little") & (2**255 - 1) >= _FIELD_PRIME:
        return None
    try:
        point = _times_cofactor(candidate)
    except exceptions.RuntimeError:
        return None
    return None if point == _IDENTITY else point


def _times_cofactor(point: bytes) -> bytes:
    # Doubling is used because libsodium does not multiply points outside the group of prime order.
    for _ in range(3):
        point = bindings.crypto_core_ed25519_add(point, point)
    return point


def _challenge(*points: bytes) -> bytes:
    """Return ``c``, 16 bytes: ECVRF_challenge_generation (section 5.4.3) of Y, H, Gamma, U and V."""
    return hashlib.sha512(_CHALLENGE + b"".join(points) + _BACK).digest()[:_CHALLENGE_SIZE]


def _challenge_scalar(c: bytes) -> bytes:
    return c + bytes(32 - _CHALLENGE_SIZE)


def _proof_to_hash(gamma: bytes) -> bytes:
    """ECVRF_proof_to_hash (section 5.2, steps 4 and 5)."""
    return hashlib.sha512(_PROOF_TO_HASH + _times_cofactor(gamma) + _BACK).digest()


def _multiply(scalar: bytes, point: bytes, what: str) -> bytes:
    """Return ``scalar * point``, if ``point`` is the canonical encoding of a point of prime order."""
    try:
        return bindings.crypto_scalarmult_ed25519_noclamp(scalar, point)
    except exceptions.RuntimeError:
        raise VerificationError("vrf", f"{what} is not a point of the group of prime order") from None
