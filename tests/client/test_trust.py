"""What a client accepts and what it refuses: one fault each, and the step that it is found in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kt_es.client.trust import verify_lookup
from kt_es.client.trusted import Trusted, begin
from kt_es.errors import CannotTellError, EquivocationError, MalformedError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.entries import Mutation
from kt_es.formats.evidence import Evidence
from kt_es.formats.heads import SignedMapHead, heads_origin
from kt_es.formats.proofs import LookupAnswer
from kt_es.merkle.verify import MapProof
from tests import builders as b
from tests.client.lookups import OTHER, PINNED, check
from tests.reference import naive_log
from tests.reference.directory import Directory


def test_an_entry_and_its_profile_are_accepted(directory: Directory, trusted: Trusted) -> None:
    after, lookup = check(directory, trusted)
    assert (lookup.epoch, lookup.latest, lookup.absent, lookup.erased) == (5, True, False, False)
    assert lookup.entry == b.entry("alice", 2, b.mutation("alice").entry_hash)
    assert lookup.profile is not None
    assert [key.data for key in lookup.profile] == [b"alice 2"]
    assert lookup.timestamp == directory.heads[4].smh.head.timestamp
    head = directory.heads[4].smh.encode()
    assert after == replace(trusted, checkpoint=directory.heads_checkpoint(5), smh=head)
    assert any("consistent with the 2 heads" in line for line in lookup.checks)


def test_a_label_is_normalized(directory: Directory, trusted: Trusted) -> None:
    answer = directory.answer("alice@example.org")
    shown = directory.profile(answer)
    proof = directory.consistency(2, 5)
    _, lookup = verify_lookup(trusted, "Alice@Example.ORG", answer, shown, proof, now=directory.now)
    assert lookup.label == "alice@example.org"


@pytest.mark.parametrize("user", ["nobody", "nobody2", "nobody3", "nobody4"])
def test_absence_is_accepted(directory: Directory, trusted: Trusted, user: str) -> None:
    _, lookup = check(directory, trusted, user=user)
    assert lookup.absent
    assert lookup.profile is None
    assert not lookup.erased


def test_a_past_epoch_is_accepted_however_old(directory: Directory, trusted: Trusted) -> None:
    _, lookup = check(directory, trusted, epoch=3, now=directory.now + 10**9)
    assert (lookup.epoch, lookup.latest) == (3, False)
    assert lookup.entry == b.entry("alice")
    assert check(directory, trusted, user="bob", epoch=1)[1].absent


def test_without_a_checkpoint_trust_begins(directory: Directory) -> None:
    after, lookup = check(directory, begin(PINNED, directory.configs))
    assert after.size == 5
    assert any("trust begins" in line for line in lookup.checks)


def test_the_same_checkpoint_again_needs_no_proof(directory: Directory, trusted: Trusted) -> None:
    after, _ = check(directory, trusted)
    again, _ = check(directory, after)
    assert again == after


def test_a_label_that_no_directory_has_is_the_callers_fault(directory: Directory, trusted: Trusted) -> None:
    with pytest.raises(MalformedError, match="e-mail"):
        verify_lookup(trusted, "alice", directory.answer("x@example.org"), None, (), now=directory.now)


def signed_by_other(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    root = naive_log.root(directory.leaves(5))
    return replace(answer, heads_checkpoint=b.checkpoint(heads_origin(b.ORIGIN), 5, root, OTHER))


def other_log(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return replace(answer, heads_checkpoint=b.checkpoint(f"{b.ORIGIN}/mutations", 5))


def smaller_log(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return directory.answer(b.label_of("alice"), 1, 1)


def made_up_root(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return replace(answer, heads_checkpoint=b.checkpoint(heads_origin(b.ORIGIN), 5))


def older_head(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return directory.answer(b.label_of("alice"), 4, 5)


def head_of_other_place(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return replace(answer, smh_bytes=directory.answer(b.label_of("alice"), 4).smh_bytes)


def unsigned_head(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    head = SignedMapHead.decode(answer.smh_bytes)
    return replace(answer, smh_bytes=replace(head, signature=b"\1" * 64).encode())


def garbage_head(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return replace(answer, smh_bytes=b"\x80")


def unknown_config(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    head = b.map_head(5, config_hash=b"\7" * 32)
    return replace(answer, smh_bytes=b.signed_map_head(head).encode())


def vrf_of_other_label(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return replace(answer, vrf_proof=directory.answer(b.label_of("bob")).vrf_proof)


def map_of_other_epoch(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    past = directory.answer(b.label_of("alice"), 3)
    return replace(answer, map_proof=past.map_proof, mutation=past.mutation, opening=past.opening)


def absence_claimed(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return replace(answer, mutation=None, opening=None)


def leaf_left_out(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    proof = MapProof(answer.map_proof.siblings, None)
    return replace(answer, map_proof=proof, mutation=None, opening=None)


def entry_of_other_label(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    bob = directory.answer(b.label_of("bob"))
    return replace(answer, map_proof=bob.map_proof, mutation=bob.mutation, opening=bob.opening)


def other_opening(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return replace(answer, opening=b.opening("alice", 1))


def other_signatures(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    mutation = b.mutation("alice", 2, b.mutation("alice").entry_hash, signed_by=[OTHER])
    return replace(answer, mutation=mutation)


def bad_signature(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    assert answer.mutation is not None
    (good,) = answer.mutation.signatures
    bad = replace(good, value=b"\1" * 64)
    return replace(answer, mutation=replace(answer.mutation, signatures=(good, bad)))


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        (signed_by_other, "checkpoint"),
        (other_log, "checkpoint"),
        (smaller_log, "rollback"),
        (made_up_root, "consistency"),
        (older_head, "map head"),
        (head_of_other_place, "map head"),
        (unsigned_head, "map head"),
        (garbage_head, "map head"),
        (unknown_config, "config"),
        (vrf_of_other_label, "vrf"),
        (map_of_other_epoch, "map"),
        (absence_claimed, "map"),
        (leaf_left_out, "map"),
        (entry_of_other_label, "entry"),
        (other_opening, "commitment"),
        (other_signatures, "signatures"),
        (bad_signature, "signatures"),
    ],
)
def test_one_fault_is_refused_in_its_step(
    directory: Directory,
    trusted: Trusted,
    fault: Callable[[Directory, LookupAnswer], LookupAnswer],
    step: str,
) -> None:
    answer = fault(directory, directory.answer(b.label_of("alice")))
    shown = b.profile("alice", 2) if answer.opening else None
    with pytest.raises(VerificationError) as refused:
        verify_lookup(
            trusted, b.label_of("alice"), answer, shown, directory.consistency(2, 5), now=directory.now
        )
    assert refused.value.step == step
    assert not isinstance(refused.value, EquivocationError)


def test_a_false_vrf_proof_is_refused(directory: Directory, trusted: Trusted) -> None:
    answer = directory.answer(b.label_of("alice"))
    flipped = bytes([answer.vrf_proof[79] ^ 1])
    answer = replace(answer, vrf_proof=answer.vrf_proof[:79] + flipped)
    with pytest.raises(VerificationError, match=r"^vrf:"):
        check(directory, trusted, answer)


def test_another_profile_is_refused(directory: Directory, trusted: Trusted) -> None:
    with pytest.raises(VerificationError, match=r"^commitment:"):
        check(directory, trusted, profile=b.profile("alice", 1))


def test_a_profile_that_belongs_to_nothing_is_refused(directory: Directory, trusted: Trusted) -> None:
    with pytest.raises(VerificationError, match=r"^commitment:"):
        check(directory, trusted, user="nobody", profile=b.profile("alice", 2))


def test_a_profile_that_is_held_back_is_refused_where_it_was_asked_for(
    directory: Directory, trusted: Trusted
) -> None:
    answer, proof = directory.answer(b.label_of("alice")), directory.consistency(2, 5)
    _, lookup = verify_lookup(trusted, b.label_of("alice"), answer, None, proof, now=directory.now)
    assert lookup.profile is None
    assert not lookup.erased
    with pytest.raises(VerificationError, match=r"^commitment:"):
        verify_lookup(
            trusted, b.label_of("alice"), answer, None, proof, now=directory.now, profile_wanted=True
        )


@pytest.mark.parametrize("origin", [b.ORIGIN, b.OTHER_ORIGIN])
def test_a_head_in_the_log_still_has_to_be_signed(origin: str) -> None:
    directory = Directory()
    directory.advance()
    forged = b.signed_map_head(replace(directory.heads[0].smh.head, origin=origin), OTHER)
    directory.heads[0].smh = forged
    with pytest.raises(VerificationError, match=r"^map head:"):
        check(directory, begin(PINNED, directory.configs))


@pytest.mark.parametrize("consistency", [(), (b"\1" * 32,), (b"\1" * 31, b"\1" * 32)])
def test_a_false_consistency_proof_is_refused(
    directory: Directory, trusted: Trusted, consistency: tuple[bytes, ...]
) -> None:
    with pytest.raises(VerificationError, match=r"^consistency:"):
        check(directory, trusted, consistency=consistency)


def test_a_consistency_proof_from_nothing_is_refused(directory: Directory) -> None:
    with pytest.raises(VerificationError, match=r"^consistency:"):
        check(directory, begin(PINNED, directory.configs), consistency=directory.consistency(2, 5))


def test_two_logs_of_one_size_are_equivocation(directory: Directory) -> None:
    other = Directory()
    for _ in range(5):
        other.advance()
    after, _ = check(other, begin(PINNED, other.configs), user="nobody")
    with pytest.raises(EquivocationError, match="two different logs of 5 leaves") as found:
        check(directory, after)
    assert "two different logs" in convict(Evidence.decode(found.value.evidence or b""))


@pytest.mark.parametrize(
    ("late", "accepted"), [(120_000, True), (120_001, False), (-60_000, True), (-60_001, False)]
)
def test_freshness_is_max_interval_and_the_slack(
    directory: Directory, trusted: Trusted, late: int, accepted: bool
) -> None:
    now = directory.heads[4].smh.head.timestamp + late
    if accepted:
        check(directory, trusted, now=now)
    else:
        with pytest.raises(CannotTellError, match=r"^freshness:"):
            check(directory, trusted, now=now)


def test_the_epoch_asked_for_is_the_one_answered(directory: Directory, trusted: Trusted) -> None:
    with pytest.raises(VerificationError, match="is of epoch 3, not of epoch 2"):
        check(directory, trusted, directory.answer(b.label_of("alice"), 3), epoch=2)


def test_a_signature_by_a_key_that_is_not_the_entrys_is_refused_on_the_first_version() -> None:
    directory = Directory()
    made = b.mutation("alice")
    directory.put(made, b.opening("alice"), b.profile("alice"))
    directory.advance()
    extra = Mutation.sign(made.entry, b.ORIGIN, [b.private_key("alice"), OTHER])
    answer = replace(directory.answer(b.label_of("alice")), mutation=extra)
    with pytest.raises(VerificationError, match=r"^signatures:"):
        check(directory, begin(PINNED, directory.configs), answer)
