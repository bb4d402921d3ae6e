"""What a client accepts and what it refuses: one fault each, and the step that it is found in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kt_es.client.heads import merge
from kt_es.client.trust import Lookup, verify_lookup, verify_proof_file
from kt_es.client.trusted import Pinned, Trusted, begin, extend
from kt_es.errors import CannotTellError, EquivocationError, MalformedError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.codec import encode
from kt_es.formats.entries import Mutation
from kt_es.formats.evidence import Evidence
from kt_es.formats.heads import SignedMapHead, heads_origin
from kt_es.formats.proofs import LookupAnswer, ProofFile, encode_configs
from kt_es.merkle.verify import MapProof
from tests import builders as b
from tests.reference import naive_log
from tests.reference.directory import Directory

PINNED = Pinned(b.ORIGIN, b.SIGNER_KEY)


def built() -> Directory:
    """Five epochs: alice from the first, bob and twenty others from the second, alice again in the fourth."""
    directory = Directory()
    directory.put_user("alice")
    directory.advance()
    for user in ("bob", *(f"user{n}" for n in range(20))):
        directory.put_user(user)
    directory.advance()
    directory.advance()
    directory.put_user("alice", 2)
    directory.advance()
    directory.advance()
    return directory


@pytest.fixture(scope="module")
def directory() -> Directory:
    """Shared: no test changes it."""
    return built()


@pytest.fixture(scope="module")
def trusted(directory: Directory) -> Trusted:
    """A client that saw epoch 2 last."""
    return replace(begin(PINNED, directory.configs), checkpoint=directory.heads_checkpoint(2))


def check(
    directory: Directory,
    trusted: Trusted,
    answer: LookupAnswer | None = None,
    *,
    user: str = "alice",
    profile: bytes | None = None,
    consistency: tuple[bytes, ...] | None = None,
    now: int | None = None,
    epoch: int | None = None,
) -> tuple[Trusted, Lookup]:
    """``verify_lookup`` of an honest answer about ``user``, but for what is passed in."""
    answer = answer or directory.answer(b.label_of(user), epoch)
    if consistency is None:
        consistency = directory.consistency(trusted.size, len(directory.heads))
    return verify_lookup(
        trusted,
        b.label_of(user),
        answer,
        profile if profile is not None else directory.profile(answer),
        consistency,
        now=directory.now if now is None else now,
        epoch=epoch,
    )


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


OTHER = b.private_key("somebody else")


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


class TestRotation:
    """The signer's key changes after epoch 2, in whose records the change stands."""

    @pytest.fixture
    def rotated(self) -> Directory:
        directory = Directory()
        directory.put_user("alice")
        directory.advance()
        directory.rotate(OTHER)
        directory.advance()
        directory.advance()
        return directory

    def test_the_new_key_is_accepted_with_the_longer_chain(self, rotated: Directory) -> None:
        short = replace(begin(PINNED, rotated.configs[:1]), checkpoint=rotated.heads_checkpoint(2))
        with pytest.raises(VerificationError, match=r"^config:"):
            check(rotated, short)
        after, _ = check(rotated, extend(short, rotated.configs))
        assert after.in_force == 1
        assert after.size == 3

    def test_the_old_key_no_longer_speaks_for_newer_epochs(self, rotated: Directory) -> None:
        after, _ = check(rotated, begin(PINNED, rotated.configs))
        rotated.advance()
        honest = rotated.answer(b.label_of("alice"))
        root = naive_log.root(rotated.leaves(4))
        forged = replace(honest, heads_checkpoint=b.checkpoint(heads_origin(b.ORIGIN), 4, root, b.SIGNER))
        with pytest.raises(VerificationError, match=r"^checkpoint:"):
            check(rotated, after, forged)
        check(rotated, after, honest)

    def test_past_epochs_verify_under_the_key_of_their_time(self, rotated: Directory) -> None:
        after, lookup = check(rotated, begin(PINNED, rotated.configs), epoch=1)
        assert lookup.entry == b.entry("alice")
        # The checkpoint is signed by the new key: the old one has nothing more to say.
        assert after.in_force == 1

    def test_either_key_may_be_the_pinned_one(self, rotated: Directory) -> None:
        check(rotated, begin(Pinned(b.ORIGIN, b.public(OTHER)), rotated.configs))
        with pytest.raises(VerificationError, match=r"^config:"):
            begin(Pinned(b.ORIGIN, b.public(b.private_key("third"))), rotated.configs)

    def test_another_successor_of_the_same_config_is_equivocation(self, rotated: Directory) -> None:
        fork = Directory()
        fork.rotate(b.private_key("third"))
        with pytest.raises(EquivocationError, match="two different configs that follow") as found:
            extend(begin(PINNED, rotated.configs), fork.configs)
        assert "two different configs" in convict(Evidence.decode(found.value.evidence or b""))

    def test_another_first_config_by_the_same_key_is_equivocation(self, rotated: Directory) -> None:
        other = [b.signed_config(b.config(max_interval=61_000))]
        with pytest.raises(EquivocationError, match="two different configs that begin") as found:
            extend(begin(PINNED, rotated.configs), other)
        assert "begin" in convict(Evidence.decode(found.value.evidence or b""))

    def test_another_first_config_by_another_key_is_another_directory(self, rotated: Directory) -> None:
        other = [b.signed_config(b.config(signer_keys=[OTHER]), [OTHER])]
        with pytest.raises(VerificationError, match=r"^config:") as refused:
            extend(begin(PINNED, rotated.configs), other)
        assert not isinstance(refused.value, EquivocationError)

    def test_a_shorter_chain_changes_nothing(self, rotated: Directory) -> None:
        trusted = begin(PINNED, rotated.configs)
        assert extend(trusted, rotated.configs[:1]) == trusted

    @pytest.mark.parametrize("broken", ["order", "origin", "unsigned"])
    def test_a_broken_chain_is_refused(self, rotated: Directory, broken: str) -> None:
        first, second = rotated.configs
        chains = {
            "order": [second, first],
            "origin": [b.signed_config(b.config(b.OTHER_ORIGIN))],
            "unsigned": [first, b.signed_config(second.config, [b.SIGNER])],
        }
        with pytest.raises(VerificationError, match=r"^config:"):
            begin(PINNED, chains[broken])


class TestProofFile:
    def test_a_saved_proof_verifies_offline(self, directory: Directory, trusted: Trusted) -> None:
        _, lookup = check(directory, trusted)
        file = ProofFile.decode(lookup.proof.encode())
        again = verify_proof_file(file, PINNED)
        assert (again.entry, again.profile, again.head) == (lookup.entry, lookup.profile, lookup.head)

    def test_so_does_one_of_a_past_epoch_and_of_absence(self, directory: Directory, trusted: Trusted) -> None:
        _, past = check(directory, trusted, user="nobody", epoch=2)
        again = verify_proof_file(past.proof, PINNED)
        assert again.absent
        assert (again.epoch, again.latest) == (2, False)

    def test_so_does_one_of_the_last_epoch_asked_for_by_number_long_after(
        self, directory: Directory, trusted: Trusted
    ) -> None:
        _, lookup = check(directory, trusted, epoch=5, now=directory.now + 10**9)
        assert verify_proof_file(lookup.proof, PINNED).epoch == 5

    def test_it_has_to_have_been_fresh_when_it_was_saved(
        self, directory: Directory, trusted: Trusted
    ) -> None:
        _, lookup = check(directory, trusted)
        with pytest.raises(CannotTellError, match=r"^freshness:"):
            verify_proof_file(replace(lookup.proof, at=directory.now + 10**6), PINNED)

    def test_it_is_about_its_own_label_and_directory(self, directory: Directory, trusted: Trusted) -> None:
        _, lookup = check(directory, trusted)
        with pytest.raises(VerificationError, match=r"^vrf:"):
            verify_proof_file(replace(lookup.proof, label=b.label_of("bob")), PINNED)
        with pytest.raises(VerificationError, match=r"^config:"):
            verify_proof_file(lookup.proof, Pinned(b.OTHER_ORIGIN, b.SIGNER_KEY))
        with pytest.raises(VerificationError, match=r"^config:"):
            verify_proof_file(lookup.proof, Pinned(b.ORIGIN, b.public(OTHER)))


class TestTrusted:
    def test_it_is_stored_and_read_again(self, trusted: Trusted) -> None:
        assert Trusted.decode(trusted.encode()) == trusted
        with_head = replace(trusted, smh=b.signed_map_head().encode())
        assert Trusted.decode(with_head.encode()) == with_head
        begun = replace(trusted, checkpoint=None)
        assert Trusted.decode(begun.encode()) == begun

    def test_a_state_of_version_1_is_read_and_begins_at_its_key(self) -> None:
        directory = Directory()
        directory.advance()
        directory.rotate(OTHER)
        directory.advance()
        directory.advance()
        configs = encode_configs(directory.configs)
        for key, in_force in ((b.SIGNER, 0), (OTHER, 1)):
            fields = ["kt-es trusted v1", b.ORIGIN, b.public(key).fields(), configs, 0]
            trusted = Trusted.decode(encode([*fields, directory.heads_checkpoint(3)]))
            assert (trusted.in_force, trusted.smh, trusted.size) == (in_force, None, 3)
            with pytest.raises(MalformedError):
                Trusted.decode(encode([*fields, directory.heads_checkpoint(3), None]))

    def test_a_pin_is_passed_on_as_a_verifier_key(self) -> None:
        assert PINNED.vkey.startswith(f"{b.ORIGIN}/heads+")
        assert Pinned.parse(PINNED.vkey + "\n") == PINNED

    def test_two_states_reached_at_once_merge_into_the_later(
        self, directory: Directory, trusted: Trusted
    ) -> None:
        later = replace(trusted, checkpoint=directory.heads_checkpoint(5))
        proof = directory.consistency(2, 5)
        assert merge(trusted, later, proof) == merge(later, trusted, proof) == later
        with pytest.raises(VerificationError, match=r"^consistency:"):
            merge(trusted, later, proof[:-1])
