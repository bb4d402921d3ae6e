"""edwards25519 as the textbook has it (RFC 8032, section 5.1): affine, slow, on integers.

Tests build with it what no library hands out (points of small and mixed order, lenient signatures) and
recompute what the VRF claims.
"""

from __future__ import annotations

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
_ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)

Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def decode(data: bytes) -> Point | None:
    """The point of 32 bytes, decoded leniently: ``y`` may exceed the prime, ``x = 0`` have a sign."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, (number & (2**255 - 1)) % P
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if (v * x * x - u) % P:
        x = x * _ROOT_OF_MINUS_ONE % P
    if (v * x * x - u) % P:
        return None
    return (x if x & 1 == sign else -x % P), y


def point(data: bytes) -> Point:
    decoded = decode(data)
    assert decoded is not None
    return decoded


def encode(p: Point) -> bytes:
    return (p[1] | (p[0] & 1) << 255).to_bytes(32, "little")


def add(p: Point, q: Point) -> Point:
    t = D * p[0] * q[0] * p[1] * q[1] % P
    x = (p[0] * q[1] + q[0] * p[1]) * pow(1 + t, -1, P)
    y = (p[1] * q[1] + p[0] * q[0]) * pow(1 - t, -1, P)
    return x % P, y % P


def negate(p: Point) -> Point:
    return -p[0] % P, p[1]


def times(n: int, p: Point) -> Point:
    result = IDENTITY
    while n:
        if n & 1:
            result = add(result, p)
        p, n = add(p, p), n >> 1
    return result


BASE = point(bytes.fromhex("58" + "66" * 31))


def _order_eight() -> Point:
    for y in range(2, 100):
        candidate = decode(y.to_bytes(32, "little"))
        if candidate and times(4, torsion := times(ORDER, candidate)) != IDENTITY:
            return torsion
    raise AssertionError


TORSION = _order_eight()
"""A generator of the eight points of small order."""


def small_order_encodings() -> list[bytes]:
    """All 14 strings that decode leniently to a point of small order: 8 canonical ones, 6 others."""
    ys = {times(n, TORSION)[1] for n in range(8)}
    numbers = ys | {y + P for y in ys if y + P < 2**255}
    strings = {(n | sign << 255).to_bytes(32, "little") for n in numbers for sign in (0, 1)}
    return sorted(strings)


def signature_hash(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % ORDER


def lenient_verify(public: bytes, message: bytes, signature: bytes, *, cofactored: bool = False) -> bool:
    """The equation of Ed25519 and nothing else: any encodings, any ``S``, any order."""
    key, r = decode(public), decode(signature[:32])
    if key is None or r is None:
        return False
    s = int.from_bytes(signature[32:], "little")
    k = signature_hash(signature[:32], public, message)
    difference = add(times(s, BASE), negate(add(r, times(k, key))))
    return times(8 if cofactored else 1, difference) == IDENTITY
