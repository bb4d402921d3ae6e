"""Batch lookups: each label is what a single lookup shows, and each fault of an answer is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from kt_es.client.batches import open_batch, verify_batch
from kt_es.client.entries import KIND
from kt_es.client.offline import verify_proof
from kt_es.client.state import FileStateStore, MemoryStateStore
from kt_es.client.trust import Lookup
from kt_es.client.trusted import Pinned, Trusted, begin
from kt_es.errors import (
    EquivocationError,
    LabelError,
    MalformedError,
    RefusedError,
    StaleHeadError,
    VerificationError,
)
from kt_es.formats.batches import BatchAnswer, LabelAnswer
from kt_es.formats.entries import Signature
from kt_es.formats.heads import SignedMapHead
from kt_es.merkle.multiproof import MultiProof
from tests import builders as b
from tests.client.lookups import PINNED, built
from tests.reference.clients import changed, client_of
from tests.reference.directory import Directory

ALICE, BOB, NOBODY = (b.label_of(user) for user in ("alice", "bob", "nobody"))
LABELS = [NOBODY, ALICE, BOB, *(b.label_of(f"user{n}") for n in range(20))]


@pytest.fixture(scope="module")
def directory() -> Directory:
    return built()


def trusted_of(directory: Directory) -> Trusted:
    return begin(Pinned(b.ORIGIN, b.SIGNER_KEY), directory.configs)


def verified(
    directory: Directory, answer: BatchAnswer, labels: list[str] = LABELS, **options: Any
) -> list[Lookup]:
    """``verify_batch`` with the true profiles of ``labels``, but for what is passed in."""
    epoch = options.setdefault("epoch", None)
    true = {label: directory.profile(directory.answer(label, epoch)) for label in labels}
    profiles = options.pop("profiles", [true[label] for label in labels[: len(answer.answers)]])
    wanted = {"now": directory.now, "slack": 0, "profile_wanted": True, "recall": lambda _: None, **options}
    _, found = verify_batch(trusted_of(directory), labels, answer, profiles, (), **wanted)
    return found


@pytest.mark.parametrize("epoch", [None, 2, 5])
def test_each_label_is_what_a_single_lookup_shows(directory: Directory, epoch: int | None) -> None:
    found = verified(directory, directory.batch_answer(LABELS, epoch), epoch=epoch)
    with client_of(directory) as client:
        alone = [client.lookup(label, epoch) for label in LABELS]
    for one, single in zip(found, alone, strict=True):
        same = replace(single, checks=one.checks, proof=replace(single.proof, at=one.proof.at))
        assert one == replace(same, sight=replace(single.sight, at=one.sight.at))
        assert one.checks[-1] == single.checks[-1]
        assert verify_proof(one.proof, PINNED, None, vouched=True).entry == single.entry


def test_an_answer_may_be_about_fewer_labels(directory: Directory) -> None:
    assert [one.label for one in verified(directory, directory.batch_answer(LABELS[:5]))] == LABELS[:5]


# One fault of an answer about all labels. The order of ``LABELS`` is NOBODY, ALICE, BOB and the others.


def part(answer: BatchAnswer, at: int, **changes: object) -> BatchAnswer:
    parts = list(answer.answers)
    parts[at] = replace(parts[at], **changes)  # type: ignore[arg-type]
    return replace(answer, answers=tuple(parts))


def exchanged(answer: BatchAnswer) -> BatchAnswer:
    first, second, third, *others = answer.answers
    return replace(answer, answers=(first, third, second, *others))


def exchanged_entries(answer: BatchAnswer) -> BatchAnswer:
    alice, bob = answer.answers[1:3]
    swapped = part(answer, 1, mutation=bob.mutation, opening=bob.opening)
    return part(swapped, 2, mutation=alice.mutation, opening=alice.opening)


def left_out(answer: BatchAnswer) -> BatchAnswer:
    return replace(answer, answers=(answer.answers[0], *answer.answers[2:], answer.answers[1]))


def dropped(answer: BatchAnswer) -> BatchAnswer:
    """The last label, but not its part of the map proof."""
    return replace(answer, answers=answer.answers[:-1])


def repeated(answer: BatchAnswer) -> BatchAnswer:
    return replace(answer, answers=(*answer.answers[:2], answer.answers[1], *answer.answers[3:]))


def denied(answer: BatchAnswer) -> BatchAnswer:
    return part(answer, 1, mutation=None, opening=None)


def invented(answer: BatchAnswer) -> BatchAnswer:
    """An entry of nobody, of her true index."""
    index = b.index("nobody")
    made = b.mutation("nobody")
    assert made.entry.index == index
    return part(answer, 0, mutation=made, opening=b.opening("nobody"))


def older(answer: BatchAnswer) -> BatchAnswer:
    return part(answer, 1, mutation=b.mutation("alice"), opening=b.opening("alice"))


def withheld(answer: BatchAnswer) -> BatchAnswer:
    return part(answer, 2, opening=None)


def other_opening(answer: BatchAnswer) -> BatchAnswer:
    return part(answer, 2, opening=bytes(16))


def unsigned(answer: BatchAnswer) -> BatchAnswer:
    own = answer.answers[2].mutation
    assert own is not None
    bad = tuple(Signature(signature.key_id, bytes(64)) for signature in own.signatures)
    return part(answer, 2, mutation=replace(own, signatures=bad))


def forged_head(answer: BatchAnswer) -> BatchAnswer:
    smh = SignedMapHead.decode(answer.smh_bytes)
    return replace(answer, smh_bytes=replace(smh, signature=bytes(64)).encode())


def other_vrf(answer: BatchAnswer) -> BatchAnswer:
    return part(answer, 4, vrf_proof=answer.answers[5].vrf_proof)


def with_proof(change: Callable[[MultiProof], MultiProof]) -> Callable[[BatchAnswer], BatchAnswer]:
    return lambda answer: replace(answer, map_proof=change(answer.map_proof))


def first_hash(proof: MultiProof) -> int:
    return next(at for at, sibling in enumerate(proof.siblings) if sibling is not None)


def forged_sibling(proof: MultiProof) -> MultiProof:
    at = first_hash(proof)
    return replace(proof, siblings=(*proof.siblings[:at], bytes([7]) * 32, *proof.siblings[at + 1 :]))


LIES: dict[str, tuple[Callable[[BatchAnswer], BatchAnswer], str]] = {
    "two labels exchanged": (exchanged, "vrf"),
    "two entries exchanged": (exchanged_entries, "entry"),
    "a label left out": (left_out, "vrf"),
    "a label dropped": (dropped, "map"),
    "a label repeated": (repeated, "vrf"),
    "an entry denied": (denied, "map"),
    "an entry invented": (invented, "map"),
    "an older entry": (older, "map"),
    "a profile withheld": (withheld, "opening"),
    "another opening": (other_opening, "commitment"),
    "a bad signature": (unsigned, "signatures"),
    "a forged head": (forged_head, "map head"),
    "the VRF proof of another": (other_vrf, "vrf"),
    "a forged sibling": (with_proof(forged_sibling), "map"),
    "a sibling missing": (with_proof(lambda proof: replace(proof, siblings=proof.siblings[1:])), "map"),
    "a sibling too many": (with_proof(lambda p: replace(p, siblings=(*p.siblings, bytes([1]) * 32))), "map"),
    "an end missing": (with_proof(lambda proof: replace(proof, ends=proof.ends[1:])), "map"),
    "an end too many": (with_proof(lambda proof: replace(proof, ends=(*proof.ends, proof.ends[-1]))), "map"),
}


@pytest.mark.parametrize(("lie", "step"), LIES.values(), ids=LIES.keys())
def test_an_answer_with_one_fault_is_refused(
    directory: Directory, lie: Callable[[BatchAnswer], BatchAnswer], step: str
) -> None:
    # With more entries than are asked for, so that the proof has hashes of others.
    labels = LABELS[:8]
    answer = directory.batch_answer(labels)
    verified(directory, answer, labels)
    with pytest.raises(VerificationError, match=rf"^{step}: ") as refused:
        verified(directory, open_batch(lie(answer).encode()), labels)
    assert not isinstance(refused.value, EquivocationError)


def test_more_labels_than_asked_for_are_refused(directory: Directory) -> None:
    with pytest.raises(VerificationError, match="answer: is about 3 labels with 3 profiles, where 2"):
        verified(directory, directory.batch_answer(LABELS[:3]), LABELS[:2], profiles=[None] * 3)


@pytest.mark.parametrize("profiles", [[None] * 2, [None] * 4])
def test_each_label_has_a_place_for_its_profile(directory: Directory, profiles: list[None]) -> None:
    with pytest.raises(VerificationError, match="answer: is about 3 labels"):
        verified(directory, directory.batch_answer(LABELS[:3]), LABELS, profiles=profiles)


@pytest.mark.parametrize("profile", [b.profile("bob"), None])
def test_a_wrong_or_missing_profile_is_refused(directory: Directory, profile: bytes | None) -> None:
    profiles = [None, profile, b.profile("bob")]
    with pytest.raises(VerificationError, match=r"^commitment: "):
        verified(directory, directory.batch_answer(LABELS[:3]), LABELS, profiles=profiles)


def test_an_old_head_is_told_apart_from_a_lie(directory: Directory) -> None:
    with pytest.raises(StaleHeadError):
        verified(directory, directory.batch_answer(LABELS), now=directory.now + 10**9)


def test_an_answer_about_another_epoch_is_refused(directory: Directory) -> None:
    with pytest.raises(VerificationError, match=r"^map head: is of epoch 2"):
        verified(directory, directory.batch_answer(LABELS, 2))


def test_bytes_that_are_no_answer() -> None:
    with pytest.raises(VerificationError, match=r"^answer: "):
        open_batch(b"\x80")


class TestClient:
    def test_lookups_come_in_the_order_of_the_labels(self, directory: Directory, tmp_path: Path) -> None:
        store = FileStateStore(tmp_path / "state")
        with client_of(directory, store) as client:
            found = client.lookup_many([BOB, "Alice@Example.org", NOBODY, ALICE])
            assert [one.label for one in found] == [BOB, ALICE, NOBODY, ALICE]
            assert [one.absent for one in found] == [False, False, True, False]
            assert found[1].checks[0].startswith("directory key pinned on first use")
            assert found[0].profile is not None
            assert found[0].profile[0].data == b"bob 1"
            for user in ("alice", "bob", "nobody"):
                assert client.recall(KIND, b.index(user)) is not None
            again = client.lookup_many([ALICE])[0]
            assert again.before is not None
            assert again.before.last == found[1].sight
        stored = store.load()
        assert stored is not None
        assert stored.checkpoint == directory.heads_checkpoint(5)

    @pytest.mark.parametrize(("page", "requests"), [(1, 23), (7, 4), (1000, 1)])
    def test_long_lists_take_several_requests(
        self, directory: Directory, monkeypatch: pytest.MonkeyPatch, page: int, requests: int
    ) -> None:
        asked: list[list[str]] = []

        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/lookups":
                asked.append(json.loads(request.content)["labels"])
            return directory.handle(request)

        monkeypatch.setattr(directory, "page", page)
        with client_of(directory, handler=handle) as client:
            assert [one.label for one in client.lookup_many(LABELS)] == LABELS
        assert len(asked) == requests
        assert asked[0] == LABELS
        assert asked[-1] == LABELS[page * (requests - 1) :]

    def test_no_request_has_more_labels_than_it_may(
        self, directory: Directory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kt_es.client.batching.MAX_BATCH", 10)
        sizes: list[int] = []

        def handle(request: httpx.Request) -> httpx.Response:
            sizes.append(len(json.loads(request.content or b"{}").get("labels", ())))
            return directory.handle(request)

        with client_of(directory, handler=handle) as client:
            client.lookup_many(LABELS)
        assert max(sizes) == 10

    def test_no_labels_are_no_request(self, directory: Directory) -> None:
        with client_of(directory) as client:
            assert client.lookup_many([]) == []

    def test_a_past_epoch_and_no_profiles(self, directory: Directory) -> None:
        with client_of(directory) as client:
            found = client.lookup_many([ALICE, BOB], 1, profile=False)
            assert [one.absent for one in found] == [False, True]
            assert found[0].profile is None
            with pytest.raises(RefusedError):
                client.lookup_many([ALICE], 9)

    def test_a_label_that_is_none_is_named_by_its_place(self, directory: Directory) -> None:
        with client_of(directory) as client, pytest.raises(LabelError, match="label: number 2 must be an"):
            client.lookup_many([ALICE, "no address"])

    def test_an_account_that_vanished_is_evidence(self) -> None:
        directory, store = built(), MemoryStateStore()
        with client_of(directory, store) as client:
            client.lookup_many([NOBODY, ALICE])
            directory.forced[b.index("alice")] = None
            directory.advance()
            with pytest.raises(EquivocationError) as caught:
                client.lookup_many([BOB, ALICE])
        assert caught.value.evidence is not None
        assert [data for data, _ in store.evidence()] == [caught.value.evidence]

    def test_many_first_sights_are_one_sync_of_the_disk(
        self, directory: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last change is synced, and with it all changes before it. What is known needs no sync."""
        store, synced = FileStateStore(tmp_path / "state"), list[bool]()
        exchange = store.exchange

        def counted(*change: Any, synced: bool = True) -> bool:
            counts.append(synced)
            return exchange(*change, synced=synced)

        counts = synced
        monkeypatch.setattr(store, "exchange", counted)
        with client_of(directory, store) as client:
            client.lookup_many(LABELS, 4)
            assert counts == [False] * len(LABELS) + [True]
            counts.clear()
            client.lookup_many(LABELS)
            assert counts == [False] * len(LABELS)

    def test_what_one_request_showed_is_kept_if_the_next_one_fails(self) -> None:
        directory, store = built(), MemoryStateStore()
        directory.page = 2
        with client_of(directory, store, changed(directory, "/v1/lookups", spoiled_from_bob)) as client:
            with pytest.raises(VerificationError, match=r"^answer: "):
                client.lookup_many([ALICE, NOBODY, BOB])
            assert client.recall(KIND, b.index("alice")) is not None
            assert client.recall(KIND, b.index("bob")) is None

    @pytest.mark.parametrize("count", [0, 3])
    def test_an_answer_that_miscounts_is_refused(self, directory: Directory, count: int) -> None:
        def miscounted(body: dict[str, Any]) -> None:
            body["count"] = count

        client = client_of(directory, handler=changed(directory, "/v1/lookups", miscounted))
        with client, pytest.raises(VerificationError, match="answer: has 2 labels, and says"):
            client.lookup_many([ALICE, BOB])

    def test_more_profiles_than_a_batch_has_are_malformed(self, directory: Directory) -> None:
        def many(body: dict[str, Any]) -> None:
            body["profiles"] = [None] * 1001

        client = client_of(directory, handler=changed(directory, "/v1/lookups", many))
        with client, pytest.raises(MalformedError, match="profiles"):
            client.lookup_many([ALICE, BOB])


def spoiled_from_bob(body: dict[str, Any]) -> None:
    answer = BatchAnswer.decode(base64.b64decode(body["answer"]))
    held: list[LabelAnswer] = [one for one in answer.answers if one.mutation == b.mutation("bob")]
    if held:
        body["answer"] = "AA=="
