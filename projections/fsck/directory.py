"""The map, the entries, the heads and the openings of a data directory."""

from __future__ import annotations

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.entries import INDEX_LENGTH, Mutation
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.formats.profiles import Opening
from kt_es.ledger.chains import breach_of_chain
from kt_es.ledger.configs import config_chain
from kt_es.ledger.ledger import ENTRIES, HEADS, HEADS_LOG, OPENINGS, PAGES, SEQUENCE_SIZE
from kt_es.ledger.store import Family
from kt_es.merkle.log import NodeId, node_key
from kt_es.merkle.map import LeafRef
from kt_es.merkle.walk import walk
from projections.fsck.findings import EPOCH_SIZE, Examined

BATCH = 256


def examine_map(it: Examined) -> None:
    """Every page hashes up to the root, and behind every leaf stands its entry."""
    root = it.ledger.committed.root
    batch: list[LeafRef] = []
    for leaf in walk(Family(it.store, PAGES), root, it.findings.differs):
        it.findings.count("leaves of the map")
        batch.append(leaf)
        if len(batch) == BATCH:
            _behind(it, batch)
            batch = []
    _behind(it, batch)
    found = it.findings.report.counts["leaves of the map"]
    if found != root.size:
        it.findings.differs(f"the map has {found} leaves, must have {root.size}")


def _behind(it: Examined, leaves: list[LeafRef]) -> None:
    try:
        it.ledger.mutations_at(leaves)
    except DivergenceError:
        for leaf in leaves:
            try:
                it.ledger.mutations_at([leaf])
            except DivergenceError as error:
                it.findings.differs(str(error))


def examine_entries(it: Examined) -> None:
    """Every entry, the past ones too, is signed and follows the one before; of no epoch: counted."""
    committed = it.ledger.committed
    before: tuple[bytes, int, Mutation] | None = None
    for key, value in it.store.scan(ENTRIES):
        index, epoch = key[:INDEX_LENGTH], int.from_bytes(key[INDEX_LENGTH:])
        where = f"the entry at index {index.hex()} of epoch {epoch}"
        if len(key) != INDEX_LENGTH + EPOCH_SIZE:
            it.findings.differs(f"an entry stands under a key of {len(key)} bytes")
            continue
        if epoch > committed.epoch:
            it.findings.count("entries of an unfinished epoch")
            continue
        it.findings.count("entries")
        sequence = int.from_bytes(value[:SEQUENCE_SIZE])
        try:
            mutation = Mutation.decode(value[SEQUENCE_SIZE:])
        except MalformedError as error:
            it.findings.differs(f"{where} is damaged: {error}")
            continue
        if mutation.entry.index != index:
            it.findings.differs(f"{where} is of another index")
        if sequence >= committed.log.size:
            it.findings.differs(f"{where} names a record that is to come")
        of_index = before if before is not None and before[0] == index else None
        if of_index is not None and sequence <= of_index[1]:
            it.findings.differs(f"{where} names a record before that of the version before")
        breach = breach_of_chain(
            mutation, None if of_index is None else of_index[2], it.origin, epoch <= it.begun.epoch
        )
        if breach:
            it.findings.differs(f"{where} {breach}")
        before = (index, sequence, mutation)


def examine_heads(it: Examined) -> None:
    """Heads without a gap, signed by the config they name, growing, and leaves of the log of heads."""
    configs = {signed.config.hash: signed.config for signed in config_chain(it.ledger, it.ledger.committed)}
    expected = max(1, it.begun.epoch)
    before: MapHead | None = None
    for key, data in it.store.scan(HEADS):
        epoch = int.from_bytes(key)
        if epoch != expected:
            it.findings.differs(f"the head of epoch {expected} is missing")
            before = None
        expected = epoch + 1
        it.findings.count("heads")
        try:
            smh_bytes = HeadEvent.decode(data).smh_bytes
            smh = SignedMapHead.decode(smh_bytes)
            config = configs.get(smh.head.config_hash)
            if config is not None:
                smh.verify(it.origin, config.signer_key)
        except (MalformedError, VerificationError) as error:
            it.findings.differs(f"the head of epoch {epoch}: {error}")
            before = None
            continue
        if config is None:
            it.findings.differs(f"the head of epoch {epoch} names a config that is not known here")
        if smh.head.epoch != epoch:
            it.findings.differs(f"the head of epoch {epoch} says it is of epoch {smh.head.epoch}")
        if before is not None and not _grows(before, smh.head):
            it.findings.differs(f"the head of epoch {epoch} goes back behind the one before it")
        before = smh.head
        (leaf,) = it.ledger.nodes(HEADS_LOG, [node_key(NodeId(0, epoch - 1))])
        # The head that a snapshot began with may be inside a larger node.
        if leaf != log_leaf_hash(smh_bytes) and not (leaf is None and epoch == it.begun.epoch):
            it.findings.differs(f"the head of epoch {epoch} is another one than the log of heads has")
    if expected != it.ledger.committed.epoch + 1:
        it.findings.differs(f"the last head is of epoch {expected - 1}, must be {it.ledger.committed.epoch}")


def examine_openings(it: Examined) -> None:
    """Openings decode. What is in them is private and is not told."""
    damaged = 0
    for _, data in it.store.scan(OPENINGS):
        it.findings.count("openings")
        try:
            if data:
                Opening.decode(data)
        except MalformedError:
            damaged += 1
    if damaged:
        it.findings.differs(f"{damaged} openings are damaged")


def _grows(before: MapHead, head: MapHead) -> bool:
    return (
        head.timestamp > before.timestamp
        and head.log_size > before.log_size
        and head.queue_next > before.queue_next
        and head.map_size >= before.map_size
    )
