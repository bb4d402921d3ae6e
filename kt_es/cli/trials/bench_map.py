"""``kt bench map``: the versioned map over RocksDB. An update counts when it is durable on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from kt_es.cli.trials.bench_report import Row, peak_memory
from kt_es.crypto.hashes import sha256
from kt_es.ledger.pages import PageCache, PageTable
from kt_es.ledger.rocks import RocksStore
from kt_es.ledger.tables import FAMILIES
from kt_es.merkle.map import EMPTY_ROOT, Map, Root
from kt_es.merkle.verify import map_root, require_root

Update = tuple[bytes, bytes]
LEAST_UPDATES_PER_SECOND = 20_000
PROOFS = 1_000
_STRIDE = 7_919
"""A prime, so that the steps of a run spread over all entries and name none twice."""


def bench_map(directory: Path, entries: int = 100_000, epoch: int = 10_000, runs: int = 5) -> list[Row]:
    """Load a map in the empty ``directory``, and then update it. Apply, write and ``flush_wal`` are timed.

    Args:
        directory: where the map is.
        entries: how many entries are loaded.
        epoch: how many of them each run updates; at most ``entries``.
        runs: how many updates are measured; at least 1.
    """
    store = RocksStore.open(directory, FAMILIES)
    try:
        return _measure(store, directory, entries, epoch, runs)
    finally:
        store.close()


def _measure(store: RocksStore, directory: Path, entries: int, epoch: int, runs: int) -> list[Row]:
    tree = Map(PageTable(store), PageCache())
    indices = sorted(sha256(b"index %d" % number) for number in range(entries))
    slices = [_updates(1, indices[low : low + epoch]) for low in range(0, entries, epoch)]
    root = EMPTY_ROOT
    began = perf_counter()
    for updates in slices:
        root = _advance(store, tree, root, 1, updates)
    loading = perf_counter() - began
    store.compact()
    on_disk = sum(path.stat().st_size for path in directory.glob("*.sst"))

    seconds = []
    for run in range(runs):
        chosen = [indices[(run + number * _STRIDE) % entries] for number in range(epoch)]
        updates = _updates(run + 2, chosen)
        began = perf_counter()
        root = _advance(store, tree, root, run + 2, updates)
        seconds.append(perf_counter() - began)
    per_second = [epoch / taken for taken in seconds]
    return [
        Row.of("updates_per_second", "updates/s", per_second, LEAST_UPDATES_PER_SECOND),
        Row.of("time_per_update", "µs", [taken / epoch * 1e6 for taken in seconds]),
        Row.of("bulk_load", "entries/s", [entries / loading]),
        Row.of("disk_per_entry", "bytes", [on_disk / entries]),
        *_proofs(tree, root, indices, runs),
        Row.of("peak_memory", "MB", [peak_memory()]),
    ]


def _advance(store: RocksStore, tree: Map, root: Root, version: int, updates: Sequence[Update]) -> Root:
    root, pages = tree.apply(root, version, updates)
    store.write(PageTable(store).put(pages))
    return root


def _updates(version: int, indices: Sequence[bytes]) -> list[Update]:
    return [(index, sha256(b"entry %d" % version + index)) for index in indices]


def _proofs(tree: Map, root: Root, indices: Sequence[bytes], runs: int) -> list[Row]:
    times, sizes = [], []
    for run in range(runs):
        chosen = [indices[(run + number * _STRIDE) % len(indices)] for number in range(PROOFS)]
        began = perf_counter()
        proofs = [tree.prove(root, index) for index in chosen]
        times.append((perf_counter() - began) / PROOFS * 1e6)
        for index, proof in zip(chosen, proofs, strict=True):
            require_root("map", map_root(index, proof), root.hash)
        sizes.append(sum(len(proof.siblings) for proof in proofs) / PROOFS)
    return [Row.of("time_per_proof", "µs", times), Row.of("siblings_per_proof", "hashes", sizes)]
