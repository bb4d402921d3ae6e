"""A saved proof verifies offline, long after, and only as what it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kt_es.client.trust import verify_proof_file
from kt_es.client.trusted import Pinned, Trusted
from kt_es.errors import CannotTellError, VerificationError
from kt_es.formats.proofs import ProofFile
from tests import builders as b
from tests.client.lookups import OTHER, PINNED, check
from tests.reference.directory import Directory


def test_a_saved_proof_verifies_offline(directory: Directory, trusted: Trusted) -> None:
    _, lookup = check(directory, trusted)
    file = ProofFile.decode(lookup.proof.encode())
    again = verify_proof_file(file, PINNED)
    assert (again.entry, again.profile, again.head) == (lookup.entry, lookup.profile, lookup.head)


def test_so_does_one_of_a_past_epoch_and_of_absence(directory: Directory, trusted: Trusted) -> None:
    _, past = check(directory, trusted, user="nobody", epoch=2)
    again = verify_proof_file(past.proof, PINNED)
    assert again.absent
    assert (again.epoch, again.latest) == (2, False)


def test_so_does_one_of_the_last_epoch_asked_for_by_number_long_after(
    directory: Directory, trusted: Trusted
) -> None:
    _, lookup = check(directory, trusted, epoch=5, now=directory.now + 10**9)
    assert verify_proof_file(lookup.proof, PINNED).epoch == 5


def test_it_has_to_have_been_fresh_when_it_was_saved(directory: Directory, trusted: Trusted) -> None:
    _, lookup = check(directory, trusted)
    with pytest.raises(CannotTellError, match=r"^freshness:"):
        verify_proof_file(replace(lookup.proof, at=directory.now + 10**6), PINNED)


def test_it_is_about_its_own_label_and_directory(directory: Directory, trusted: Trusted) -> None:
    _, lookup = check(directory, trusted)
    with pytest.raises(VerificationError, match=r"^vrf:"):
        verify_proof_file(replace(lookup.proof, label=b.label_of("bob")), PINNED)
    with pytest.raises(VerificationError, match=r"^config:"):
        verify_proof_file(lookup.proof, Pinned(b.OTHER_ORIGIN, b.SIGNER_KEY))
    with pytest.raises(VerificationError, match=r"^config:"):
        verify_proof_file(lookup.proof, Pinned(b.ORIGIN, b.public(OTHER)))
