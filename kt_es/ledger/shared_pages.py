"""Pages of the map in a shared store, and the lists of those that an epoch has replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from kt_es.crypto.hashes import sha256
from kt_es.formats.heads import HeadEvent
from kt_es.ledger.pages import PageTable, split_keys
from kt_es.ledger.store import Change
from kt_es.merkle.map import Root
from kt_es.merkle.pages import child_ref
from kt_es.merkle.update import Pages

LIST_BYTES = 64 << 10
"""Bytes of the keys in one row of a list of replaced pages."""


@dataclass(frozen=True, slots=True)
class SharedPageTable(PageTable):
    REPLACED: ClassVar = "replaced"

    def put(self, epoch: int, pages: Pages) -> list[Change]:
        """Write the new pages. No page is deleted, because another signer may be writing the same epoch."""
        return [(self.FAMILY, key, page) for key, page in pages if page is not None]

    def replaced(self, pages: Pages) -> bytes:
        return b"".join(key for key, page in pages if page is None)

    def put_replaced(self, event: HeadEvent, epoch: int, keys: bytes) -> list[Change]:
        """List the pages ``keys`` that ``epoch``, whose head is ``event``, has replaced.

        The key of a row has the hash of its content. A rebuild may cut the epoch into slices of other sizes,
        and then replaces other pages of the same epoch. So the lists of a signer and of a rebuild are both
        kept.
        """
        row, changes, head = b"", list[Change](), at_head(epoch, event.smh_bytes)
        for key in split_keys(keys):
            row += key
            if len(row) >= LIST_BYTES:
                changes.append((self.REPLACED, head + sha256(row), row))
                row = b""
        return [*changes, (self.REPLACED, head + sha256(row), row)] if row else changes

    def listed(
        self, epoch: int, smh: bytes, problem: Callable[[str], None]
    ) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        """Yield the lists of the head ``smh`` of ``epoch``: the key of each row, and the keys of pages in it.

        ``problem`` is called with a sentence for each row that is cut or does not have the hash in its key.
        """
        head = at_head(epoch, smh)
        for row, keys in self.store.scan(self.REPLACED, head):
            if row == head + sha256(keys):
                yield row, list(split_keys(keys))
            else:
                problem(f"a list of pages that epoch {epoch} has replaced is cut, or is another one")

    def prune_epoch(
        self,
        epoch: int,
        smh: bytes,
        needed: Callable[[Sequence[bytes]], str | None],
        problem: Callable[[str], None],
    ) -> int:
        """Delete the pages that ``epoch``, whose head is ``smh``, has replaced; return how many.

        ``needed`` returns a sentence if one of the pages with these keys must stay: nothing of such a list is
        deleted. ``problem`` gets the sentence, and is as in ``listed``.
        """
        count = 0
        for row, pages in self.listed(epoch, smh, problem):
            if (sentence := needed(pages)) is not None:
                problem(sentence)
                continue
            self.store.write([(self.FAMILY, key, None) for key in pages])
            # The list is deleted last. After a crash it still names the pages that were not deleted yet.
            self.store.write([(self.REPLACED, row, None)])
            count += len(pages)
        return count

    def has_top(self, root: Root) -> bool:
        """Return whether the topmost page of the map at ``root`` is stored."""
        slot = root.slot
        return slot is not None and self.get_many([child_ref(b"", 0, slot)[0]], again=True)[0] is not None

    def upgrade(self, newest: int) -> None:
        """Do nothing: no shared store has keys of an earlier version."""


def at_head(epoch: int, smh: bytes) -> bytes:
    """Return the prefix of the keys of all rows of the published head ``smh``."""
    return epoch.to_bytes(8) + sha256(smh)
