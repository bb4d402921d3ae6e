"""Signatures: published vectors, each rule of strictness, keys in PEM, and the signed message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from kt_es.crypto.signatures import (
    ECDSA_P256,
    ED25519,
    PrivateKey,
    signed_message,
    verify,
)
from kt_es.errors import ConfigError, MalformedError
from tests.reference import edwards25519 as curve

RFC8032 = json.loads((Path(__file__).parents[1] / "vectors" / "ed25519-rfc8032.json").read_text())

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P256_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1

# RFC 6979, A.2.5: P-256 with SHA-256; its ``s`` for "sample" is the high one.
RFC6979_KEY = bytes.fromhex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721")
RFC6979_X = "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
RFC6979 = {
    b"sample": (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    ),
    b"test": (
        0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
        0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
    ),
}

ALGORITHMS = pytest.mark.parametrize("algorithm", [ED25519, ECDSA_P256])
SEED = bytes(range(1, 33))
MESSAGE = b"message"


def key_of(algorithm: int) -> PrivateKey:
    return PrivateKey.from_seed(algorithm, SEED)


def scalar(number: int) -> bytes:
    return number.to_bytes(32, "little")


def r_and_s(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class TestBothAlgorithms:
    @ALGORITHMS
    def test_what_is_signed_verifies_and_signing_is_deterministic(self, algorithm: int) -> None:
        key = key_of(algorithm)
        signature = key.sign(MESSAGE)
        assert len(signature) == 64
        assert signature == key_of(algorithm).sign(MESSAGE)
        assert verify(algorithm, key.public, MESSAGE, signature)

    @ALGORITHMS
    def test_every_changed_bit_is_refused(self, algorithm: int) -> None:
        key = key_of(algorithm)
        parts = {"public": key.public, "message": MESSAGE, "signature": key.sign(MESSAGE)}
        for name, value in parts.items():
            for changed in every_bit_flipped(value):
                other = {**parts, name: changed}
                assert not verify(algorithm, other["public"], other["message"], other["signature"]), name

    @ALGORITHMS
    @given(data=st.data())
    def test_arbitrary_bytes_never_raise(self, algorithm: int, data: st.DataObject) -> None:
        size = {ED25519: 32, ECDSA_P256: 33}[algorithm]
        public = data.draw(st.binary(max_size=70) | st.binary(min_size=size, max_size=size))
        signature = data.draw(st.binary(max_size=70) | st.binary(min_size=64, max_size=64))
        assert not verify(algorithm, public, data.draw(st.binary(max_size=50)), signature)

    @pytest.mark.parametrize("algorithm", [-1, 0, 3, 255])
    def test_unknown_algorithms(self, algorithm: int) -> None:
        key = key_of(ED25519)
        assert not verify(algorithm, key.public, MESSAGE, key.sign(MESSAGE))
        with pytest.raises(MalformedError, match="algorithm"):
            PrivateKey.from_seed(algorithm, SEED)

    def test_a_key_of_one_algorithm_is_none_of_the_other(self) -> None:
        for algorithm, other in ((ED25519, ECDSA_P256), (ECDSA_P256, ED25519)):
            key = key_of(algorithm)
            assert not verify(other, key.public, MESSAGE, key.sign(MESSAGE))

    @ALGORITHMS
    @pytest.mark.parametrize("size", [0, 31, 33, 64])
    def test_seeds_have_32_bytes(self, algorithm: int, size: int) -> None:
        with pytest.raises(MalformedError, match="seed"):
            PrivateKey.from_seed(algorithm, b"\x01" * size)

    @ALGORITHMS
    def test_repr_hides_the_secret_and_keys_compare_by_their_public_part(self, algorithm: int) -> None:
        key = key_of(algorithm)
        shown = repr(key)
        assert repr(SEED) not in shown
        assert "secret" not in shown
        assert key == key_of(algorithm)
        assert key != PrivateKey.from_seed(algorithm, bytes([7]) * 32)
        with pytest.raises(AttributeError):
            key.public = b""  # type: ignore[misc]


class TestEd25519:
    @pytest.mark.parametrize("vector", RFC8032, ids=lambda vector: vector["test"])
    def test_rfc_8032_7_1(self, vector: dict[str, str]) -> None:
        message = bytes.fromhex(vector["message"])
        key = PrivateKey.from_seed(ED25519, bytes.fromhex(vector["seed"]))
        assert key.public.hex() == vector["public"]
        assert key.sign(message).hex() == vector["signature"]
        assert verify(ED25519, key.public, message, bytes.fromhex(vector["signature"]))

    def test_s_not_below_the_order(self) -> None:
        key = key_of(ED25519)
        signature = key.sign(MESSAGE)
        s = int.from_bytes(signature[32:], "little")
        for multiple in range(1, 15):
            high = signature[:32] + scalar(s + multiple * curve.ORDER)
            assert curve.lenient_verify(key.public, MESSAGE, high)
            assert not verify(ED25519, key.public, MESSAGE, high), multiple

    def test_small_order_encodings_are_complete(self) -> None:
        encodings = curve.small_order_encodings()
        assert len(encodings) == 14
        assert all(curve.times(8, curve.point(string)) == curve.IDENTITY for string in encodings)
        assert {string for string in encodings if curve.encode(curve.point(string)) == string} == {
            curve.encode(curve.times(n, curve.TORSION)) for n in range(8)
        }

    @pytest.mark.parametrize("public", curve.small_order_encodings(), ids=bytes.hex)
    def test_keys_of_small_order_in_any_encoding(self, public: bytes) -> None:
        """Such a key 'signs' every message whose hash happens to be a multiple of its order."""
        r = curve.encode(curve.times(5, curve.BASE))
        message, signature = first_message_that_a_lenient_verifier_takes(public, r + scalar(5))
        assert not verify(ED25519, public, message, signature)

    @pytest.mark.parametrize("r", curve.small_order_encodings(), ids=bytes.hex)
    def test_r_of_small_order_in_any_encoding(self, r: bytes) -> None:
        secret, public = 1234567, curve.encode(curve.times(1234567, curve.BASE))
        k = curve.signature_hash(r, public, MESSAGE)
        signature = r + scalar(k * secret % curve.ORDER)
        assert curve.lenient_verify(public, MESSAGE, signature, cofactored=True)
        assert not verify(ED25519, public, MESSAGE, signature)

    @pytest.mark.parametrize("both", curve.small_order_encodings(), ids=bytes.hex)
    def test_key_and_r_of_small_order_with_s_zero(self, both: bytes) -> None:
        assert curve.lenient_verify(both, MESSAGE, both + bytes(32), cofactored=True)
        assert not verify(ED25519, both, MESSAGE, both + bytes(32))

    @pytest.mark.parametrize("n", range(1, 8))
    def test_the_equation_has_no_cofactor(self, n: int) -> None:
        """R with a component of small order satisfies the cofactored equation alone: refused."""
        secret, public = 1234567, curve.encode(curve.times(1234567, curve.BASE))
        r = curve.encode(curve.add(curve.times(99, curve.BASE), curve.times(n, curve.TORSION)))
        k = curve.signature_hash(r, public, MESSAGE)
        signature = r + scalar((99 + k * secret) % curve.ORDER)
        assert curve.lenient_verify(public, MESSAGE, signature, cofactored=True)
        assert not verify(ED25519, public, MESSAGE, signature)

    def test_a_key_of_mixed_order_is_held_to_the_equation(self) -> None:
        """No rule forbids it (libsodium and OpenSSL agree): it verifies where the equation holds."""
        secret = 1234567
        public = curve.encode(curve.add(curve.times(secret, curve.BASE), curve.TORSION))
        r = curve.encode(curve.times(99, curve.BASE))
        seen = set()
        for n in range(40):
            message = bytes([n])
            k = curve.signature_hash(r, public, message)
            signature = r + scalar((99 + k * secret) % curve.ORDER)
            assert verify(ED25519, public, message, signature) == (k % 8 == 0)
            seen.add(k % 8 == 0)
        assert seen == {True, False}

    def test_keys_that_are_no_canonical_point(self) -> None:
        signature = key_of(ED25519).sign(MESSAGE)
        for y in range(19):
            for sign in (0, 1):
                public = (curve.P + y | sign << 255).to_bytes(32, "little")
                assert not verify(ED25519, public, MESSAGE, signature)


class TestP256:
    @pytest.mark.parametrize("message", RFC6979)
    def test_rfc_6979_a_2_5_with_the_low_s(self, message: bytes) -> None:
        key = PrivateKey.from_seed(ECDSA_P256, RFC6979_KEY)
        r, s = RFC6979[message]
        assert key.public.hex() == "03" + RFC6979_X
        assert key.sign(message) == r_and_s(r, min(s, P256_ORDER - s))
        assert verify(ECDSA_P256, key.public, message, r_and_s(r, min(s, P256_ORDER - s)))

    def test_the_high_s_is_refused(self) -> None:
        key = key_of(ECDSA_P256)
        for n in range(20):
            signature = key.sign(bytes([n]))
            s = int.from_bytes(signature[32:], "big")
            assert s <= P256_ORDER // 2
            assert not verify(
                ECDSA_P256, key.public, bytes([n]), signature[:32] + r_and_s(0, P256_ORDER - s)[32:]
            )

    def test_other_signers_verify_after_the_low_s_is_taken(self) -> None:
        key = ec.derive_private_key(77, ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        )
        for n in range(10):
            r, s = decode_dss_signature(key.sign(bytes([n]), ec.ECDSA(hashes.SHA256())))
            assert verify(ECDSA_P256, public, bytes([n]), r_and_s(r, min(s, P256_ORDER - s)))

    @pytest.mark.parametrize(
        ("r", "s"),
        [(0, 0), (0, 1), (1, 0), (P256_ORDER, 1), (1, P256_ORDER), (2**256 - 1, 2**256 - 1), (1, 1)],
    )
    def test_values_out_of_range(self, r: int, s: int) -> None:
        assert not verify(ECDSA_P256, key_of(ECDSA_P256).public, MESSAGE, r_and_s(r, s))

    @pytest.mark.parametrize(
        "public",
        [
            b"\x00" + bytes(32),
            b"\x00" * 33,
            b"\x04" + bytes.fromhex(RFC6979_X),
            b"\x06" + bytes.fromhex(RFC6979_X),
            b"\x02" + bytes(31) + b"\x01",
            b"\x02" + P256_PRIME.to_bytes(32, "big"),
            b"\x02" + (P256_PRIME + 5).to_bytes(32, "big"),
            b"\x03" + b"\xff" * 32,
        ],
        ids=bytes.hex,
    )
    def test_keys_that_are_no_compressed_point(self, public: bytes) -> None:
        assert not verify(ECDSA_P256, public, MESSAGE, key_of(ECDSA_P256).sign(MESSAGE))

    def test_longer_encodings_of_the_key(self) -> None:
        key = key_of(ECDSA_P256)
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.public)
        uncompressed = point.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        assert not verify(ECDSA_P256, uncompressed, MESSAGE, key.sign(MESSAGE))

    @pytest.mark.parametrize("number", [0, P256_ORDER, 2**256 - 1])
    def test_seeds_that_are_no_scalar(self, number: int) -> None:
        with pytest.raises(MalformedError, match="scalar"):
            PrivateKey.from_seed(ECDSA_P256, number.to_bytes(32, "big"))


class TestPem:
    @ALGORITHMS
    def test_round_trip(self, algorithm: int) -> None:
        key = key_of(algorithm)
        pem = key.to_pem()
        assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
        loaded = PrivateKey.from_pem(pem)
        assert loaded == key
        assert loaded.sign(MESSAGE) == key.sign(MESSAGE)

    def test_sec1(self) -> None:
        pem = ec.derive_private_key(int.from_bytes(SEED, "big"), ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        assert PrivateKey.from_pem(pem) == key_of(ECDSA_P256)

    @pytest.mark.parametrize("pem", [b"", b"\xff\x00", b"-----BEGIN PRIVATE KEY-----\n", b"hello\n"])
    def test_what_is_no_pem(self, pem: bytes) -> None:
        with pytest.raises(MalformedError, match="PEM"):
            PrivateKey.from_pem(pem)

    @ALGORITHMS
    def test_truncated_anywhere(self, algorithm: int) -> None:
        pem = key_of(algorithm).to_pem().rstrip()
        for size in range(len(pem)):
            with pytest.raises(MalformedError):
                PrivateKey.from_pem(pem[:size])

    def test_a_public_key(self) -> None:
        public = ec.derive_private_key(5, ec.SECP256R1()).public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(MalformedError):
            PrivateKey.from_pem(pem)

    def test_encrypted(self) -> None:
        pem = ec.derive_private_key(5, ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
        with pytest.raises(ConfigError, match="encrypted"):
            PrivateKey.from_pem(pem)

    def test_other_algorithms(self) -> None:
        for key in (
            ec.derive_private_key(5, ec.SECP384R1()),
            rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ):
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            with pytest.raises(ConfigError, match="neither"):
                PrivateKey.from_pem(pem)


class TestSignedMessage:
    @pytest.mark.parametrize("kind", ["entry", "marker", "map-head", "config"])
    def test_bytes(self, kind: str) -> None:
        expected = b"kt-es/v1 " + kind.encode() + b"\nkt.example.org/people\n\x00\xff"
        assert signed_message(kind, "kt.example.org/people", b"\x00\xff") == expected

    @pytest.mark.parametrize("kind", ["", "Entry", "entry\n", "receipt"])
    def test_unknown_kinds(self, kind: str) -> None:
        with pytest.raises(MalformedError, match="kind"):
            signed_message(kind, "kt.example.org/people", b"")

    @pytest.mark.parametrize("origin", ["", "a\nb", "a\n", "a\x00", "a\tb", "a\x7f", "a\x85b", "\ud800"])
    def test_origins_that_could_be_read_otherwise(self, origin: str) -> None:
        with pytest.raises(MalformedError, match="origin"):
            signed_message("entry", origin, b"")


def every_bit_flipped(value: bytes) -> Iterator[bytes]:
    for position in range(len(value)):
        for bit in range(8):
            yield value[:position] + bytes([value[position] ^ 1 << bit]) + value[position + 1 :]


def first_message_that_a_lenient_verifier_takes(public: bytes, signature: bytes) -> tuple[bytes, bytes]:
    for n in range(256):
        if curve.signature_hash(signature[:32], public, bytes([n])) % 8 == 0:
            assert curve.lenient_verify(public, bytes([n]), signature)
            return bytes([n]), signature
    raise AssertionError
