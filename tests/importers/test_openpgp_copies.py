"""Copies of one OpenPGP certificate become one with the packets of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from kt_es.importers.accounts import ImportPlan
from kt_es.importers.openpgp import read_openpgp

pysequoia = pytest.importorskip("pysequoia", reason="the optional extra openpgp is not installed")

from pysequoia import Tsk  # noqa: E402
from pysequoia.packet import Tag  # noqa: E402

from kt_es.importers.openpgp_keyring import merge_certificates  # noqa: E402
from tests.importers.plans import labels  # noqa: E402
from tests.reference.openpgp import generate, packet, packets, public, write  # noqa: E402


class TestCopies:
    """Copies of one certificate become one, whichever stands first and whatever label it is found by."""

    @pytest.fixture
    def key(self) -> Tsk:
        return generate("Alice <alice@example.org>", "Alice <old@example.org>")

    def read(self, tmp_path: Path, *data: bytes) -> ImportPlan:
        return read_openpgp(write(tmp_path, b"".join(data)))

    def test_the_revocation_of_either(self, tmp_path: Path, key: Tsk) -> None:
        cert = key.extract_certificate()
        parts = [bytes(each) for each in packets(bytes(cert))]
        revoked = parts[0] + bytes(cert.revoke(key.certifier())) + b"".join(parts[1:])
        for copies in ((bytes(cert), revoked), (revoked, bytes(cert)), (revoked, revoked)):
            plan = self.read(tmp_path, *copies)
            assert labels(plan) == ["alice@example.org", "old@example.org"]
            for account in plan.accounts:
                (one,) = account.keys
                assert sorted(map(bytes, packets(one.data))) == sorted(map(bytes, packets(revoked)))
            assert (plan.keys, plan.revoked) == (1, 1)

    def test_the_labels_of_each_have_all(self, tmp_path: Path, key: Tsk) -> None:
        whole = public(key)
        parts = packets(whole)
        places = [place for place, each in enumerate(parts) if each.tag == Tag.UserID]
        ends = [*places[1:], next(p for p, each in enumerate(parts) if each.tag == Tag.PublicSubkey)]
        head, tail = parts[: places[0]], parts[ends[-1] :]
        one, two = (
            b"".join(map(bytes, [*head, *parts[start:end], *tail]))
            for start, end in zip(places, ends, strict=True)
        )
        plan = self.read(tmp_path, one, two)
        assert labels(plan) == ["alice@example.org", "old@example.org"]
        assert [account.keys[0].data for account in plan.accounts] == [whole, whole]
        (bare,) = {merge_certificates(one, b"".join(map(bytes, head)))}
        assert bare == one

    def test_a_copy_that_is_damaged_or_secret_does_not_count(self, tmp_path: Path, key: Tsk) -> None:
        whole = public(key)
        plan = self.read(tmp_path, whole, bytes(key), whole + packet(38, b"?"), whole[:-1])
        assert [account.keys[0].data for account in plan.accounts] == [whole] * 2
        assert len(plan.skipped) == 3

    def test_copies_with_other_headers_are_the_same(self, tmp_path: Path, key: Tsk) -> None:
        whole = public(key)
        long = b"".join(packet(bytes(each)[0] & 63, each.body) for each in packets(whole))
        assert merge_certificates(whole, long) == whole
        assert merge_certificates(long, whole) == long
