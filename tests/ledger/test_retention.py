"""Retention: what is pruned is needed by no kept epoch, and what is kept stays whole."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kt_es.errors import ConfigError, DivergenceError
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import PageTable
from kt_es.ledger.proofs import head_at, map_root_at
from kt_es.ledger.retention import check_epoch, prune
from kt_es.ledger.tables import FAMILIES
from kt_es.merkle.map import EMPTY_ROOT, Map, Root
from kt_es.merkle.walk import replaced, walk
from tests.builders import ORIGIN, SIGNER_KEY, index
from tests.reference import naive_map
from tests.reference.published_epochs import USERS, stored

indices = st.integers(0, 40).map(lambda number: bytes([number % 5 * 51, number]) + bytes(30))
epochs = st.lists(
    st.lists(st.tuples(indices, st.integers(0, 9)), min_size=1, max_size=12), min_size=2, max_size=8
)


def live(store: MemoryStore, root: Root) -> set[bytes]:
    """The keys of the pages that ``root`` leads to."""
    read: set[bytes] = set()

    class Reading(PageTable):
        def get_many(self, keys, *, again=False):  # type: ignore[no-untyped-def]
            read.update(keys)
            return super().get_many(keys, again=again)

    list(walk(Reading(store), root, pytest.fail))
    return read


@settings(deadline=None)
@given(epochs, st.integers(1, 3), st.integers(0, 7))
def test_kept_epochs_stay_whole_and_nothing_else_stays(
    updates: list[list[tuple[bytes, int]]], width: int, cut: int
) -> None:
    store = MemoryStore(["pages", "meta"])
    table, roots, maps = PageTable(store), [EMPTY_ROOT], [dict[bytes, bytes]()]
    for epoch, changes in enumerate(updates, start=1):
        latest = sorted({at: bytes([number, epoch]) * 16 for at, number in changes}.items())
        root = roots[-1]
        for low in range(0, len(latest), width):
            root, pages = Map(table).apply(root, epoch, latest[low : low + width])
            store.write(table.put(epoch, pages))
        roots.append(root)
        maps.append(maps[-1] | dict(latest))
    for before, after in pairwise(roots):
        assert set(replaced(table, before, after)) == live(store, before) - live(store, after)
    oldest = 1 + cut % len(updates)
    table.prune(oldest)
    kept = range(oldest, len(updates) + 1)
    assert set(dict(store.scan("pages"))) == set[bytes]().union(
        *(live(store, roots[epoch]) for epoch in kept)
    )
    for epoch in kept:
        assert roots[epoch].hash == naive_map.root(maps[epoch])
        leaves = {leaf.index: leaf.entry_hash for leaf in walk(table, roots[epoch], pytest.fail)}
        assert leaves == maps[epoch]


def test_a_ledger_forgets_the_pages_of_old_epochs_alone() -> None:
    store = stored()
    ledger = Ledger(store, ORIGIN, SIGNER_KEY)
    before = {family: dict(store.scan(family)) for family in ("entries", "nodes", "heads")}
    held = len(dict(store.scan(PageTable.FAMILY)))
    assert prune(ledger, 3) == 0
    gone = prune(ledger, 1)
    assert len(dict(store.scan(PageTable.FAMILY))) == held - gone
    assert gone > 0
    assert {family: dict(store.scan(family)) for family in before} == before
    again = Ledger(store, ORIGIN, SIGNER_KEY)
    assert again.oldest == ledger.oldest == 3
    for user in USERS:
        assert again.map.prove(again.committed.root, index(user))
    with pytest.raises(DivergenceError, match="is missing"):
        again.map.prove(map_root_at(again, again.committed, 1), index(USERS[0]))
    assert prune(again, 1) == 0
    assert prune(again, 3) == 0
    assert again.oldest == 3


def test_at_least_the_latest_epoch_is_kept() -> None:
    with pytest.raises(ConfigError, match="0 epochs cannot be kept: keep 1 or more"):
        prune(Ledger(stored(), ORIGIN, SIGNER_KEY), 0)


def test_a_directory_without_an_epoch_is_neither_pruned_nor_checked() -> None:
    store = MemoryStore(FAMILIES)
    ledger = Ledger(store, ORIGIN, SIGNER_KEY)
    with pytest.raises(ConfigError, match="no epoch yet"):
        prune(ledger, 1)
    with pytest.raises(ConfigError, match="no epoch yet"):
        check_epoch(ledger, 1, pytest.fail)
    assert not list(store.scan("meta"))


def test_an_interrupted_pruning_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stored()
    prune(Ledger(whole, ORIGIN, SIGNER_KEY), 1)
    store = stored()
    ledger = Ledger(store, ORIGIN, SIGNER_KEY)
    with monkeypatch.context() as patch:
        patch.setattr(PageTable, "prune", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prune(ledger, 1)
    assert Ledger(store, ORIGIN, SIGNER_KEY).oldest == 3
    prune(Ledger(store, ORIGIN, SIGNER_KEY), 1)
    assert {family: dict(store.scan(family)) for family in ("pages", "meta")} == {
        family: dict(whole.scan(family)) for family in ("pages", "meta")
    }


def problems_of(ledger: Ledger, epoch: int) -> tuple[int, list[str]]:
    problems: list[str] = []
    return check_epoch(ledger, epoch, problems.append), problems


def test_every_epoch_is_checked_with_its_entries() -> None:
    ledger = Ledger(stored(), ORIGIN, SIGNER_KEY)
    sizes = [head_at(ledger, epoch)[1].map_size for epoch in (1, 2, 3)]
    assert [problems_of(ledger, epoch) for epoch in (1, 2, 3)] == [(size, []) for size in sizes]
    prune(ledger, 2)
    assert [problems_of(ledger, epoch)[1] for epoch in (2, 3)] == [[], []]
    for epoch in (1, 4):
        with pytest.raises(ConfigError, match=f"epoch {epoch} is not kept here: choose one from 2 to 3"):
            problems_of(ledger, epoch)


@pytest.mark.parametrize("oldest", [4, 2**64 - 1])
def test_a_damaged_bound_is_found_when_the_directory_is_opened(oldest: int) -> None:
    store = stored()
    store.write([Ledger(store, ORIGIN, SIGNER_KEY).tables.states.put_oldest(oldest)])
    with pytest.raises(DivergenceError, match=f"the oldest epoch that it keeps is {oldest}, the latest is 3"):
        Ledger(store, ORIGIN, SIGNER_KEY)


def test_what_an_epoch_lacks_is_named() -> None:
    store = stored()
    ledger = Ledger(store, ORIGIN, SIGNER_KEY)
    (leaf,) = ledger.map.lookup_many(ledger.committed.root, [index(USERS[10])])
    assert leaf is not None
    store.write([ledger.tables.entries.delete(leaf.index, leaf.version)])
    count, problems = problems_of(ledger, 3)
    assert problems == [f"the entry at index {leaf.index.hex()} of epoch {leaf.version} is missing"]
    below = next(key for key in sorted(live(store, ledger.committed.root)) if key[0] == 1)
    store.write([(PageTable.FAMILY, below, None)])
    fewer, problems = problems_of(ledger, 3)
    assert fewer < count == ledger.committed.root.size
    assert any("map page" in problem and "is missing" in problem for problem in problems)
    assert f"the map of epoch 3 has {fewer} entries, its head says {count}" in problems
