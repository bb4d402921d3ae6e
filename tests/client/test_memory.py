"""A client remembers accounts: what went back, changed or vanished since it looked is proven to anybody."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from kt_es.client.directory import keep_sight
from kt_es.client.entries import KIND, Account, Sight, remember, verify_memory
from kt_es.client.state import FileStateStore, MemoryStateStore
from kt_es.errors import ConfigError, EquivocationError, VerificationError
from kt_es.evidence import convict
from kt_es.formats.entries import Mutation
from kt_es.formats.evidence import Evidence
from tests import builders as b
from tests.reference.clients import client_of
from tests.reference.directory import Directory

ALICE = b.label_of("alice")
FIRST = b.mutation("alice")
SECOND = b.next_mutation("alice", FIRST)


class Liar(Directory):
    """A directory whose operator writes into the map what no rule allows."""

    def write(self, user: str, mutation: Mutation | None) -> None:
        """Let ``mutation`` stand at ``user`` from the epoch in the making on; None for nothing."""
        index = b.index(user)
        if mutation is None:
            # The coming map is made from that of the last head, which a client has seen already.
            self.heads[-1].entries = {key: value for key, value in self.entries.items() if key != index}
            return
        self.mutations[mutation.entry_hash] = mutation
        version = mutation.entry.version
        self.private[mutation.entry_hash] = (b.opening(user, version), b.profile(user, version))
        self.epoch.accepted[index] = mutation.entry_hash


@pytest.fixture
def directory() -> Liar:
    """Alice has two versions, of epochs 1 and 2."""
    directory = Liar()
    directory.put_user("alice")
    directory.put_user("bob")
    directory.advance()
    directory.put_user("alice", 2)
    directory.advance()
    return directory


def went_back(directory: Liar) -> None:
    directory.write("alice", FIRST)


def another_of_the_same_version(directory: Liar) -> None:
    directory.write("alice", b.next_mutation("alice", FIRST, keys=[b.private_key("mallory")]))


def a_successor_of_another(directory: Liar) -> None:
    other = b.next_mutation("alice", FIRST, keys=[b.private_key("mallory")])
    directory.write("alice", b.next_mutation("alice", other))


def vanished(directory: Liar) -> None:
    directory.write("alice", None)
    directory.put_user("carol")  # so that the number of entries does not tell


LIES = [went_back, another_of_the_same_version, a_successor_of_another, vanished]
SENTENCES: dict[Callable[[Liar], None], str] = {
    went_back: "at one index, epoch 3 has version 1, though version 2 stood there in epoch 2",
    another_of_the_same_version: (
        "at one index, epoch 3 has another version 2 than the one that stood there in epoch 2"
    ),
    a_successor_of_another: (
        "at one index, epoch 3 has a version 3 that does not follow version 2 as it stood there in epoch 2"
    ),
    vanished: "at one index, epoch 3 has no entry, though version 2 stood there in epoch 2",
}


@pytest.mark.parametrize("lie", LIES)
def test_what_contradicts_the_memory_is_proven(
    directory: Liar, tmp_path: Path, lie: Callable[[Liar], None]
) -> None:
    store = FileStateStore(tmp_path)
    client_of(directory, store).lookup(ALICE)
    before, trusted = store.recall(KIND, b.index("alice")), store.load()
    lie(directory)
    directory.advance()
    with pytest.raises(EquivocationError, match=r"^memory:") as found:
        client_of(directory, store).lookup(ALICE, profile=False)
    assert found.value.problem == SENTENCES[lie]
    assert found.value.exit_code == 5
    assert found.value.saved is not None
    evidence = Evidence.decode(found.value.saved.read_bytes())
    assert convict(evidence) == SENTENCES[lie]
    # What is remembered and trusted stays: the lie is told the next time as well.
    assert (store.recall(KIND, b.index("alice")), store.load()) == (before, trusted)
    # Nothing that only the account's owner and its readers may know is in the evidence.
    for private in (ALICE.encode(), b.profile("alice", 2), b.opening("alice", 2)):
        assert private not in found.value.saved.read_bytes()


@pytest.mark.parametrize("lie", LIES)
def test_without_a_memory_the_same_answer_is_accepted(directory: Liar, lie: Callable[[Liar], None]) -> None:
    """The control: each of these maps is a valid one to somebody who sees it first."""
    lie(directory)
    directory.advance()
    client_of(directory).lookup(ALICE, profile=False)


def test_what_follows_the_rules_is_accepted(directory: Liar) -> None:
    store = MemoryStateStore()
    client_of(directory, store).lookup(ALICE)
    for version in (3, 4):
        directory.put_user("alice", version)
        directory.advance()
    lookup = client_of(directory, store).lookup(ALICE)
    assert lookup.before is not None
    assert lookup.before.last.version == 2
    assert remembered(store).last.version == 4


def remembered(store: MemoryStateStore | FileStateStore, user: str = "alice") -> Account:
    data = store.recall(KIND, b.index(user))
    assert data is not None
    return Account.decode(data)


def test_a_past_epoch_is_compared_with_the_order_of_epochs_in_mind(directory: Liar) -> None:
    store = MemoryStateStore()
    client = client_of(directory, store)
    assert client.lookup(ALICE).entry == SECOND.entry
    # An older version in an older epoch is as it should be, and does not take the memory back.
    assert client.lookup(ALICE, 1).entry == FIRST.entry
    assert remembered(store).last.version == 2
    assert client.lookup(b.label_of("carol")).absent
    assert client.lookup(b.label_of("carol"), 1).absent


def test_an_entry_in_the_past_of_an_account_that_was_absent_later_is_proven_false(directory: Liar) -> None:
    store = MemoryStateStore()
    directory.write("carol", b.mutation("carol"))
    directory.advance()
    entries = directory.heads[-1].entries
    directory.write("carol", None)
    directory.put_user("dave")
    directory.advance()
    directory.heads[2].entries = entries
    client = client_of(directory, store)
    assert client.lookup(b.label_of("carol")).absent
    with pytest.raises(EquivocationError) as found:
        client.lookup(b.label_of("carol"), 3)
    assert (
        found.value.problem == "at one index, epoch 4 has no entry, though version 1 stood there in epoch 3"
    )


@pytest.mark.parametrize("epoch", [3, 4])
def test_an_epoch_between_two_sights_of_one_entry_has_no_other(directory: Liar, epoch: int) -> None:
    """Version 2 was seen in epochs 2 and 5: neither the older nor a newer one can have stood in between."""
    store = MemoryStateStore()
    client = client_of(directory, store)
    client.lookup(ALICE)
    directory.write("alice", FIRST)
    directory.advance()
    directory.write("alice", b.next_mutation("alice", SECOND))
    directory.advance()
    directory.write("alice", SECOND)
    directory.advance()
    client.lookup(ALICE)
    with pytest.raises(EquivocationError, match=r"^memory:"):
        client.lookup(ALICE, epoch)


def test_the_first_sight_is_kept_and_the_last_one_moves_on(directory: Liar) -> None:
    store, clock = MemoryStateStore(), [directory.now]
    client = client_of(directory, store, now=lambda: clock[0])
    client.lookup(ALICE)
    directory.advance()
    clock[0] += 10_000
    client.lookup(ALICE)
    account = remembered(store)
    assert (account.first.epoch, account.last.epoch) == (2, 3)
    assert account.last.at == account.first.at + 10_000
    directory.put_user("alice", 3)
    directory.advance()
    client.lookup(ALICE)
    assert remembered(store).first == remembered(store).last


def test_threads_that_look_at_once_never_take_the_memory_back(directory: Liar, tmp_path: Path) -> None:
    store = FileStateStore(tmp_path)
    client = client_of(directory, store)

    def look(epoch: int | None) -> None:
        client.lookup(ALICE, epoch)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, [1, None, 2] * 8))
    assert remembered(store).last.version == 2
    assert FileStateStore(tmp_path).recall(KIND, b.index("alice")) == store.recall(KIND, b.index("alice"))


def test_a_sight_that_comes_late_is_compared_with_the_memory_of_then(directory: Liar) -> None:
    """Two lookups began with the same memory; the second one contradicts what the first one kept."""
    store = MemoryStateStore()
    lookup = client_of(directory, store).lookup(ALICE)
    trusted = client_of(directory, store).trusted()
    late = client_of(fork_of(directory)).lookup(ALICE)
    with pytest.raises(EquivocationError):
        keep_sight(store, trusted, replace(late, before=None))
    assert remembered(store).last == lookup.sight


def fork_of(directory: Liar) -> Liar:
    """Another map of epoch 2, with another version 2 of alice."""
    fork = Liar()
    fork.put_user("alice")
    fork.put_user("bob")
    fork.advance()
    another_of_the_same_version(fork)
    fork.put_user("carol")
    fork.advance()
    return fork


def test_two_entries_in_one_epoch_are_two_heads(directory: Liar) -> None:
    sight = client_of(directory).lookup(ALICE).sight
    other = client_of(fork_of(directory)).lookup(ALICE).sight
    configs = directory.configs
    with pytest.raises(EquivocationError, match="another version 2") as found:
        verify_memory(b.ORIGIN, configs, b.index("alice"), Account(sight, sight), other)
    convict(Evidence.decode(found.value.evidence or b""))


def test_a_contradiction_that_is_not_proven_is_no_equivocation(directory: Liar) -> None:
    sight = client_of(directory).lookup(ALICE).sight
    head = b.map_head(3, map_size=9, log_size=99, queue_next=99, timestamp=directory.now)
    unproven = replace(sight, epoch=3, entry=None, smh=b.signed_map_head(head).encode())
    with pytest.raises(VerificationError, match=r"^memory:") as refused:
        verify_memory(b.ORIGIN, directory.configs, b.index("alice"), Account(sight, sight), unproven)
    assert not isinstance(refused.value, EquivocationError)


def test_an_account_is_stored_and_read_again(directory: Liar) -> None:
    client = client_of(directory)
    for label in (ALICE, b.label_of("nobody")):
        sight = client.lookup(label).sight
        later = replace(sight, epoch=9, at=sight.at + 1)
        for account in (Account(sight, sight), Account(sight, later)):
            assert Account.decode(account.encode()) == account


def test_what_is_remembered_never_goes_back() -> None:
    def sight(epoch: int, entry: bytes | None, at: int = 0) -> Sight:
        return Sight(epoch, b"smh", entry, b"proof", at)

    account = remember(remember(None, sight(4, b"a", 40)), sight(7, b"a", 70))
    assert (account.first.epoch, account.last.epoch) == (4, 7)
    assert remember(account, sight(5, b"a", 80)) == account
    assert remember(account, sight(3, b"b", 80)) == account
    earlier = remember(account, sight(2, b"a", 80))
    assert (earlier.first.epoch, earlier.first.at, earlier.last) == (2, 40, account.last)
    newer = sight(8, b"b", 90)
    assert remember(account, newer) == Account(newer, newer)


def test_a_damaged_memory_is_never_taken_for_none(directory: Liar) -> None:
    store = MemoryStateStore()
    store.remember(KIND, b.index("alice"), b"\x80")
    with pytest.raises(ConfigError, match="damaged"):
        client_of(directory, store).lookup(ALICE)


def test_a_map_that_shrinks_is_proven_by_its_heads_alone(directory: Liar) -> None:
    store = MemoryStateStore()
    client_of(directory, store).lookup(b.label_of("nobody"))
    directory.write("alice", None)
    directory.advance()
    with pytest.raises(EquivocationError, match="has fewer entries than the head of epoch 2") as found:
        client_of(directory, store).lookup(b.label_of("nobody"))
    convict(Evidence.decode(found.value.evidence or b""))


def test_absence_is_reported_for_the_epoch_that_was_proven(directory: Liar) -> None:
    lookup = client_of(directory).lookup(b.label_of("nobody"), 1)
    assert "absence proven: in epoch 1 nobody has published keys for it" in lookup.checks
