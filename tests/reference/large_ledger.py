"""A ledger of any size, made at once: one epoch's map by bulk, its head properly signed.

All entries but those of the builders' users that are named are random. Every head has the same map and is
properly signed: every proof has its true length and verifies.
"""

from __future__ import annotations

from collections.abc import Sequence

from kt_es.crypto.hashes import log_leaf_hash, sha256
from kt_es.epochs import Standing
from kt_es.formats.entries import Opening
from kt_es.formats.heads import MapHead
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.openings import OpeningTable
from kt_es.ledger.rows import Committed
from kt_es.ledger.store import Change, Store
from kt_es.ledger.tables import HEADS_LOG, StoredEntry
from kt_es.merkle.log import LogState
from kt_es.merkle.map import EMPTY_ROOT, LeafRef
from signer.work import sign_head
from tests import builders as b

SLICE = 20_000


def large_ledger(store: Store, entries: int, epochs: int, users: Sequence[str]) -> Ledger:
    """``entries`` in the map of each of ``epochs`` epochs, those of ``users`` with mutations and openings."""
    ledger = Ledger(store, b.ORIGIN, b.SIGNER_KEY)
    tables = ledger.tables
    root = EMPTY_ROOT
    mutations = [b.mutation(user) for user in users]
    updates = [(made.entry.index, made.entry_hash) for made in mutations]
    updates += [
        (sha256(b"index" + n.to_bytes(8)), sha256(b"entry" + n.to_bytes(8)))
        for n in range(entries - len(mutations))
    ]
    for start in range(0, entries, SLICE):
        root, pages = ledger.map.apply(root, 1, updates[start : start + SLICE])
        store.write(tables.pages.put(1, pages), sync=False)
    log, _ = LogState().append([sha256(b"record")])
    heads, events = LogState(), []
    changes: list[Change] = []
    for epoch in range(1, epochs + 1):
        timestamp = b.START + epoch * 1_000
        head = MapHead(
            b.ORIGIN, epoch, root.hash, root.size, 1, log.root(), 2, timestamp, b.signed_config().config.hash
        )
        standing = Standing(b.ORIGIN, b.SIGNER_KEY, epoch, timestamp, b.signed_config())
        events.append(sign_head(head, Committed(standing, root, log, heads, 2, 1), b.SIGNER))
        heads, nodes = heads.append([log_leaf_hash(events[-1].smh_bytes)])
        changes += tables.nodes.put(HEADS_LOG, nodes)
        changes += tables.heads.put(epoch, events[-1])
    committed = Committed(standing, root, log, heads, 2, 1)
    for user, made in zip(users, mutations, strict=True):
        index, opening = made.entry.index, Opening(made.entry_hash, b.opening(user), b.profile(user))
        changes.append(tables.entries.put(LeafRef(index, b"", 1), StoredEntry(0, made.encode())))
        changes.append((OpeningTable.FAMILY, index + made.entry_hash, opening.encode()))
    changes.append(tables.states.put(committed))
    changes.append(tables.configs.put(1, 0, b.signed_config().encode()))
    store.write(changes)
    return Ledger(store, b.ORIGIN, b.SIGNER_KEY)
