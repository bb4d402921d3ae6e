"""One epoch in slices: the same records and the same head, whatever was written before a crash."""

from __future__ import annotations

import pytest

from kt_es.errors import DivergenceError
from kt_es.formats.heads import HeadEvent, MapHead
from kt_es.formats.queue import Item, ItemKind, Record, Verdict, items_of
from kt_es.ledger.fold import EpochFold
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.tables import FAMILIES, EntryTable
from tests.builders import ORIGIN, SIGNER_KEY, item, marker, mutation, signed_config
from tests.reference.published_epochs import USERS as FORMER
from tests.reference.published_epochs import stored
from tests.reference.signing import new_ledger

USERS = [f"user{number}" for number in range(12)]


def queue() -> list[list[Item]]:
    """A config, then every user twice, the second time with another entry, then a marker."""
    events = [[item(signed_config(), 0)]]
    for number, user in enumerate((*USERS, *USERS), 1):
        again = mutation(user, commits_to=bytes(32)) if number > len(USERS) else mutation(user)
        events.append([item(mutation(user), number, 0), item(again, number, 1)])
    return [*events, [item(marker(), len(events))]]


def fold_all(ledger: Ledger, slice_size: int, events: list[list[Item]]) -> tuple[EpochFold, list[Record]]:
    ledger.slice_size = slice_size
    fold = EpochFold(ledger)
    return fold, [record for items in events for record, _ in fold.take(items)]


def expected() -> tuple[list[Record], MapHead]:
    fold, records = fold_all(new_ledger(), 10**9, queue())
    return records, fold.close()[0]


def test_the_second_of_two_entries_conflicts_and_the_same_is_a_duplicate() -> None:
    records, head = expected()
    verdicts = [record.verdict.label for record in records]
    assert verdicts == ["config", *["accepted", "duplicate"] * 12, *["duplicate", "conflict"] * 12, "epoch"]
    assert head.map_size == len(USERS)


@pytest.mark.parametrize("slice_size", [1, 2, 7, 30])
def test_slices_change_nothing(slice_size: int) -> None:
    fold, records = fold_all(new_ledger(), slice_size, queue())
    assert (records, fold.close()[0]) == expected()


@pytest.mark.parametrize("slice_size", [1, 7])
@pytest.mark.parametrize("crash_after", range(1, 26, 3))
def test_what_a_crashed_run_left_behind_changes_nothing(slice_size: int, crash_after: int) -> None:
    store = MemoryStore(FAMILIES)
    fold_all(new_ledger(store), slice_size, queue()[:crash_after])
    fold, records = fold_all(new_ledger(store), slice_size, queue())
    head, state = fold.close()
    assert (records, head) == expected()
    fold.commit(state, HeadEvent(b"smh", "heads", "mutations"), 1)
    assert len(list(store.scan(EntryTable.FAMILY))) == len(USERS)


def test_an_epoch_of_nothing_but_garbage_is_written_in_slices_too() -> None:
    store = MemoryStore(FAMILIES)
    fold = EpochFold(Ledger(store, ORIGIN, SIGNER_KEY, slice_size=50))
    fold.take([item(signed_config(), 0)])
    for revision in range(1, 200):
        fold.take(items_of(revision, "Surprise", b"x"))
        assert len(fold._puts) < 60
    assert fold.take([Item(200, 0, ItemKind.UNKNOWN, b"")])[0][0].sequence == 200


@pytest.mark.parametrize("slice_size", [1, 1000])
@pytest.mark.parametrize("user", [FORMER[0], "somebody new"])
def test_a_recorded_first_version_where_there_is_an_entry_is_noticed(user: str, slice_size: int) -> None:
    """It is not looked up, neither in the epochs before nor in this one."""
    ledger = Ledger(stored(), ORIGIN, SIGNER_KEY, slice_size)
    fold, at = EpochFold(ledger), ledger.committed.queue_next
    accepted = [Verdict.ACCEPTED]
    fold.take([item(mutation("somebody new"), at)], recorded=accepted)
    (record, _), *_ = fold.take([item(mutation(user, commits_to=bytes(32)), at + 1)], recorded=accepted)
    fold.take([item(marker(ledger.committed.standing.timestamp + 1), at + 2)], recorded=[Verdict.EPOCH])
    if record.verdict is Verdict.CONFLICT:
        assert (user, slice_size) == ("somebody new", 1000)  # it was still in memory
        return
    with pytest.raises(DivergenceError, match=r"2 first versions were accepted, .* grown by 1 entries"):
        fold.close()


def test_other_work_goes_on_while_entries_are_put_into_the_map() -> None:
    ledger, calls = new_ledger(), 0

    def meanwhile() -> None:
        nonlocal calls
        calls += 1

    ledger.slice_size = 4
    fold = EpochFold(ledger, meanwhile)
    for items in queue():
        fold.take(items)
    fold.close()
    assert calls > 1
