"""Ranges of epochs: an honest answer is accepted, and each fault of an answer is refused at its step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kt_es.client.ranges import VerifiedRange, open_range, verify_range
from kt_es.client.trusted import Pinned, Trusted, begin
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import EquivocationError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.entries import Mutation, Signature
from kt_es.formats.evidence import Evidence, EvidenceKind
from kt_es.formats.heads import SignedMapHead
from kt_es.formats.ranges import RangeAnswer
from kt_es.merkle.verify import MapProof
from tests import builders as b
from tests.reference.directory import Directory

ALICE = b.label_of("alice")
STRANGER = b.private_key("stranger")


@pytest.fixture
def directory() -> Directory:
    """bob in epoch 1, alice's version 1 in epoch 3, her version 2 in epoch 5; 8 epochs."""
    directory = Directory()
    for epoch in range(1, 9):
        if epoch == 1:
            directory.put_user("bob")
        if epoch in (3, 5):
            directory.put_user("alice", 1 if epoch == 3 else 2)
        directory.advance()
    return directory


def trusted_of(directory: Directory) -> Trusted:
    return begin(Pinned(b.ORIGIN, b.SIGNER_KEY), directory.configs)


def verified(directory: Directory, answer: RangeAnswer, first: int = 1, last: int = 8) -> VerifiedRange:
    _, seen = verify_range(trusted_of(directory), ALICE, answer, (), first=first, last=last)
    return seen


def standing(directory: Directory) -> Mutation:
    return directory.mutations[directory.entries[b.index("alice")]]


def test_every_epoch_is_seen(directory: Directory) -> None:
    seen = verified(directory, directory.range_answer(ALICE, 1, 8))
    assert [one.epoch for one in seen.epochs] == list(range(1, 9))
    versions = [None if one.mutation is None else one.mutation.entry.version for one in seen.epochs]
    assert versions == [None, None, 1, 1, 2, 2, 2, 2]
    assert [one.epoch for one in seen.epochs if one.changed] == [3, 5]
    assert all(one.authorized for one in seen.epochs)
    assert seen.index == b.index("alice")
    assert seen.epochs[2].timestamp == directory.heads[2].smh.head.timestamp


@pytest.mark.parametrize(("first", "last"), [(1, 1), (3, 3), (2, 7), (8, 8), (4, 8)])
def test_any_part_of_the_log_is_a_range(directory: Directory, first: int, last: int) -> None:
    answer = open_range(directory.range_answer(ALICE, first, last).encode())
    assert [one.epoch for one in verified(directory, answer, first, last).epochs] == [*range(first, last + 1)]


def test_an_answer_may_be_about_fewer_epochs(directory: Directory) -> None:
    assert verified(directory, directory.range_answer(ALICE, 2, 4), 2, 8).last == 4


def test_the_state_after_it_trusts_the_checkpoint(directory: Directory) -> None:
    before = replace(trusted_of(directory), checkpoint=directory.heads_checkpoint(5))
    answer = directory.range_answer(ALICE, 2, 4)
    after, _ = verify_range(before, ALICE, answer, directory.consistency(5, 8), first=2, last=4)
    assert after.size == 8


def test_a_rotation_within_the_range(directory: Directory) -> None:
    assert directory.rotate(b.private_key("successor")).succeeded
    for _ in range(3):
        directory.advance()
    assert verified(directory, directory.range_answer(ALICE, 6, 11), 6, 11).last == 11


def other_range(answer: RangeAnswer) -> RangeAnswer:
    return replace(answer, first=2)


def longer_than_asked(answer: RangeAnswer) -> RangeAnswer:
    return replace(answer, epochs=(*answer.epochs, answer.epochs[-1]))


def epoch_left_out(answer: RangeAnswer) -> RangeAnswer:
    return replace(answer, epochs=(*answer.epochs[:3], *answer.epochs[4:]))


def epochs_exchanged(answer: RangeAnswer) -> RangeAnswer:
    epochs = list(answer.epochs)
    epochs[5], epochs[6] = epochs[6], epochs[5]
    return replace(answer, epochs=tuple(epochs))


def heads_proof_cut(answer: RangeAnswer) -> RangeAnswer:
    return replace(answer, heads_proof=(bytes(32),))


def head_with_another_signature(answer: RangeAnswer) -> RangeAnswer:
    smh = SignedMapHead.decode(answer.epochs[1].smh_bytes)
    forged = replace(smh, signature=bytes(64)).encode()
    return with_epoch(answer, 1, smh_bytes=forged)


def unreadable_head(answer: RangeAnswer) -> RangeAnswer:
    return with_epoch(answer, 1, smh_bytes=b"\x80")


def checkpoint_changed(answer: RangeAnswer) -> RangeAnswer:
    return replace(answer, heads_checkpoint=answer.heads_checkpoint.replace("\n8\n", "\n9\n"))


def vrf_of_another(answer: RangeAnswer) -> RangeAnswer:
    return replace(answer, vrf_proof=b.VRF.prove(b.label_of("bob").encode())[1])


def vrf_changed(answer: RangeAnswer) -> RangeAnswer:
    return replace(answer, vrf_proof=bytes(80))


def map_proof_of_another_epoch(answer: RangeAnswer) -> RangeAnswer:
    return with_epoch(answer, 4, map_proof=answer.epochs[3].map_proof)


def entry_denied(answer: RangeAnswer) -> RangeAnswer:
    return with_epoch(answer, 7, mutation=None)


def older_entry_shown(answer: RangeAnswer) -> RangeAnswer:
    old = answer.mutations[0]
    siblings = answer.epochs[7].map_proof.siblings
    proof = MapProof(siblings, (old.entry.index, old.entry_hash))
    return with_epoch(answer, 7, mutation=0, map_proof=proof)


def entry_of_another_index(answer: RangeAnswer) -> RangeAnswer:
    return replace(answer, mutations=(answer.mutations[0], b.mutation("bob", 2, bytes(32))))


def unsigned_mutation(answer: RangeAnswer) -> RangeAnswer:
    return replace(answer, mutations=(replace(answer.mutations[0], signatures=()), answer.mutations[1]))


def mutation_with_a_bad_signature(answer: RangeAnswer) -> RangeAnswer:
    first = answer.mutations[0]
    bad = tuple(Signature(signature.key_id, bytes(64)) for signature in first.signatures)
    return replace(answer, mutations=(replace(first, signatures=bad), answer.mutations[1]))


def with_epoch(answer: RangeAnswer, at: int, **changes: object) -> RangeAnswer:
    epochs = list(answer.epochs)
    epochs[at] = replace(epochs[at], **changes)  # type: ignore[arg-type]
    return replace(answer, epochs=tuple(epochs))


@pytest.mark.parametrize(
    ("lie", "step"),
    [
        (other_range, "answer"),
        (longer_than_asked, "answer"),
        (epoch_left_out, "map head"),
        (epochs_exchanged, "map head"),
        (heads_proof_cut, "map head"),
        (head_with_another_signature, "map head"),
        (unreadable_head, "map head"),
        (checkpoint_changed, "checkpoint"),
        (vrf_of_another, "vrf"),
        (vrf_changed, "vrf"),
        (map_proof_of_another_epoch, "map"),
        (entry_denied, "map"),
        (older_entry_shown, "map"),
        (entry_of_another_index, "entry"),
        (unsigned_mutation, "signatures"),
        (mutation_with_a_bad_signature, "signatures"),
    ],
)
def test_an_answer_with_one_fault_is_refused(
    directory: Directory, lie: Callable[[RangeAnswer], RangeAnswer], step: str
) -> None:
    answer = directory.range_answer(ALICE, 1, 8)
    verified(directory, answer)
    with pytest.raises(VerificationError, match=rf"^{step}: ") as refused:
        verified(directory, lie(answer))
    assert not isinstance(refused.value, EquivocationError)


def test_a_shorter_log_is_a_rollback(directory: Directory) -> None:
    shorter = Directory()
    shorter.advance()
    before = replace(trusted_of(directory), checkpoint=directory.heads_checkpoint(8))
    with pytest.raises(VerificationError, match=r"^rollback: "):
        verify_range(before, ALICE, shorter.range_answer(ALICE, 1, 1), (), first=1, last=1)


def test_a_log_that_does_not_go_on_from_the_trusted_one(directory: Directory) -> None:
    before = replace(trusted_of(directory), checkpoint=directory.heads_checkpoint(5))
    answer = directory.range_answer(ALICE, 1, 8)
    with pytest.raises(VerificationError, match=r"^consistency: "):
        verify_range(before, ALICE, answer, directory.consistency(4, 8), first=1, last=8)


def lied(directory: Directory, *entries: Mutation | None) -> EquivocationError | VerificationError:
    """What becomes of a range in whose last epochs the directory has put ``entries`` into its map."""
    for mutation in entries:
        directory.forced[b.index("alice")] = mutation
        directory.advance()
    last = len(directory.heads)
    with pytest.raises(VerificationError) as refused:
        verified(directory, directory.range_answer(ALICE, 4, last), 4, last)
    return refused.value


def entry_of(version: int, previous: bytes | None, key: PrivateKey = STRANGER) -> Mutation:
    return b.mutation("alice", version, previous, keys=[key])


def test_an_entry_that_stood_for_one_epoch_convicts_the_directory(directory: Directory) -> None:
    honest = standing(directory)
    error = lied(directory, entry_of(3, honest.entry_hash), honest)
    assert "epoch 10 has version 2, though version 3 stood there in epoch 9" in str(error)
    convicted(error, EvidenceKind.ENTRIES)


def test_another_entry_of_the_same_version_convicts_the_directory(directory: Directory) -> None:
    """The count of versions stays the same: what is compared are entries."""
    error = lied(directory, entry_of(2, standing(directory).entry.previous))
    assert "another version 2" in str(error)
    convicted(error, EvidenceKind.ENTRIES)


def test_a_version_that_names_another_one_before_it_convicts_the_directory(directory: Directory) -> None:
    convicted(lied(directory, entry_of(3, bytes(32))), EvidenceKind.ENTRIES)


def test_an_account_that_vanishes_convicts_the_directory(directory: Directory) -> None:
    directory.put_user("carol")
    convicted(lied(directory, None), EvidenceKind.ENTRIES)


def test_a_version_that_is_left_out_is_refused(directory: Directory) -> None:
    error = lied(directory, entry_of(4, bytes(32)))
    assert str(error) == "history: epoch 9 begins with version 4 where 3 belongs"


def test_an_account_begins_with_version_1() -> None:
    directory = Directory()
    directory.put_user("bob")
    directory.forced[b.index("alice")] = entry_of(2, bytes(32))
    directory.advance()
    answer = directory.range_answer(ALICE, 1, 1)
    with pytest.raises(VerificationError, match="version 2 where 1 belongs"):
        verified(directory, answer, 1, 1)


def test_a_change_that_no_key_before_authorized_is_reported_as_such(directory: Directory) -> None:
    directory.forced[b.index("alice")] = entry_of(3, standing(directory).entry_hash)
    directory.advance()
    seen = verified(directory, directory.range_answer(ALICE, 4, 9), 4, 9)
    assert [(one.epoch, one.authorized) for one in seen.epochs if one.changed] == [(5, True), (9, False)]


def test_heads_that_are_not_in_order_convict_the_directory(directory: Directory) -> None:
    """A head of an earlier time in a log that is consistent all the same."""
    last = directory.heads[-1]
    early = replace(last.smh.head, timestamp=directory.heads[-2].smh.head.timestamp)
    directory.heads[-1] = replace(last, smh=SignedMapHead.sign(early, b.SIGNER))
    with pytest.raises(EquivocationError, match="is not later than") as refused:
        verified(directory, directory.range_answer(ALICE, 1, 8))
    convicted(refused.value, EvidenceKind.HEADS)


def test_a_head_under_an_older_config_than_the_one_before_convicts(directory: Directory) -> None:
    """The old key signs again after its successor was in force."""
    assert directory.rotate(b.private_key("successor")).succeeded
    for _ in range(3):
        directory.advance()
    last = directory.heads[-1]
    old = replace(last.smh.head, config_hash=directory.configs[0].config.hash)
    directory.heads[-1] = replace(last, smh=SignedMapHead.sign(old, b.SIGNER))
    with pytest.raises(EquivocationError, match="older config"):
        verified(directory, directory.range_answer(ALICE, 8, 11), 8, 11)


def convicted(error: VerificationError, kind: EvidenceKind) -> None:
    assert isinstance(error, EquivocationError)
    assert error.evidence is not None
    evidence = Evidence.decode(error.evidence)
    assert evidence.kind is kind
    assert convict(evidence)
