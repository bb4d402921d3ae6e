"""A directory of any size, made at once: one epoch that is loaded into a store as if a signer had made it.

What is true: the map and every proof from it, the head with its signatures, and all that belongs to a sample
of labels: VRF indices, signed mutations and openings. The real client accepts each lookup of the sample.

What is synthetic: the other entries. Their indices and entry hashes are random, and their rows are noise of
the length of a mutation. The log of mutations has one record, which is none. A monitor would refuse the
directory. A front end does not notice: it decides no verdict of an epoch that it adopts or has
committed, and reads rows of the labels that are asked for alone.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kt_es.config.settings import Settings
from kt_es.crypto.hashes import OPENING_SIZE, commit, log_leaf_hash, sha256
from kt_es.crypto.signatures import ED25519, PrivateKey
from kt_es.crypto.vrf import VrfPrivateKey, index_of
from kt_es.epochs import Standing
from kt_es.errors import KtError
from kt_es.eventstore.streams import NO_STREAM, EventLog, StreamNames, content_event
from kt_es.formats.configs import SignedConfig
from kt_es.formats.entries import OPENING, Entry, Mutation, Opening, ProfileKey, PublicKey, encode_profile
from kt_es.formats.heads import MAP_HEAD, HeadEvent, MapHead
from kt_es.formats.queue import RECORDS, encode_records
from kt_es.ledger.fold import with_head
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.rows import Committed
from kt_es.ledger.shared_tables import tables_of
from kt_es.ledger.store import Change, Store
from kt_es.ledger.tables import MUTATIONS_LOG, StoredEntry
from kt_es.merkle.log import LogState
from kt_es.merkle.map import EMPTY_ROOT, LeafRef, Map, Root
from kt_es.process.clock import wall_clock
from projections.follower import OpeningsFollower
from signer.work import sign_head

EPOCH = 1
RECORD = b"a record of kt bench shared"
"""What the log of mutations has in the place of the records of the epoch, alone in its first event."""
APPENDERS = 8
"""Threads that append openings."""
SLICES = 256
"""Slices of the map, one for each first byte of an index: they share only the topmost pages."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A label that can be looked up, with all that belongs to it."""

    label: str
    mutation: Mutation
    opening: Opening

    @property
    def leaf(self) -> LeafRef:
        return LeafRef(self.mutation.entry.index, self.mutation.entry_hash, EPOCH)


def sample_labels(origin: str, vrf: VrfPrivateKey, count: int, prefix: str = "person") -> list[Sampled]:
    """Make ``count`` labels, whose places in the map are as random as those of all others."""
    key = PrivateKey.from_seed(ED25519, os.urandom(32))
    authorized = (PublicKey(ED25519, key.public),)
    return [_sampled(f"{prefix} {number}", origin, vrf, key, authorized) for number in range(count)]


def _sampled(
    label: str, origin: str, vrf: VrfPrivateKey, key: PrivateKey, authorized: tuple[PublicKey, ...]
) -> Sampled:
    index = index_of(vrf.prove(label.encode())[0])
    profile = encode_profile([ProfileKey("laptop", "raw", sha256(label.encode()))])
    secret = os.urandom(OPENING_SIZE)
    entry = Entry(index, 1, commit(secret, label, 1, profile), authorized, None)
    mutation = Mutation.sign(entry, origin, [key])
    return Sampled(label, mutation, Opening(mutation.entry_hash, secret, profile))


def fill(
    stores: Sequence[Store], sample: Sequence[Sampled], entries: int, progress: Callable[[int], None]
) -> Root:
    """Write the map of ``entries``, those of ``sample`` included, into each of ``stores``.

    The map is computed over the first store, so the fast one comes first. ``progress`` is called with the
    number of entries that are written.
    """
    all_tables = [tables_of(store) for store in stores]
    tree, root = Map(all_tables[0].pages), EMPTY_ROOT
    for rows in _slices(sample, entries):
        root, pages = tree.load(root, EPOCH, [leaf for leaf, _ in rows])
        for store, tables in zip(stores, all_tables, strict=True):
            changes = tables.pages.put(EPOCH, pages)
            changes += [tables.entries.put(leaf, entry) for leaf, entry in rows]
            store.write(changes, sync=False)
        progress(root.size)
    return root


def _slices(sample: Sequence[Sampled], entries: int) -> Iterator[list[tuple[LeafRef, StoredEntry]]]:
    """Yield the leaves of the map with their entries, sorted by the first byte of their indices."""
    noise = random.Random(entries)  # noqa: S311 - nothing depends on it that must stay secret
    others = entries - len(sample)
    length = len(sample[0].mutation.encode())
    for first in range(SLICES):
        rows = [
            (one.leaf, StoredEntry(0, one.mutation.encode())) for one in sample if one.leaf.index[0] == first
        ]
        for _ in range(others * (first + 1) // SLICES - others * first // SLICES):
            leaf = LeafRef(first.to_bytes(1) + noise.randbytes(31), noise.randbytes(32), EPOCH)
            rows.append((leaf, StoredEntry(0, noise.randbytes(length))))
        if rows:
            yield rows


def commit_epoch(
    stores: Sequence[Store], settings: Settings, config: SignedConfig, root: Root, key: PrivateKey
) -> HeadEvent:
    """Seal the epoch whose map is at ``root`` in each of ``stores``; return the head that publishes it.

    ``config`` is the one item of the queue, and ``key`` the signer key that it names.
    """
    timestamp = wall_clock()
    log, created = LogState().append([log_leaf_hash(RECORD)])
    head = MapHead(
        settings.origin, EPOCH, root.hash, root.size, log.size, log.root(), 1, timestamp, config.config.hash
    )
    standing = Standing(settings.origin, settings.pinned, EPOCH, timestamp, config)
    state = Committed(standing, root, log, LogState(), queue_next=1, records_next=1)
    event = sign_head(head, state, key)
    for store in stores:
        tables = tables_of(store)
        changes: list[Change] = [*tables.states.put_published(event, state)]
        changes.append(tables.configs.put(EPOCH, 0, config.encode()))
        changes += tables.nodes.put(MUTATIONS_LOG, created)
        store.write([*changes, *with_head(tables, state, event, state.records_next)[1]])
    return event


def publish_epoch(log: EventLog, names: StreamNames, event: HeadEvent) -> None:
    """Append the one record of the epoch and its head to the logs, which are empty."""
    records = content_event(names.mutations, RECORDS, encode_records(0, [RECORD]))
    log.append(names.mutations, NO_STREAM, [records])
    log.append(names.heads, NO_STREAM, [content_event(names.heads, MAP_HEAD, event.encode())])


def publish_openings(
    log: EventLog, names: StreamNames, sample: Sequence[Sampled], table: OpeningTable
) -> None:
    """Append the openings of ``sample`` to their streams, and follow them into ``table``."""

    def append(sampled: Sampled) -> None:
        stream = names.openings(sampled.mutation.entry.index)
        log.append(stream, NO_STREAM, [content_event(stream, OPENING, sampled.opening.encode())])

    with ThreadPoolExecutor(APPENDERS) as pool:
        for _ in pool.map(append, sample):
            pass
    follower = OpeningsFollower(lambda: log, names, table, _raise)
    subscription = log.subscribe_prefix(names.openings_prefix)
    missing = len(sample)
    for event in subscription:
        follower.add(event)
        missing -= bool(event.type)
        if not missing:
            break
    subscription.stop()


def _raise(error: KtError) -> None:
    raise error
