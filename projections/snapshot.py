"""Saves the committed state of a directory to one file, and begins a data directory with such a file.

A snapshot holds what a signer or a monitor needs to continue: the state, its head, the configs and every
current entry. It has no past entries, so a front end, which serves history, rebuilds from the logs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO

from kt_es.errors import DivergenceError, MalformedError
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import Mutation, PublicKey
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.snapshots import (
    LENGTH_SIZE,
    MAX_CHUNK,
    MAX_ROWS,
    SnapshotHeader,
    SnapshotRow,
    decode_rows,
    encode_rows,
)
from kt_es.ledger.anchor import check_commit, check_state
from kt_es.ledger.authorized import RowCheck, entries_at, record_check
from kt_es.ledger.ledger import SLICE, Ledger, check_key, config_chain, require_epoch
from kt_es.ledger.rows import Beginning, Committed
from kt_es.ledger.store import Change, Store
from kt_es.ledger.tables import HEADS_LOG, MUTATIONS_LOG, StoredEntry, Tables
from kt_es.merkle.log import plan_state
from kt_es.merkle.map import EMPTY_ROOT, LeafRef, Map, Root
from kt_es.merkle.walk import walk

Progress = Callable[[str, int], None]
"""Called now and then with the present step, and the number of things for which it is done."""


def save(ledger: Ledger, file: BinaryIO, progress: Progress = lambda _w, _n: None) -> MapHead:
    """Write the committed state of ``ledger`` to ``file``, and return its head.

    Every page and entry is verified, and the verified bytes are saved. Entries of a shared store are verified
    as for an answer, and their sequence numbers by ``record_check``.

    Raises:
        ConfigError: The directory has no epoch yet.
        DivergenceError: The directory is damaged.
    """
    require_epoch(ledger)
    committed = ledger.committed
    check_commit(ledger)
    event = ledger.tables.heads.event(committed.epoch).whole()
    configs = tuple(signed.encode() for signed in config_chain(ledger, committed))
    sink = _Sink(file)
    sink.chunk(SnapshotHeader(committed.encode(), event.encode(), configs).encode())
    leaves = walk(ledger.tables.pages, committed.root, _raise)
    count, check = 0, record_check(ledger)
    while batch := list(islice(leaves, MAX_ROWS)):
        sink.chunk(encode_rows(_rows(ledger, committed.root, batch, check)))
        count += len(batch)
        progress("entries saved", count)
    if count != committed.root.size:
        raise DivergenceError(
            f"the map has {count} leaves, must have {committed.root.size}: examine the data with `kt fsck`"
        )
    sink.end()
    return SignedMapHead.decode(event.smh_bytes).head


def _rows(ledger: Ledger, root: Root, leaves: list[LeafRef], check: RowCheck) -> list[SnapshotRow]:
    return [
        SnapshotRow(leaf.index, leaf.version, row.sequence, row.data)
        for leaf, row, _ in entries_at(ledger, root, leaves, check)
    ]


def _raise(problem: str) -> None:
    raise DivergenceError(problem)


def load(
    file: BinaryIO, store: Store, origin: str, pinned: PublicKey, progress: Progress = lambda _w, _n: None
) -> MapHead:
    """Begin the empty ``store`` with a snapshot of the directory ``origin``, and return its head.

    The state is compared with its signed head and with the chain of configs before anything is written. Then
    the entries are written and compared with the map root. The state is committed last.

    Raises:
        DivergenceError: The store is not empty, or the snapshot differs from its signed head. Rows that were
            written do not count.
    """
    tables = Tables(store)
    if not tables.is_empty():
        raise DivergenceError("the data directory is not empty: load the snapshot into an empty one")
    source = _Source(file)
    try:
        header = SnapshotHeader.decode(source.chunk())
        committed = Committed.decode(header.committed, origin, pinned)
        event = HeadEvent.decode(header.head_event)
        chain = tuple(SignedConfig.decode(data) for data in header.configs)
        _check_configs(committed, chain)
        check_state(committed, event, chain)
        head = SignedMapHead.decode(event.smh_bytes).head
        check_key(chain, head.epoch, head.config_hash, pinned)
        _load_entries(source, store, committed, progress)
        source.check_end()
    except MalformedError as error:
        raise DivergenceError(f"the snapshot is damaged: {error}; copy it again or save a new one") from None
    store.write(_rest(tables, committed, event, header.configs), sync=True)
    check_commit(Ledger(store, origin, pinned))
    return head


def _check_configs(committed: Committed, chain: Sequence[SignedConfig]) -> None:
    if committed.epoch == 0 or chain[-1] != committed.standing.config:
        raise MalformedError("snapshot header", "its configs are not those of its state")


def _load_entries(source: _Source, store: Store, committed: Committed, progress: Progress) -> None:
    """Build the map of the entries, in slices, and compare its root."""
    tables = Tables(store)
    tree, root, must = Map(tables.pages), EMPTY_ROOT, committed.root
    leaves = _leaves(source, committed)
    while batch := list(islice(leaves, SLICE)):
        root, pages = tree.load(root, must.version, [leaf for leaf, _ in batch])
        changes = tables.pages.put(must.version, pages)
        changes += [tables.entries.put(leaf, entry) for leaf, entry in batch]
        store.write(changes, sync=False)
        progress("entries loaded", root.size)
    if root != must:
        raise DivergenceError(
            f"the snapshot's entries make map_root {root.hash.hex()} of {root.size}, "
            f"its signed head says {must.hash.hex()} of {must.size}"
        )


def _leaves(source: _Source, committed: Committed) -> Iterator[tuple[LeafRef, StoredEntry]]:
    """Yield the leaf and the entry of each row; indices ascend."""
    last = b""
    for row in source.rows():
        # Signatures are not part of what a head seals, so they are not verified again.
        mutation = Mutation.decode(row.mutation)
        where = f"entry of index {row.index.hex()}"
        if row.index <= last or mutation.entry.index != row.index:
            raise MalformedError(where, "is out of order or of another index")
        if row.epoch > committed.root.version or row.sequence >= committed.log.size:
            raise MalformedError(where, "is of an epoch or a record to come")
        last = row.index
        yield LeafRef(row.index, mutation.entry_hash, row.epoch), StoredEntry(row.sequence, row.mutation)


def _rest(tables: Tables, committed: Committed, event: HeadEvent, configs: Sequence[bytes]) -> list[Change]:
    """Return everything but the map: the edges of both logs, the head, the configs, and the state itself."""
    changes: list[Change] = []
    for log, state in ((HEADS_LOG, committed.heads), (MUTATIONS_LOG, committed.log)):
        changes += tables.nodes.put(log, list(zip(plan_state(state.size).nodes, state.hashes, strict=True)))
    changes += [tables.configs.put(1, number, data) for number, data in enumerate(configs)]
    return [
        *changes,
        *tables.heads.put(committed.epoch, event),
        tables.states.put_beginning(Beginning(committed.epoch, committed.log.size)),
        tables.states.put(committed),
    ]


class _Sink:
    """Writes chunks to a file, and the digest of all of them at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def chunk(self, data: bytes) -> None:
        framed = len(data).to_bytes(LENGTH_SIZE) + data
        self._digest.update(framed)
        self._file.write(framed)

    def end(self) -> None:
        self.chunk(b"")
        self._file.write(self._digest.digest())


class _Source:
    """Reads chunks from a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def rows(self) -> Iterator[SnapshotRow]:
        while data := self.chunk():
            yield from decode_rows(data)

    def check_end(self) -> None:
        """Raise ``MalformedError`` unless the digest follows, and nothing after it."""
        if self._file.read(self._digest.digest_size + 1) != self._digest.digest():
            raise MalformedError("snapshot", "its digest is not that of its content")

    def chunk(self) -> bytes:
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
