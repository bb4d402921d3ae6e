"""Retention: deleting the pages that no kept epoch needs, and checking that a kept epoch has all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from kt_es.errors import ConfigError, DivergenceError, UnverifiedRowError, counted
from kt_es.ledger.ledger import Ledger, require_epoch
from kt_es.ledger.proofs import head_at, map_root_at, roots_from
from kt_es.ledger.shared_tables import SharedTables
from kt_es.merkle.map import EMPTY_ROOT, Root
from kt_es.merkle.pages import VERSION_SIZE, describe, version_in
from kt_es.merkle.walk import replaced, walk

BATCH = 1_000  # entries in one read

NEW_KEYSPACE = "name a new keyspace in kt.toml ([store] shared), run `kt store init`, then `kt store rebuild`"


def _refuse(sentence: str) -> None:
    raise UnverifiedRowError(sentence)


def prune(ledger: Ledger, keep: int, problem: Callable[[str], None] = _refuse) -> int:
    """Delete the pages that none of the last ``keep`` epochs needs, and return how many.

    Heads, records, entries and nodes of the logs stay: both logs can be replayed and proven in full. Lookups
    and histories of older epochs are refused from then on. No other process may use a store on disk during
    the call; a shared store may stay in use.

    ``problem`` is called with a sentence for each list of pages in a shared store that is missing or wrong.
    The pages that such a list should name stay stored. They take space and do no other harm. By default the
    sentence is raised as an error.

    Raises ``ConfigError`` if ``keep`` is not at least 1, or if there is no epoch yet, and
    ``UnverifiedRowError`` if the bounds of earlier prunes in a shared store cannot be true.
    """
    require_epoch(ledger)
    if keep < 1:
        raise ConfigError(f"{keep} epochs cannot be kept: keep 1 or more")
    _check_bounds(ledger)
    oldest = max(ledger.oldest, ledger.committed.epoch - keep + 1)
    # The bound is written before any page is deleted, so that nobody reads an incomplete epoch.
    ledger.store.write([ledger.tables.states.put_oldest(oldest)])
    ledger.oldest = oldest
    if isinstance(ledger.tables, SharedTables):
        return _prune_shared(ledger, ledger.tables, oldest, problem)
    return ledger.tables.pages.prune(oldest)


def _prune_shared(ledger: Ledger, tables: SharedTables, oldest: int, problem: Callable[[str], None]) -> int:
    """Delete the pages that the epochs up to ``oldest`` replaced, and the states before ``oldest``.

    A list counts only if its key names the published head. Lists of aborted epochs may name other pages.
    Pages that a kept epoch needs are never deleted, whatever a list says.
    """
    root, count = map_root_at(ledger, ledger.committed, oldest), 0
    newest = oldest.to_bytes(VERSION_SIZE)

    def needed(keys: Sequence[bytes]) -> str | None:
        kept = ledger.map.pages_of(root, keys)
        for key in keys:
            if key in kept or version_in(key) > newest:
                return (
                    f"a list of pages that epoch {epoch} has replaced names {describe(key)}, which kept "
                    "epochs need: nothing of the list was deleted"
                )
        return None

    first = tables.states.pruned() + 1
    before = map_root_at(ledger, ledger.committed, first - 1) if first > 1 else EMPTY_ROOT
    for epoch, (smh, after) in enumerate(roots_from(ledger, before, first, oldest), first):
        count += tables.pages.prune_epoch(epoch, smh, needed, problem)
        # An epoch that changes the map always replaces the topmost page.
        if after != before and tables.pages.has_top(before):
            problem(
                f"no list of the pages that epoch {epoch} has replaced names the topmost one: pages that no "
                "list names stay, and take space"
            )
        before = after
        if epoch < oldest:
            ledger.store.write(tables.states.delete_published(epoch))
        ledger.store.write([tables.states.put_pruned(epoch)])
    return count


def check_epoch(
    ledger: Ledger,
    epoch: int,
    problem: Callable[[str], None],
    seen: Callable[[int], None] = lambda _count: None,
) -> int:
    """Compare every page and every entry of ``epoch`` with its head, and return the number of entries.

    Signatures beside the entries are not verified, since no head covers them.

    Args:
        problem: Called with a sentence for every row that is missing, damaged or wrong.
        seen: Called with the number of further entries that were found.

    Raises:
        ConfigError: The epoch is not kept here.
        UnverifiedRowError: In a shared store, a bound of earlier prunes or a head is wrong.
    """
    check_kept(ledger, epoch)
    root, count = map_root_at(ledger, ledger.committed, epoch), 0
    if isinstance(ledger.tables, SharedTables) and epoch > ledger.oldest:
        _check_lists(ledger, ledger.tables, epoch, root, problem)
    leaves = walk(ledger.tables.pages, root, problem)
    while some := list(islice(leaves, BATCH)):
        count += len(some)
        seen(len(some))
        try:
            ledger.mutations_at(root, some)
        except DivergenceError:
            for leaf in some:
                try:
                    ledger.mutations_at(root, [leaf])
                except DivergenceError as error:
                    problem(str(error))
    if count != root.size:
        problem(f"the map of epoch {epoch} has {count} entries, its head says {root.size}")
    return count


def check_kept(ledger: Ledger, epoch: int) -> None:
    """Raise an error as ``check_epoch`` does, unless the pages of ``epoch`` are kept."""
    require_epoch(ledger)
    _check_bounds(ledger)
    newest, begun = ledger.committed.epoch, ledger.tables.states.beginning().epoch
    if begun and epoch != newest:
        # Which epoch wrote the root page of a later epoch is known only from the heads before the snapshot.
        raise ConfigError(f"the directory began with a snapshot: of it only epoch {newest} can be checked")
    if not ledger.oldest <= epoch <= newest:
        raise ConfigError(f"epoch {epoch} is not kept here: choose one from {ledger.oldest} to {newest}")


def _check_lists(
    ledger: Ledger, tables: SharedTables, epoch: int, root: Root, problem: Callable[[str], None]
) -> None:
    """Compare the lists of the pages that ``epoch`` replaced with the maps before and after it.

    The keys in the lists are in memory at the same time, some 100 bytes each.
    """
    try:
        smh, _ = head_at(ledger, epoch)
        named = {key for _, keys in tables.pages.listed(epoch, smh, problem) for key in keys}
        before = map_root_at(ledger, ledger.committed, epoch - 1)
        lacking = sum(key not in named for key in replaced(tables.pages, before, root))
        keys = sorted(named)
        needed = [
            key
            for at in range(0, len(keys), BATCH)
            for key in sorted(ledger.map.pages_of(root, keys[at : at + BATCH]))
        ]
    except UnverifiedRowError as error:
        problem(str(error))
        return
    if lacking:
        problem(
            f"the lists of pages that epoch {epoch} has replaced lack {counted(lacking, 'pages')}: "
            "`kt store prune` will leave them"
        )
    for key in needed:
        problem(f"a list of pages that epoch {epoch} has replaced names {describe(key)}, which it needs")


def _check_bounds(ledger: Ledger) -> None:
    """Raise ``UnverifiedRowError`` if no prune can have written the bounds in a shared store."""
    tables, newest = ledger.tables, ledger.committed.epoch
    if not isinstance(tables, SharedTables):
        return
    oldest, pruned = tables.states.oldest(), tables.states.pruned()
    if oldest > newest:
        raise UnverifiedRowError(
            f"the row about/oldest of the shared store is wrong: it says that epochs before {oldest} were "
            f"pruned, and the newest epoch is {newest}. Front ends refuse all lookups, and the row cannot be "
            f"lowered: {NEW_KEYSPACE}"
        )
    if pruned > oldest:
        raise UnverifiedRowError(
            f"the row about/pruned of the shared store is wrong: it says that the pages of epochs before "
            f"{pruned} were deleted, and epochs from {oldest} on are kept. A prune would leave pages that "
            f"nothing needs, and the row cannot be lowered: {NEW_KEYSPACE}"
        )
