"""The VRF: RFC 9381's examples with their intermediates, refusal of every change, and uniqueness."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.crypto import vrf
from kt_es.errors import MalformedError, VerificationError
from tests.reference import edwards25519 as curve

EXAMPLES = json.loads(
    (Path(__file__).parents[1] / "vectors" / "ecvrf-edwards25519-sha512-tai.json").read_text()
)
EACH_EXAMPLE = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["example"]))

SEED = bytes(range(32))
KEY = vrf.VrfPrivateKey.from_seed(SEED)
ALPHA = b"alice@example.org"
BETA, PI = KEY.prove(ALPHA)


def unhex(example: dict[str, str], *names: str) -> list[bytes]:
    return [bytes.fromhex(example[name]) for name in names]


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def secret_scalar(seed: bytes) -> int:
    """RFC 8032, 5.1.5."""
    return number(hashlib.sha512(seed).digest()[:32]) & (2**254 - 8) | 2**254


def challenge(*points: curve.Point) -> bytes:
    """RFC 9381, 5.4.3."""
    strings = b"".join(curve.encode(point) for point in points)
    return hashlib.sha512(b"\x03\x02" + strings + b"\x00").digest()[:16]


def prove_with(nonce: int, twist: curve.Point = curve.IDENTITY) -> bytes:
    """A proof for ALPHA by someone who knows the key and chooses nonce and Gamma (plus ``twist``) freely."""
    x, y = secret_scalar(SEED), curve.point(KEY.public)
    h = curve.point(vrf.encode_to_curve(KEY.public, ALPHA))
    gamma = curve.add(curve.times(x, h), twist)
    c = challenge(y, h, gamma, curve.times(nonce, curve.BASE), curve.times(nonce, h))
    s = (nonce + number(c) * x) % curve.ORDER
    return curve.encode(gamma) + c + s.to_bytes(32, "little")


def refused(public: bytes, alpha: bytes, pi: bytes) -> str:
    with pytest.raises(VerificationError) as caught:
        vrf.verify(public, alpha, pi)
    assert caught.value.step == "vrf"
    return caught.value.problem


class TestExamplesOfRfc9381:
    @EACH_EXAMPLE
    def test_key_proof_and_output(self, example: dict[str, str]) -> None:
        sk, pk, alpha, pi, beta = unhex(example, "sk", "pk", "alpha", "pi", "beta")
        key = vrf.VrfPrivateKey.from_seed(sk)
        assert key.public == pk
        assert key.prove(alpha) == (beta, pi)
        assert vrf.verify(pk, alpha, pi) == beta

    @EACH_EXAMPLE
    def test_encode_to_curve(self, example: dict[str, str]) -> None:
        pk, alpha, h = unhex(example, "pk", "alpha", "H")
        assert vrf.encode_to_curve(pk, alpha) == h

    @EACH_EXAMPLE
    def test_intermediates_by_textbook_arithmetic(self, example: dict[str, str]) -> None:
        """The proof that we make leads back to the RFC's x, k, U and V, without libsodium."""
        sk, pk, alpha, x, k_string, k = unhex(example, "sk", "pk", "alpha", "x", "k_string", "k")
        _, pi = vrf.VrfPrivateKey.from_seed(sk).prove(alpha)
        h = curve.point(vrf.encode_to_curve(pk, alpha))
        gamma, c, s = curve.point(pi[:32]), number(pi[32:48]), number(pi[48:])
        u = curve.add(curve.times(s, curve.BASE), curve.negate(curve.times(c, curve.point(pk))))
        v = curve.add(curve.times(s, h), curve.negate(curve.times(c, gamma)))
        assert [curve.encode(u), curve.encode(v)] == unhex(example, "U", "V")
        assert secret_scalar(sk) == number(x)
        assert number(k_string) % curve.ORDER == number(k) == (s - c * number(x)) % curve.ORDER
        assert curve.encode(curve.times(number(k), curve.BASE)).hex() == example["U"]


class TestRefusal:
    def test_every_changed_bit_of_the_proof(self) -> None:
        for position in range(len(PI) * 8):
            changed = (number(PI) ^ 1 << position).to_bytes(80, "little")
            refused(KEY.public, ALPHA, changed)

    def test_every_changed_bit_of_the_key(self) -> None:
        for position in range(len(KEY.public) * 8):
            refused((number(KEY.public) ^ 1 << position).to_bytes(32, "little"), ALPHA, PI)

    def test_every_changed_bit_of_the_label(self) -> None:
        for position in range(len(ALPHA) * 8):
            changed = (number(ALPHA) ^ 1 << position).to_bytes(len(ALPHA), "little")
            refused(KEY.public, changed, PI)

    @pytest.mark.parametrize("alpha", [b"", ALPHA[:-1], ALPHA + b"\x00", b"\x00" + ALPHA])
    def test_shorter_and_longer_labels(self, alpha: bytes) -> None:
        refused(KEY.public, alpha, PI)

    @pytest.mark.parametrize("pi", [b"", PI[:-1], PI + b"\x00"])
    def test_proofs_of_another_length(self, pi: bytes) -> None:
        assert "instead of 80" in refused(KEY.public, ALPHA, pi)

    @pytest.mark.parametrize("public", [b"", KEY.public[:-1], KEY.public + b"\x00"])
    def test_keys_of_another_length(self, public: bytes) -> None:
        assert "public key" in refused(public, ALPHA, PI)

    @pytest.mark.parametrize("seed", [b"", SEED[:-1], SEED + b"\x00"])
    def test_seeds_of_another_length(self, seed: bytes) -> None:
        with pytest.raises(MalformedError, match="seed"):
            vrf.VrfPrivateKey.from_seed(seed)

    def test_s_not_below_the_order(self) -> None:
        for multiple in range(1, 15):
            s = number(PI[48:]) + multiple * curve.ORDER
            assert "order" in refused(KEY.public, ALPHA, PI[:48] + s.to_bytes(32, "little"))

    def test_scalars_of_zero(self) -> None:
        assert "0" in refused(KEY.public, ALPHA, PI[:32] + bytes(16) + PI[48:])
        assert "0" in refused(KEY.public, ALPHA, PI[:48] + bytes(32))

    @pytest.mark.parametrize("point", curve.small_order_encodings(), ids=bytes.hex)
    def test_points_of_small_order(self, point: bytes) -> None:
        assert "public key" in refused(point, ALPHA, PI)
        assert "Gamma" in refused(KEY.public, ALPHA, point + PI[32:])

    @pytest.mark.parametrize("n", range(1, 8))
    def test_points_of_mixed_order(self, n: int) -> None:
        """n = 4 is what libsodium took for a point of prime order before CVE-2025-69277 was fixed."""
        torsion = curve.times(n, curve.TORSION)
        public = curve.encode(curve.add(curve.point(KEY.public), torsion))
        gamma = curve.encode(curve.add(curve.point(PI[:32]), torsion))
        assert "public key" in refused(public, ALPHA, PI)
        assert "Gamma" in refused(KEY.public, ALPHA, gamma + PI[32:])

    def test_points_that_are_not_canonical(self) -> None:
        for y in range(19):
            point = (curve.P + y).to_bytes(32, "little")
            assert "public key" in refused(point, ALPHA, PI)
            assert "Gamma" in refused(KEY.public, ALPHA, point + PI[32:])

    @given(public=st.binary(min_size=32, max_size=32), pi=st.binary(min_size=80, max_size=80))
    @settings(deadline=None, max_examples=50)
    def test_arbitrary_bytes(self, public: bytes, pi: bytes) -> None:
        refused(public, ALPHA, pi)
        refused(KEY.public, ALPHA, pi)


class TestUniqueness:
    def test_another_proof_of_the_key_owner_has_the_same_output(self) -> None:
        """Proofs are not unique, what they prove is: the nonce is free, Gamma is not."""
        for nonce in (1, 2, 12345):
            pi = prove_with(nonce)
            assert pi != PI
            assert vrf.verify(KEY.public, ALPHA, pi) == BETA

    @pytest.mark.parametrize("n", range(1, 8))
    def test_gamma_with_a_component_of_small_order(self, n: int) -> None:
        """With a challenge that is a multiple of 8, such a proof would satisfy the RFC's equations."""
        refused(KEY.public, ALPHA, prove_with(12345, curve.times(n, curve.TORSION)))

    @pytest.mark.parametrize("multiple", [2, 3, curve.ORDER - 1])
    def test_another_gamma_of_prime_order(self, multiple: int) -> None:
        h = curve.point(vrf.encode_to_curve(KEY.public, ALPHA))
        refused(KEY.public, ALPHA, prove_with(12345, curve.times(multiple, h)))

    @given(
        alpha=st.binary(max_size=255), other=st.binary(max_size=255), seed=st.binary(min_size=32, max_size=32)
    )
    @settings(deadline=None, max_examples=40)
    def test_outputs_depend_on_label_and_key(self, alpha: bytes, other: bytes, seed: bytes) -> None:
        beta, pi = KEY.prove(alpha)
        assert (beta, pi) == KEY.prove(alpha)
        assert vrf.verify(KEY.public, alpha, pi) == beta
        if other != alpha:
            assert KEY.prove(other)[0] != beta
            refused(KEY.public, other, pi)
        key = vrf.VrfPrivateKey.from_seed(seed)
        if key != KEY:
            assert key.prove(alpha)[0] != beta
            refused(key.public, alpha, pi)


class TestCandidates:
    """RFC 9381, 5.4.1.1: what hash outputs are taken for points, and as which."""

    def test_the_cofactor_is_cleared_of_any_point_of_the_curve(self) -> None:
        taken = 0
        for n in range(40):
            candidate = hashlib.sha256(bytes([n])).digest()
            if (decoded := curve.decode(candidate)) is None:
                assert vrf.candidate_point(candidate) is None
                continue
            taken += 1
            cleared = curve.times(8, decoded)
            assert vrf.candidate_point(candidate) == curve.encode(cleared)
            assert curve.times(curve.ORDER, cleared) == curve.IDENTITY
        assert 10 <= taken <= 30

    @pytest.mark.parametrize("candidate", curve.small_order_encodings(), ids=bytes.hex)
    def test_small_order_becomes_the_identity_and_is_passed_over(self, candidate: bytes) -> None:
        assert vrf.candidate_point(candidate) is None

    def test_y_not_below_the_prime_is_no_point(self) -> None:
        on_the_curve = 0
        for y in range(19):
            for sign in (0, 1):
                candidate = (curve.P + y | sign << 255).to_bytes(32, "little")
                on_the_curve += curve.decode(candidate) is not None
                assert vrf.candidate_point(candidate) is None
        assert on_the_curve > 4


def test_the_index_is_the_first_half_of_the_output() -> None:
    assert vrf.index_of(BETA) == BETA[:32]
    assert len(BETA) == 64


def test_repr_hides_the_secret() -> None:
    assert repr(KEY) == f"VrfPrivateKey(public={KEY.public!r})"
