"""Ranges of epochs, pages of a history and erasures, out of a replica that followed real streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import MalformedError, RefusedError
from kt_es.formats.entries import Mutation, Opening
from kt_es.formats.erasures import Erasure
from kt_es.formats.heads import SignedMapHead, open_checkpoint
from kt_es.formats.queue import Record, Verdict
from kt_es.formats.ranges import RangeAnswer
from kt_es.merkle.verify import log_root_from_inclusion, log_root_from_range, map_root
from kt_es.server import answers, handlers
from tests import builders as b
from tests.reference.frontends import Front, front, until
from tests.reference.signed_streams import SignedStreams

ALICE = b.label_of("alice")
EPOCHS = 12
CHANGES = (2, 5, 6, 9)  # the epochs in which alice changes


@dataclass
class Story:
    front: Front
    versions: list[Mutation]

    def at(self, epoch: int) -> Mutation | None:
        count = sum(change <= epoch for change in CHANGES)
        return self.versions[count - 1] if count else None


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    streams = SignedStreams()
    versions: list[Mutation] = []
    for epoch in range(1, EPOCHS + 1):
        if epoch in CHANGES:
            versions.append(streams.put_user("alice", versions[-1] if versions else None))
        if epoch % 3 == 1:
            streams.put_user(f"user{epoch}")
        streams.epoch()
    with front(streams) as running:
        yield Story(running, versions)


def check(answer: RangeAnswer, story: Story) -> None:
    """Verify the proofs of ``answer`` by plain means."""
    checkpoint = open_checkpoint(answer.heads_checkpoint, f"{b.ORIGIN}/heads", [b.SIGNER_KEY.raw])
    leaves = [log_leaf_hash(epoch.smh_bytes) for epoch in answer.epochs]
    root = log_root_from_range(answer.first - 1, checkpoint.size, leaves, answer.heads_proof)
    assert root == checkpoint.root
    for number, epoch in enumerate(answer.epochs, answer.first):
        head = SignedMapHead.decode(epoch.smh_bytes).head
        assert head.epoch == number
        assert map_root(b.index("alice"), epoch.map_proof) == head.map_root
        shown = None if epoch.mutation is None else answer.mutations[epoch.mutation]
        assert shown == story.at(number)


@pytest.mark.parametrize("first", range(1, EPOCHS + 1))
def test_every_range_is_proven(story: Story, first: int) -> None:
    for last in range(first, EPOCHS + 1):
        found = story.front.directory.range(ALICE, first, last)
        assert (found.first, found.last) == (first, last)
        answer = RangeAnswer.decode(found.answer)
        assert len(answer.epochs) == last - first + 1
        check(answer, story)


def test_absence_is_proven_in_each_epoch(story: Story) -> None:
    answer = RangeAnswer.decode(story.front.directory.range("nobody@example.org", 1, EPOCHS).answer)
    assert answer.mutations == ()
    assert len(answer.epochs) == EPOCHS
    assert all(epoch.mutation is None for epoch in answer.epochs)


@pytest.mark.parametrize(
    ("first", "last", "problem"), [(3, 2, "below first"), (1, 257, "257 epochs"), (1, 10**12, "at most 256")]
)
def test_what_is_no_range_is_refused(story: Story, first: int, last: int, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        story.front.directory.range(ALICE, first, last)


@pytest.mark.parametrize(("first", "last"), [(EPOCHS, EPOCHS + 1), (EPOCHS + 1, EPOCHS + 1), (0, 1)])
def test_an_epoch_that_is_not_there_is_refused(story: Story, first: int, last: int) -> None:
    with pytest.raises(RefusedError, match="epochs 1 to 12") as refused:
        story.front.directory.range(ALICE, first, last)
    assert refused.value.field == ("last" if last > EPOCHS else "first")


def test_a_range_that_would_be_too_large_ends_earlier(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = story.front.directory.range(ALICE, 1, EPOCHS).answer
    monkeypatch.setattr(answers, "_ROOM", len(whole) // 2)
    asked, seen = 1, []
    while asked <= EPOCHS:
        found = story.front.directory.range(ALICE, asked, EPOCHS)
        check(RangeAnswer.decode(found.answer), story)
        seen.append(found.last)
        asked = found.last + 1
    assert len(seen) > 1
    assert seen[-1] == EPOCHS
    monkeypatch.setattr(answers, "_ROOM", 1)
    assert story.front.directory.range(ALICE, 3, EPOCHS).last == 3


def test_a_history_comes_in_pages(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = story.front.directory.history(ALICE)
    assert ([version.epoch for version in whole.versions], whole.more) == (list(CHANGES), False)
    monkeypatch.setattr(handlers, "MAX_HISTORY_PAGE", 1_500)
    after, pages = 0, []
    while True:
        page = story.front.directory.history(ALICE, after=after)
        pages.append([version.version for version in page.versions])
        if not page.more:
            break
        after = pages[-1][-1]
    assert len(pages) > 1
    assert [version for page in pages for version in page] == [1, 2, 3, 4]


@pytest.mark.parametrize("after", range(6))
def test_a_page_begins_after_what_is_known(story: Story, after: int) -> None:
    page = story.front.directory.history(ALICE, after=after)
    assert [version.version for version in page.versions] == list(range(after + 1, 5))


def test_a_page_reads_only_its_own_versions(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    decode = Mutation.decode

    def counted(data: bytes) -> Mutation:
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr(Mutation, "decode", counted)
    ledger = story.front.ledger
    list(ledger.history(ledger.committed, b.index("alice"), 3))
    # A binary search among 13 epochs, and the one version behind it.
    assert len(decoded) <= 5


class Erased:
    """alice has two versions, bob one; then the first of alice's is erased, and two epochs go by."""

    def __init__(self) -> None:
        self.streams = SignedStreams()
        self.first = self.streams.put_user("alice")
        self.streams.put_user("bob")
        self.streams.epoch()
        self.second = self.streams.put_user("alice", self.first)
        self.streams.epoch()


def test_an_erased_profile_is_not_shown_and_its_erasure_is_proven() -> None:
    made = Erased()
    with front(made.streams) as running:
        opening = running.running.openings
        until(lambda: isinstance(opening.get(b.index("alice"), made.second.entry_hash), Opening))
        assert running.directory.lookup(ALICE).result == "found"
        made.streams.erase(made.second)
        made.streams.epoch()
        made.streams.epoch()
        until(running.caught_up)
        found = running.directory.lookup(ALICE)
        assert (found.result, found.profile, found.answer.opening) == ("erased", None, None)
        erasure = found.answer.erasure
        assert erasure is not None
        record = Record.decode(erasure.record_bytes)
        assert record.verdict is Verdict.ERASED
        assert isinstance(record.item.content, bytes)
        assert Erasure.decode(record.item.content).entry_hash == made.second.entry_hash
        head = SignedMapHead.decode(found.answer.smh_bytes).head
        root = log_root_from_inclusion(
            record.sequence, head.log_size, log_leaf_hash(erasure.record_bytes), erasure.inclusion
        )
        assert (root, erasure.smh_bytes, erasure.heads_inclusion) == (head.log_root, None, ())
        # The answer about the epoch before the erasure has it under the latest head.
        past = running.directory.lookup(ALICE, 2).answer
        assert past.erasure is not None
        assert past.erasure.smh_bytes is not None
        latest = SignedMapHead.decode(past.erasure.smh_bytes).head
        root = log_root_from_inclusion(
            record.sequence, latest.log_size, log_leaf_hash(erasure.record_bytes), past.erasure.inclusion
        )
        assert (latest.epoch, root) == (4, latest.log_root)
        assert running.directory.lookup(ALICE, 1).result == "found"
        assert running.directory.lookup(b.label_of("bob")).result == "found"
        versions = running.directory.history(ALICE, profiles=True).versions
        assert [version.profile is None for version in versions] == [False, True]


def test_an_erasure_that_nobody_may_sign_erases_nothing() -> None:
    made = Erased()
    with front(made.streams) as running:
        made.streams.erase(made.second, b.private_key("mallory"))
        made.streams.epoch()
        until(running.caught_up)
        assert running.directory.lookup(ALICE).result == "found"


def test_an_erasure_outlives_a_restart() -> None:
    made = Erased()
    made.streams.erase(made.second)
    made.streams.epoch()
    with front(made.streams) as running:
        store = running.store
    with front(made.streams, store) as again:
        assert again.directory.lookup(ALICE).result == "erased"
