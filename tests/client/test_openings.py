"""A profile is shown, proven to be erased, or withheld; and "withheld" is a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kt_es.client.trust import Lookup, verify_lookup, verify_proof_file
from kt_es.client.trusted import Pinned, begin
from kt_es.crypto.signatures import PrivateKey
from kt_es.errors import VerificationError
from kt_es.formats.entries import PublicKey, Signature
from kt_es.formats.erasures import Erasure, ErasureReason
from kt_es.formats.proofs import LookupAnswer, ProofFile
from kt_es.formats.queue import Item, ItemKind, Record, Verdict
from tests import builders as b
from tests.reference.clients import client_of
from tests.reference.directory import Directory

ALICE = b.label_of("alice")
KEY = b.private_key("alice")
PINNED = Pinned(b.ORIGIN, b.SIGNER_KEY)


def erased(key: PrivateKey = KEY, reason: ErasureReason = ErasureReason.OWNER) -> Directory:
    """alice's profile is erased in epoch 2 of 3."""
    directory = Directory()
    directory.put_user("alice")
    directory.put_user("bob")
    directory.advance()
    directory.erase("alice", key, reason)
    directory.advance()
    directory.advance()
    return directory


def look(directory: Directory, answer: LookupAnswer, profile: bytes | None = None) -> Lookup:
    trusted = begin(PINNED, directory.configs)
    return verify_lookup(trusted, ALICE, answer, profile, (), now=directory.now)[1]


@pytest.mark.parametrize(
    ("key", "reason", "said"),
    [
        (KEY, ErasureReason.OWNER, "by its owner"),
        (b.SIGNER, ErasureReason.LAW, "by the operator, reason: law"),
        (b.private_key("a later key"), ErasureReason.OWNER, "by a later key of the account"),
    ],
)
def test_an_erasure_is_proven_and_names_who_signed_it(
    key: PrivateKey, reason: ErasureReason, said: str
) -> None:
    directory = erased(key, reason)
    lookup = look(directory, directory.answer(ALICE))
    assert lookup.erased
    assert lookup.profile is None
    assert f"profile erased {said}: proven in the log of mutations, as of epoch 2" in lookup.checks


def test_the_answers_own_head_may_prove_it() -> None:
    directory = erased()
    answer = directory.answer(ALICE, 2, 2)
    assert answer.erasure is not None
    short = replace(answer, erasure=replace(answer.erasure, smh_bytes=None, heads_inclusion=()))
    trusted = begin(PINNED, directory.configs)
    _, lookup = verify_lookup(trusted, ALICE, short, None, (), now=directory.heads[1].smh.head.timestamp)
    assert lookup.erased


def test_an_entry_of_a_past_epoch_is_proven_erased_by_a_later_one() -> None:
    directory = erased()
    assert client_of(directory).lookup(ALICE, 1).erased


@pytest.mark.parametrize("wanted", [True, False])
def test_neither_opening_nor_erasure_is_withheld(wanted: bool) -> None:
    directory = erased()
    answer = replace(directory.answer(ALICE), erasure=None)
    with pytest.raises(VerificationError, match=r"^opening: the profile is withheld") as refused:
        verify_lookup(
            begin(PINNED, directory.configs),
            ALICE,
            answer,
            None,
            (),
            now=directory.now,
            profile_wanted=wanted,
        )
    assert refused.value.exit_code == 4


def recorded(directory: Directory, answer: LookupAnswer, change: Callable[[Record], Record]) -> LookupAnswer:
    assert answer.erasure is not None
    record = change(Record.decode(answer.erasure.record_bytes))
    return replace(answer, erasure=replace(answer.erasure, record_bytes=record.encode()))


def of_another_entry(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    assert answer.mutation is not None
    made = Erasure.sign(b.index("bob"), answer.mutation.entry_hash, ErasureReason.OWNER, b.ORIGIN, KEY)
    return with_erasure(directory, made)


def of_another_version(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return with_erasure(
        directory, Erasure.sign(b.index("alice"), b"\1" * 32, ErasureReason.OWNER, b.ORIGIN, KEY)
    )


def signed_for_another_directory(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    assert answer.mutation is not None
    held = answer.mutation.entry_hash
    return with_erasure(
        directory, Erasure.sign(b.index("alice"), held, ErasureReason.OWNER, b.OTHER_ORIGIN, KEY)
    )


def that_failed(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return with_erasure(directory, None, Verdict.FOREIGN_ERASURE)


def of_another_kind(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return with_erasure(directory, None, kind=ItemKind.MUTATION)


def with_erasure(
    directory: Directory,
    made: Erasure | None,
    verdict: Verdict = Verdict.ERASED,
    kind: ItemKind = ItemKind.ERASURE,
) -> LookupAnswer:
    """The answer of a directory whose log holds this record in place of the honest one."""
    fresh = erased()
    sequence = fresh.erasures[next(iter(fresh.erasures))][1]
    again = Directory()
    again.put_user("alice")
    again.put_user("bob")
    again.advance()
    again.erase("alice", KEY)
    honest = Record.decode(fresh.records[sequence])
    content = honest.item.content if made is None else made.encode()
    again.records[sequence] = Record(sequence, Item(sequence, 0, kind, content), verdict).encode()
    again.advance()
    again.advance()
    directory.heads = again.heads
    return again.answer(ALICE)


def not_in_the_log(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    return recorded(directory, answer, lambda record: replace(record, item=replace(record.item, revision=99)))


def under_a_head_of_another_log(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    assert answer.erasure is not None
    other = b.signed_map_head(b.map_head(2)).encode()
    return replace(answer, erasure=replace(answer.erasure, smh_bytes=other))


def without_a_record(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    assert answer.erasure is not None
    return replace(answer, erasure=replace(answer.erasure, record_bytes=b"\x80"))


def with_another_inclusion(directory: Directory, answer: LookupAnswer) -> LookupAnswer:
    assert answer.erasure is not None
    return replace(answer, erasure=replace(answer.erasure, inclusion=(b"\1" * 32,)))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (of_another_entry, "that of another entry"),
        (of_another_version, "that of another entry"),
        (signed_for_another_directory, "not signed by the key"),
        (that_failed, "the verdict is foreign-erasure"),
        (of_another_kind, "not that of an erasure"),
        (not_in_the_log, "does not stand in the log of mutations of epoch 2"),
        (under_a_head_of_another_log, "map head: is not the one of epoch 2"),
        (without_a_record, "record:"),
        (with_another_inclusion, "inclusion"),
    ],
)
def test_a_false_erasure_is_refused(
    fault: Callable[[Directory, LookupAnswer], LookupAnswer], said: str
) -> None:
    directory = erased()
    answer = fault(directory, directory.answer(ALICE))
    with pytest.raises(VerificationError, match=rf"^opening: the erasure is not proven: .*{said}"):
        look(directory, answer)


def test_a_profile_beside_an_erasure_is_refused() -> None:
    directory = erased()
    with pytest.raises(VerificationError, match=r"^commitment:"):
        look(directory, directory.answer(ALICE), b.profile("alice"))


class TestProofFile:
    def file(self, directory: Directory, user: str) -> ProofFile:
        return client_of(directory).lookup(b.label_of(user)).proof

    def test_an_erasure_verifies_offline(self) -> None:
        file = ProofFile.decode(self.file(erased(), "alice").encode())
        assert verify_proof_file(file, PINNED).erased

    def test_a_file_without_its_profile_is_reported_as_such(self) -> None:
        file = replace(self.file(erased(), "bob"), profile=None)
        with pytest.raises(VerificationError, match=r"^commitment: the profile is not in the file"):
            verify_proof_file(file, PINNED)

    def test_a_file_without_opening_and_erasure_withholds(self) -> None:
        file = self.file(erased(), "bob")
        file = replace(file, profile=None, answer=replace(file.answer, opening=None))
        with pytest.raises(VerificationError, match=r"^opening: the profile is withheld"):
            verify_proof_file(file, PINNED)


class TestSharedKeyIds:
    """Two keys of an entry may share the first 8 bytes of their hash; it takes an attacker 2^32 tries."""

    @pytest.fixture
    def shared(self, monkeypatch: pytest.MonkeyPatch) -> list[PrivateKey]:
        monkeypatch.setattr(PublicKey, "id", property(lambda key: b"the same"))
        return [b.private_key("one"), b.private_key("other")]

    @pytest.mark.parametrize("signer", [0, 1])
    def test_a_signature_is_valid_if_it_is_under_one_of_them(
        self, shared: list[PrivateKey], signer: int
    ) -> None:
        directory = Directory()
        made = b.mutation("alice", keys=shared, signed_by=[shared[signer]])
        assert directory.put(made, b.opening("alice"), b.profile("alice")) is Verdict.ACCEPTED
        directory.advance()
        lookup = look(directory, directory.answer(ALICE), b.profile("alice"))
        assert lookup.entry == made.entry

    def test_one_that_is_valid_under_neither_is_refused(self, shared: list[PrivateKey]) -> None:
        directory = Directory()
        first = b.mutation("alice", keys=shared)
        directory.put(first, b.opening("alice"), b.profile("alice"))
        directory.advance()
        second = b.next_mutation("alice", first, keys=shared)
        directory.put(second, b.opening("alice", 2), b.profile("alice", 2))
        directory.advance()
        bad = Signature(b"the same", b"\1" * 64)
        answer = directory.answer(ALICE)
        forged = replace(second, signatures=(*second.signatures, bad))
        with pytest.raises(VerificationError, match=r"^signatures:"):
            look(directory, replace(answer, mutation=forged), b.profile("alice", 2))
