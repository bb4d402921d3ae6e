"""Check of the index of decisions: each accepted entry has the row of the record that accepted it."""

from __future__ import annotations

from kt_es.crypto.hashes import log_leaf_hash, sha256
from kt_es.errors import MalformedError
from kt_es.formats.queue import Item, ItemKind, Record, Verdict
from kt_es.ledger.tables import MUTATIONS_LOG, StoredEntry
from projections.fsck.directory import Examined


def examine_decisions(it: Examined) -> None:
    """Check the rows of all accepted entries, if the index has them. Rows of other records prove nothing."""
    tables, committed = it.ledger.tables, it.ledger.committed
    kept = tables.decisions.kept()
    if kept.until < committed.log.size:
        return  # Only the processes that answer from the index keep it.
    for _, epoch, stored in tables.entries.scan():
        if kept.since <= stored.sequence < committed.log.size and epoch <= committed.epoch:
            it.report.count("decisions")
            if not _has_row(it, epoch, stored):
                it.report.differs(f"the index of decisions lacks record {stored.sequence}, or has it wrong")


def _has_row(it: Examined, epoch: int, stored: StoredEntry) -> bool:
    tables = it.ledger.tables
    try:
        entry_hash = stored.mutation().entry_hash
    except MalformedError:
        return True  # ``examine_entries`` names it.
    for row in tables.decisions.find(entry_hash, sha256(stored.data)):
        if (row.verdict, row.sequence, row.epoch) == (Verdict.ACCEPTED, stored.sequence, epoch):
            item = Item(row.revision, row.position, ItemKind.MUTATION, stored.data)
            leaf = log_leaf_hash(Record(row.sequence, item, row.verdict).encode())
            return tables.nodes.leaves(MUTATIONS_LOG, row.sequence, 1)[0] == leaf and row.is_leaf(leaf)
    return False
