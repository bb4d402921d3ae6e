"""Checks of the map, the entries, the heads and the openings of a data directory, and their report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from kt_es.crypto.hashes import log_leaf_hash
from kt_es.epochs import Current, is_authorized
from kt_es.errors import DivergenceError, MalformedError, VerificationError
from kt_es.formats.entries import INDEX_LENGTH, Mutation, Opening
from kt_es.formats.heads import HeadEvent, MapHead, SignedMapHead
from kt_es.ledger.ledger import Ledger, config_chain
from kt_es.ledger.pages import split_keys
from kt_es.ledger.rows import Beginning
from kt_es.ledger.tables import HEADS_LOG
from kt_es.merkle.map import LeafRef
from kt_es.merkle.pages import version_in
from kt_es.merkle.walk import walk

MAX_DIFFERENCES = 20
PROGRESS_EVERY = 4096
BATCH = 256


class EnoughError(Exception):
    """``MAX_DIFFERENCES`` were found, so the examination ends."""


@dataclass(slots=True)
class FsckReport:
    """How many things were examined, and the first differences. No difference means a good directory.

    ``progress`` is called now and then with what is examined, and how many.
    """

    progress: Callable[[str, int], None]
    epoch: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.differences

    def differs(self, difference: str) -> None:
        """Note a difference, once. Raises ``EnoughError`` when there are ``MAX_DIFFERENCES``."""
        if difference in self.differences:
            return
        self.differences.append(difference)
        if len(self.differences) >= MAX_DIFFERENCES:
            raise EnoughError

    def count(self, what: str) -> None:
        """Count one more examined ``what``."""
        self.counts[what] += 1
        if self.counts[what] % PROGRESS_EVERY == 0:
            self.progress(what, self.counts[what])


@dataclass(frozen=True, slots=True)
class Examined:
    """A data directory under examination, and where its data began."""

    origin: str
    ledger: Ledger
    begun: Beginning
    report: FsckReport


def examine_map(it: Examined) -> None:
    """Check that every page hashes up to the root, and that every leaf has its entry."""
    root = it.ledger.committed.root
    leaves = _counted(it, walk(it.ledger.tables.pages, root, it.report.differs))
    while batch := list(islice(leaves, BATCH)):
        _examine_entries_of(it, batch)
    found = it.report.counts["leaves of the map"]
    if found != root.size:
        it.report.differs(f"the map has {found} leaves, must have {root.size}")


def _counted(it: Examined, leaves: Iterator[LeafRef]) -> Iterator[LeafRef]:
    for leaf in leaves:
        it.report.count("leaves of the map")
        yield leaf


def _examine_entries_of(it: Examined, leaves: list[LeafRef]) -> None:
    try:
        it.ledger.mutations_at(leaves)
    except DivergenceError:
        for leaf in leaves:
            try:
                it.ledger.mutations_at([leaf])
            except DivergenceError as error:
                it.report.differs(str(error))


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


def examine_heads(it: Examined) -> None:
    """Check that heads have no gap, are signed, grow, and are leaves of the log of heads."""
    configs = {signed.config.hash: signed.config for signed in config_chain(it.ledger, it.ledger.committed)}
    expected = max(1, it.begun.epoch)
    before: MapHead | None = None
    for epoch, data in it.ledger.tables.heads.scan():
        if epoch != expected:
            it.report.differs(f"the head of epoch {expected} is missing")
            before = None
        expected = epoch + 1
        it.report.count("heads")
        try:
            smh_bytes = HeadEvent.decode(data).smh_bytes
            smh = SignedMapHead.decode(smh_bytes)
            config = configs.get(smh.head.config_hash)
            if config is not None:
                smh.verify(it.origin, config.signer_key)
        except (MalformedError, VerificationError) as error:
            it.report.differs(f"the head of epoch {epoch}: {error}")
            before = None
            continue
        if config is None:
            it.report.differs(f"the head of epoch {epoch} names a config that is not known here")
        if smh.head.epoch != epoch:
            it.report.differs(f"the head of epoch {epoch} says it is of epoch {smh.head.epoch}")
        if before is not None and not _grows(before, smh.head):
            it.report.differs(f"the head of epoch {epoch} goes back behind the one before it")
        before = smh.head
        (leaf,) = it.ledger.tables.nodes.leaves(HEADS_LOG, epoch - 1, 1)
        # The head that a snapshot began with may be inside a larger node.
        if leaf != log_leaf_hash(smh_bytes) and not (leaf is None and epoch == it.begun.epoch):
            it.report.differs(f"the head of epoch {epoch} is another one than the log of heads has")
    if expected != it.ledger.committed.epoch + 1:
        it.report.differs(f"the last head is of epoch {expected - 1}, must be {it.ledger.committed.epoch}")


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


def _grows(before: MapHead, head: MapHead) -> bool:
    return (
        head.timestamp > before.timestamp
        and head.log_size > before.log_size
        and head.queue_next > before.queue_next
        and head.map_size >= before.map_size
    )
