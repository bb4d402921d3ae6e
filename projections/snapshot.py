"""Saving the committed state of a directory to one file, and beginning a data directory with it.

A snapshot holds what a signer or a monitor needs to go on: the state, its head, the configs and every
current entry. It has no past: who serves history rebuilds from the logs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import BinaryIO

from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import Mutation
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.keys import PublicKey
from kt_es.formats.snapshots import (
    LENGTH_SIZE,
    MAX_CHUNK,
    MAX_ROWS,
    SnapshotHeader,
    SnapshotRow,
    decode_rows,
    encode_rows,
)
from kt_es.ledger.checks import check_commit, check_state, stored_head
from kt_es.ledger.configs import check_key, config_chain, config_change
from kt_es.ledger.ledger import (
    COMMITTED,
    ENTRIES,
    HEADS,
    HEADS_LOG,
    META,
    MUTATIONS_LOG,
    NODES,
    PAGES,
    SEQUENCE_SIZE,
    SLICE,
    Committed,
    Ledger,
    entry_key,
)
from kt_es.ledger.origin import Beginning
from kt_es.ledger.store import Change, Family, Storage
from kt_es.merkle.log import node_key, plan_state
from kt_es.merkle.map import EMPTY_ROOT, LeafRef
from kt_es.merkle.walk import walk

Told = Callable[[str, int], None]


def save(ledger: Ledger, file: BinaryIO, told: Told = lambda _w, _n: None) -> MapHead:
    """Write the committed state of ``ledger`` to ``file``; the head that it is of.

    Every page and entry is verified on the way. Raises ``DivergenceError`` if the directory is damaged or
    has no epoch yet.
    """
    committed = ledger.committed
    if committed.epoch == 0:
        raise DivergenceError("the data directory has no epoch yet: there is nothing to save")
    check_commit(ledger)
    event = stored_head(ledger, committed.epoch)
    configs = tuple(signed.encode() for signed in config_chain(ledger, committed))
    sink = _Sink(file)
    sink.chunk(SnapshotHeader(committed.encode(), event.encode(), configs).encode())
    leaves = walk(Family(ledger.store, PAGES), committed.root, _raise)
    count = 0
    while batch := list(islice(leaves, MAX_ROWS)):
        sink.chunk(encode_rows(_rows(ledger, batch)))
        count += len(batch)
        told("entries saved", count)
    if count != committed.root.size:
        raise DivergenceError(f"the map has {count} leaves, must have {committed.root.size}")
    sink.end()
    return SignedMapHead.decode(event.smh_bytes).head


def load(
    file: BinaryIO, store: Storage, origin: str, pinned: PublicKey, told: Told = lambda _w, _n: None
) -> MapHead:
    """Begin the empty ``store`` with a snapshot of the directory ``origin``; the head that it is of.

    The state is held against its signed head and the chain of configs from ``pinned`` on before anything
    is written, the entries against the map root before the state is committed, which comes last. Raises
    ``DivergenceError`` if anything differs; what was written until then means nothing.
    """
    if next(store.scan(META), None) is not None:
        raise DivergenceError("the data directory is not empty: a snapshot is loaded into an empty one")
    try:
        return _Loading(file, store, origin, pinned).run(told)
    except MalformedError as error:
        raise DivergenceError(f"the snapshot is damaged: {error}") from None


class _Loading:
    def __init__(self, file: BinaryIO, store: Storage, origin: str, pinned: PublicKey) -> None:
        self._source = _Source(file)
        self._store = store
        self._origin = origin
        self._pinned = pinned

    def run(self, told: Told) -> MapHead:
        header = SnapshotHeader.decode(self._source.header())
        committed = Committed.decode(header.committed, self._origin, self._pinned)
        event = HeadEvent.decode(header.head_event)
        chain = tuple(SignedConfig.decode(data) for data in header.configs)
        if committed.epoch == 0 or chain[-1] != committed.standing.config:
            raise MalformedError("snapshot header", "its configs are not those of its state")
        check_state(committed, event, chain)
        head = SignedMapHead.decode(event.smh_bytes).head
        check_key(chain, head.epoch, head.config_hash, self._pinned)
        self._entries(committed, told)
        self._source.check_end()
        self._store.write(_what_goes_on(committed, event, header), sync=True)
        check_commit(Ledger(self._store, self._origin, self._pinned))
        return head

    def _entries(self, committed: Committed, told: Told) -> None:
        """Build the map of the entries, in slices, and compare its root."""
        tree = Ledger(self._store, self._origin, self._pinned).map
        root, must = EMPTY_ROOT, committed.root
        leaves = self._leaves(committed)
        while batch := list(islice(leaves, SLICE)):
            root, pages = tree.load(root, must.version, [leaf for leaf, _ in batch])
            changes: list[Change] = [(PAGES, key, page) for key, page in pages]
            changes += [(ENTRIES, entry_key(leaf.index, leaf.version), value) for leaf, value in batch]
            self._store.write(changes, sync=False)
            told("entries loaded", root.size)
        if root != must:
            raise DivergenceError(
                f"the snapshot's entries make map_root {root.hash.hex()} of {root.size}, "
                f"its signed head says {must.hash.hex()} of {must.size}"
            )

    def _leaves(self, committed: Committed) -> Iterator[tuple[LeafRef, bytes]]:
        """Each entry's leaf, and what stands in the store for it; indices ascend."""
        last = b""
        for row in self._source.rows():
            # Signatures are not part of what a head seals, so they are not verified again.
            mutation = Mutation.decode(row.mutation)
            where = f"entry of index {row.index.hex()}"
            if row.index <= last or mutation.entry.index != row.index:
                raise MalformedError(where, "is out of order or of another index")
            if row.epoch > committed.root.version or row.sequence >= committed.log.size:
                raise MalformedError(where, "is of an epoch or a record to come")
            last = row.index
            value = row.sequence.to_bytes(SEQUENCE_SIZE) + row.mutation
            yield LeafRef(row.index, mutation.entry_hash, row.epoch), value


def _what_goes_on(committed: Committed, event: HeadEvent, header: SnapshotHeader) -> list[Change]:
    """Everything but the map: the edges of both logs, the head, the configs, and the state itself."""
    changes: list[Change] = []
    for log, state in ((HEADS_LOG, committed.heads), (MUTATIONS_LOG, committed.log)):
        nodes = zip(plan_state(state.size).nodes, state.hashes, strict=True)
        changes += [(NODES, log + node_key(node), value) for node, value in nodes]
    changes.append((HEADS, committed.epoch.to_bytes(8), event.encode()))
    changes += [config_change(1, number, data) for number, data in enumerate(header.configs)]
    changes.append(Beginning(committed.epoch, committed.log.size).change())
    changes.append((META, COMMITTED, committed.encode()))
    return changes


def _rows(ledger: Ledger, leaves: list[LeafRef]) -> list[SnapshotRow]:
    # Verifies that each entry is the one of its leaf; what is saved are the very bytes.
    ledger.mutations_at(leaves)
    stored = ledger.store.get_many(ENTRIES, [entry_key(leaf.index, leaf.version) for leaf in leaves])
    return [
        SnapshotRow(leaf.index, leaf.version, int.from_bytes(value[:SEQUENCE_SIZE]), value[SEQUENCE_SIZE:])
        for leaf, value in zip(leaves, stored, strict=True)
        if value is not None
    ]


def _raise(problem: str) -> None:
    raise DivergenceError(problem)


class _Sink:
    """Chunks into a file, and the digest of all of it at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def chunk(self, data: bytes) -> None:
        self._write(len(data).to_bytes(LENGTH_SIZE) + data)

    def end(self) -> None:
        self._write(bytes(LENGTH_SIZE))
        self._file.write(self._digest.digest())

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


class _Source:
    """Chunks out of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def header(self) -> bytes:
        return self._chunk()

    def rows(self) -> Iterator[SnapshotRow]:
        while data := self._chunk():
            yield from decode_rows(data)

    def check_end(self) -> None:
        """The digest, and nothing behind it."""
        if self._file.read(self._digest.digest_size + 1) != self._digest.digest():
            raise MalformedError("snapshot", "its digest is not that of its content")

    def _chunk(self) -> bytes:
        length = int.from_bytes(self._take(LENGTH_SIZE))
        if length > MAX_CHUNK:
            raise MalformedError("snapshot", f"a part of it has {length} bytes, more than {MAX_CHUNK}")
        return self._take(length)

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise MalformedError("snapshot", "ends too early")
        self._digest.update(data)
        return data
