"""The map over each storage: slices of an epoch, readers of the last one, a crash and the same again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kt_es.crypto.hashes import sha256
from kt_es.ledger.memory import MemoryStore
from kt_es.ledger.pages import PageTable
from kt_es.ledger.rocks import RocksStore
from kt_es.merkle.map import EMPTY_ROOT, Map, Root
from kt_es.merkle.verify import map_root
from tests.reference import naive_map

Opened = MemoryStore | RocksStore
Update = tuple[bytes, bytes]

FIRST = [(sha256(b"index %d" % n), sha256(b"first %d" % n)) for n in range(600)]
SECOND = [(sha256(b"index %d" % n), sha256(b"second %d" % n)) for n in range(300, 900)]


@pytest.fixture(params=["memory", "rocks"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Opened]]:
    """Opens the storage, at the second call as it was left at the first."""
    opened: list[Opened] = []

    def memory() -> Opened:
        return opened[0] if opened else MemoryStore([PageTable.FAMILY, "meta"])

    def rocks() -> Opened:
        for store in opened:
            store.close()
        return RocksStore.open(tmp_path, [PageTable.FAMILY, "meta"])

    def again() -> Opened:
        opened.append(memory() if request.param == "memory" else rocks())
        return opened[-1]

    yield again
    opened[-1].close()


def apply(store: Opened, root: Root, version: int, updates: Sequence[Update], width: int) -> Root:
    for low in range(0, len(updates), width):
        root, pages = Map(PageTable(store)).apply(root, version, updates[low : low + width])
        store.write(PageTable(store).put(version, pages), sync=False)
    return root


def test_an_epoch_begun_and_lost_is_applied_again_and_the_last_one_read_throughout(
    reopen: Callable[[], Opened],
) -> None:
    store = reopen()
    committed = apply(store, EMPTY_ROOT, 1, FIRST, 250)
    apply(store, committed, 2, SECOND[:400], 100)

    store = reopen()
    tree = Map(PageTable(store))
    root = committed
    for low in range(0, len(SECOND), 150):
        held = tree.lookup_many(committed, [index for index, _ in FIRST])
        assert [(leaf.index, leaf.entry_hash, leaf.version) for leaf in held if leaf] == [
            (index, entry_hash, 1) for index, entry_hash in FIRST
        ]
        root = apply(store, root, 2, SECOND[low : low + 150], 150)
    entries = dict(FIRST) | dict(SECOND)
    assert root == Root(2, naive_map.root(entries), len(entries))
    assert committed.hash == naive_map.root(dict(FIRST))


def test_threads_read_proofs_while_an_epoch_is_written(reopen: Callable[[], Opened]) -> None:
    store = reopen()
    committed = apply(store, EMPTY_ROOT, 1, FIRST, 600)
    tree = Map(PageTable(store))

    def read(part: int) -> bool:
        asked = [index for index, _ in FIRST[part::4]]
        proofs = [proof for proof, _ in tree.find_many(committed, asked)]
        return all(
            map_root(index, proof) == committed.hash for index, proof in zip(asked, proofs, strict=True)
        )

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, part) for part in range(4)]
        apply(store, committed, 2, SECOND, 60)
        readers += [pool.submit(read, part) for part in range(4)]
        assert all(reader.result() for reader in readers)
