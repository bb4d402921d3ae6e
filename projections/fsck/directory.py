"""Checks of the map, the entries and the openings of a store, and their report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from kt_es.epochs import Current, is_authorized
from kt_es.errors import KtError, MalformedError
from kt_es.formats.entries import INDEX_LENGTH, Mutation, Opening
from kt_es.ledger.ledger import Ledger
from kt_es.ledger.pages import split_keys
from kt_es.ledger.retention import check_epoch
from kt_es.ledger.rows import Beginning
from kt_es.merkle.pages import version_in

MAX_DIFFERENCES = 20
PROGRESS_EVERY = 4096
BATCH = 256


class EnoughError(Exception):
    """As many differences were found as a report keeps, so the examination ends."""


@dataclass(slots=True)
class FsckReport:
    """How many things were examined, and the first differences. No difference means a good directory.

    Attributes:
        progress: Called now and then with what is examined, and how many.
        most: How many differences are kept.
        goes_on: Whether the examination goes on after ``most`` differences and only counts the others.
        found: How many differences were found.
    """

    progress: Callable[[str, int], None]
    most: int = MAX_DIFFERENCES
    goes_on: bool = False
    epoch: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    found: int = 0

    @property
    def is_good(self) -> bool:
        return not self.differences

    def differs(self, difference: str) -> None:
        """Note a difference, once. Raises ``EnoughError`` at ``most`` of them, unless ``goes_on``.

        Beyond ``most`` a difference that two checks find is counted twice.
        """
        if difference in self.differences:
            return
        self.found += 1
        if len(self.differences) < self.most:
            self.differences.append(difference)
        if self.found >= self.most and not self.goes_on:
            raise EnoughError

    def fails(self, where: str, error: KtError) -> None:
        """Note an error about ``where``, whose message need not begin with it."""
        self.differs(str(error) if str(error).startswith(where) else f"{where}: {error}")

    def count(self, what: str, more: int = 1) -> None:
        """Count ``more`` examined ``what``."""
        before = self.counts[what] // PROGRESS_EVERY
        self.counts[what] += more
        if self.counts[what] // PROGRESS_EVERY > before:
            self.progress(what, self.counts[what])


@dataclass(frozen=True, slots=True)
class Examined:
    """A store under examination, of a data directory or a shared one. ``begun`` is where its data began."""

    ledger: Ledger
    begun: Beginning
    report: FsckReport

    @property
    def origin(self) -> str:
        return self.ledger.committed.standing.origin


def examine_map(it: Examined, epoch: int) -> None:
    """Check that every page of ``epoch`` hashes up to the root, and that every leaf has its entry."""
    check_epoch(it.ledger, epoch, it.report.differs, lambda more: it.report.count("leaves of the map", more))


def examine_entries(it: Examined) -> None:
    """Check that every entry, past ones too, is signed and follows its predecessor."""
    committed = it.ledger.committed
    before: tuple[bytes, int, Mutation] | None = None
    for index, epoch, stored in it.ledger.tables.entries.scan():
        where = f"the entry at index {index.hex()} of epoch {epoch}"
        if len(index) != INDEX_LENGTH:
            it.report.differs(f"an entry has an index of {len(index)} bytes, must be {INDEX_LENGTH}")
            continue
        if epoch > committed.epoch:
            it.report.count("entries of an unfinished epoch")
            continue
        it.report.count("entries")
        try:
            mutation = stored.mutation()
        except MalformedError as error:
            it.report.differs(f"{where} is damaged: {error}")
            continue
        if mutation.entry.index != index:
            it.report.differs(f"{where} is of another index")
        if stored.sequence >= committed.log.size:
            it.report.differs(f"{where} names a record that no committed epoch has")
        of_index = before if before is not None and before[0] == index else None
        if of_index is not None and stored.sequence <= of_index[1]:
            it.report.differs(f"{where} names a record before that of the version before")
        previous = None if of_index is None else of_index[2]
        breach = breach_of_chain(mutation, previous, it.origin, from_snapshot=epoch <= it.begun.epoch)
        if breach:
            it.report.differs(f"{where} {breach}")
        before = (index, stored.sequence, mutation)


def breach_of_chain(mutation: Mutation, before: Mutation | None, origin: str, *, from_snapshot: bool) -> str:
    """Return why ``mutation`` cannot have been accepted after ``before``; nothing if it can.

    A snapshot may have ``mutation`` without its predecessors. Then only the signatures by its own keys can be
    verified.
    """
    entry = mutation.entry
    if before is not None:
        if entry.version != before.entry.version + 1 or entry.previous != before.entry_hash:
            return f"does not follow version {before.entry.version}"
        is_signed = is_authorized(mutation, Current(before.entry, before.entry_hash), origin)
    elif entry.version == 1 and entry.previous is None:
        is_signed = is_authorized(mutation, None, origin)
    elif from_snapshot:
        ids = {key.id for key in entry.authorized_keys}
        own = tuple(signature for signature in mutation.signatures if signature.key_id in ids)
        is_signed = bool(own) and is_authorized(replace(mutation, signatures=own), None, origin)
    else:
        return f"is version {entry.version}, but the one before is missing"
    return "" if is_signed else "is not signed as it must be"


def examine_replaced(it: Examined) -> None:
    """Check that each list of replaced pages names pages that are stored, all of epochs before its own.

    ``kt store prune`` deletes a list and its pages in one write, so no page of a stored list is missing.
    """
    pages = it.ledger.tables.pages
    for epoch, _, keys in pages.lists():
        it.report.count("lists of replaced pages")
        listed = list(split_keys(keys))
        are_older = all(int.from_bytes(version_in(key)) < epoch for key in listed)
        if not listed or not are_older or None in pages.get_many(listed):
            it.report.differs(
                f"the list of the pages that epoch {epoch} replaced is damaged, or a page of it is missing"
            )


def examine_openings(it: Examined) -> None:
    """Check that openings decode. Their content is private, so findings do not name them."""
    damaged = 0
    for data in it.ledger.tables.openings.scan():
        it.report.count("openings")
        try:
            if data:
                Opening.decode(data)
        except MalformedError:
            damaged += 1
    if damaged:
        it.report.differs(f"{damaged} openings are damaged")
