"""No byte of what a server sends can be changed without the client saying in which step it found it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.client.trust import STEPS, open_answer, verify_lookup, verify_proof_file
from kt_es.client.trusted import Pinned, Trusted, begin
from kt_es.errors import MalformedError, VerificationError
from kt_es.formats.proofs import ProofFile
from tests import builders as b
from tests.reference.directory import Directory

PINNED = Pinned(b.ORIGIN, b.SIGNER_KEY)


def built() -> Directory:
    directory = Directory()
    for users in ("alice bob carol", "dave", "erin frank grace heidi", "ivan", "judy", "mallory"):
        for user in users.split():
            directory.put_user(user)
        directory.advance()
    return directory


DIRECTORY = built()
TRUSTED: Trusted = replace(begin(PINNED, DIRECTORY.configs), checkpoint=DIRECTORY.heads_checkpoint(3))
CONSISTENCY = DIRECTORY.consistency(3, 6)


def judge(
    user: str, answer: bytes, profile: bytes | None, consistency: tuple[bytes, ...], epoch: int | None = None
) -> None:
    verify_lookup(
        TRUSTED,
        b.label_of(user),
        open_answer(answer),
        profile,
        consistency,
        now=DIRECTORY.now,
        epoch=epoch,
        profile_wanted=True,
    )


def refused(user: str, answer: bytes, profile: bytes | None, consistency: tuple[bytes, ...]) -> str:
    with pytest.raises(VerificationError) as refusal:
        judge(user, answer, profile, consistency)
    return refusal.value.step


def honest(user: str, epoch: int | None = None) -> tuple[bytes, bytes | None]:
    answer = DIRECTORY.answer(b.label_of(user), epoch)
    return answer.encode(), DIRECTORY.profile(answer)


def changes(good: bytes) -> Iterator[bytes]:
    """Each byte in turn, with its lowest bit and with all its bits changed."""
    for at, byte in enumerate(good):
        for mask in (1, 255):
            yield good[:at] + bytes([byte ^ mask]) + good[at + 1 :]


@pytest.mark.parametrize("user", ["alice", "ivan", "nobody", "nobody5"])
def test_every_byte_of_an_answer_counts(user: str) -> None:
    answer, profile = honest(user)
    judge(user, answer, profile, CONSISTENCY)
    steps = {refused(user, changed, profile, CONSISTENCY) for changed in changes(answer)}
    assert steps <= set(STEPS)
    # The change is found all along the way, not by one check before the others.
    assert {"answer", "checkpoint", "map head", "vrf", "map"} <= steps


def test_every_byte_of_a_profile_counts() -> None:
    answer, profile = honest("alice")
    assert profile is not None
    assert {refused("alice", answer, changed, CONSISTENCY) for changed in changes(profile)} == {"commitment"}


def test_every_byte_of_a_consistency_proof_counts() -> None:
    answer, profile = honest("alice")
    for number, value in enumerate(CONSISTENCY):
        for changed in changes(value):
            proof = (*CONSISTENCY[:number], changed, *CONSISTENCY[number + 1 :])
            assert refused("alice", answer, profile, proof) == "consistency"


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_cut_extended_and_mixed_answers_are_refused(data: st.DataObject) -> None:
    answer, profile = honest("alice")
    other, _ = honest(data.draw(st.sampled_from(["bob", "nobody"])), data.draw(st.integers(1, 6)))
    at = data.draw(st.integers(0, len(answer) - 1))
    changed = data.draw(
        st.sampled_from([answer[:at], answer[:at] + other[at:], answer + other[at:], other, other[:at]])
    )
    if changed != answer:
        assert refused("alice", changed, profile, CONSISTENCY) in STEPS


@given(st.binary(max_size=3000))
@settings(deadline=None)
def test_garbage_is_refused(garbage: bytes) -> None:
    assert refused("alice", garbage, None, CONSISTENCY) == "answer"


def test_every_byte_of_a_proof_file_counts_but_the_time_that_nobody_signs() -> None:
    answer = DIRECTORY.answer(b.label_of("alice"))
    file = ProofFile(
        b.ORIGIN,
        b.label_of("alice"),
        tuple(DIRECTORY.configs),
        answer,
        DIRECTORY.profile(answer),
        DIRECTORY.now,
    )
    good = file.encode()
    verify_proof_file(ProofFile.decode(good), PINNED)
    for changed in changes(good):
        try:
            read = ProofFile.decode(changed)
        except MalformedError:
            continue
        if replace(read, at=file.at) == file:
            continue
        with pytest.raises((VerificationError, MalformedError)):
            verify_proof_file(read, PINNED)
