"""Retention: deleting the pages that no kept epoch needs, and checking that a kept epoch has all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from kt_es.errors import ConfigError, DivergenceError, UnverifiedRowError
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.proofs import map_root_at, prove_head
from kt_es.ledger.shared_tables import SharedTables
from kt_es.merkle.pages import VERSION_SIZE, describe, version_in
from kt_es.merkle.walk import walk

BATCH = 1_000  # entries in one read


def prune(ledger: Ledger, keep: int) -> int:
    """Delete the pages that none of the last ``keep`` epochs needs, and return how many.

    Heads, records, entries and nodes of the logs stay: both logs can be replayed and proven in full. Lookups
    and histories of older epochs are refused from then on. Nobody else may use a store on disk; a shared one
    stays in use.

    Raises ``ConfigError`` if ``keep`` is not at least 1, or if there is no epoch yet.
    """
    _require_epoch(ledger)
    if keep < 1:
        raise ConfigError(f"{keep} epochs cannot be kept: keep 1 or more")
    oldest = max(ledger.oldest, ledger.committed.epoch - keep + 1)
    # Before the first page goes, so that nobody reads an epoch that is not whole.
    ledger.store.write([ledger.tables.states.put_oldest(oldest)])
    ledger.oldest = oldest
    if isinstance(ledger.tables, SharedTables):
        return _prune_shared(ledger, ledger.tables, oldest)
    return ledger.tables.pages.prune(oldest)


def _prune_shared(ledger: Ledger, tables: SharedTables, oldest: int) -> int:
    """Delete what the epochs up to ``oldest`` have replaced, epoch by epoch, and the states before it.

    A list counts if it is the one of the published head. Lists of aborted epochs may name other pages. Pages
    that a kept epoch needs are never deleted, whatever a list says.
    """
    root, count = map_root_at(ledger, ledger.committed, oldest), 0
    newest = oldest.to_bytes(VERSION_SIZE)

    def check(keys: Sequence[bytes]) -> None:
        needed = ledger.map.pages_of(root, keys)
        for key in keys:
            if key in needed or version_in(key) > newest:
                raise UnverifiedRowError(
                    f"the list of pages that epoch {epoch} has replaced names {describe(key)}, which kept "
                    "epochs need: delete that list from the shared store"
                )

    for epoch in range(tables.states.pruned() + 1, oldest + 1):
        event, _ = prove_head(ledger, ledger.committed, epoch)
        count += tables.pages.prune_epoch(epoch, event, check)
        if epoch < oldest:
            ledger.store.write(tables.states.delete_published(epoch))
        ledger.store.write([tables.states.put_pruned(epoch)])
    return count


def check_epoch(ledger: Ledger, epoch: int, problem: Callable[[str], None]) -> int:
    """Compare every page and every entry of ``epoch`` with its head, and return the number of entries.

    ``problem`` is called with a sentence for everything that is missing, damaged or another one.

    Raises ``ConfigError`` for an epoch that is not kept here.
    """
    _require_epoch(ledger)
    newest, begun = ledger.committed.epoch, ledger.tables.states.beginning().epoch
    if begun and epoch != newest:
        # The heads before the snapshot would tell which epoch wrote the root page of a later one.
        raise ConfigError(f"the directory began with a snapshot: of it only epoch {newest} can be checked")
    if not ledger.oldest <= epoch <= newest:
        raise ConfigError(f"epoch {epoch} is not kept here: choose one from {ledger.oldest} to {newest}")
    root, count = map_root_at(ledger, ledger.committed, epoch), 0
    leaves = walk(ledger.tables.pages, root, problem)
    while some := list(islice(leaves, BATCH)):
        count += len(some)
        try:
            ledger.mutations_at(some)
        except DivergenceError:
            for leaf in some:
                try:
                    ledger.mutations_at([leaf])
                except DivergenceError as error:
                    problem(str(error))
    if count != root.size:
        problem(f"the map of epoch {epoch} has {count} entries, its head says {root.size}")
    return count


def _require_epoch(ledger: Ledger) -> None:
    if ledger.committed.epoch == 0:
        raise ConfigError("the data directory has no epoch yet: start its process first")
