"""A store that many processes share, as one of them sees it: with a cache and with rows of its own.

Rows of published epochs never change, so a row that was found may be kept. Every reader compares what it gets
with a hash that it knows, and asks again where the row is missing or wrong (``Store.get_many``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from kt_es.errors import StoreAwayError, UnavailableError
from kt_es.ledger.bytecache import ByteCache
from kt_es.ledger.store import Change, Store

LOCAL = ("meta", "openings")
"""Families of the process itself: its committed state, and openings where it keeps any."""
SHARED = (
    "pages",
    "entries",
    "nodes",
    "heads",
    "configs",
    "erasures",
    "states",
    "replaced",
    "decisions",
    "about",
)
CACHED = frozenset(("entries", "nodes"))
"""Families whose rows are kept in memory. ``pages.page_cache`` keeps pages, after they were verified."""
ERASURES = "erasures"
FACTS = "facts"
"""Facts that were verified about rows (``SharedStore.remember``). Only the cache has them, no family."""
PINNED_EPOCHS = 2
UNDER_WAY = 2
"""Writes that may be under way at the same time. Each is a slice of an epoch."""

_ROW_BYTES = 122  # see bytecache


class SharedStore:
    """Routes each family to the store of the process or to the shared one. Implements ``store.Store``.

    A write goes to the shared store first, and then in one atomic write to the store of the process. A write
    that is not synced goes on while its caller works: reads see its rows, and the next write reports what
    failed.
    """

    def __init__(self, local: Store, shared: Store, cache_bytes: int, writer: Executor | None = None) -> None:
        """Keep rows of about ``cache_bytes`` together in memory, beside those that are pinned.

        Args:
            writer: Makes the writes that are not synced, one at a time.
        """
        self._local = local
        self._shared = shared
        self._rows = ByteCache[tuple[str, bytes], bytes](cache_bytes, row_size)
        self._erased = 0  # how often erasures were forgotten
        self._writer = writer or ThreadPoolExecutor(1, thread_name_prefix="shared-writes")
        self._under_way: deque[tuple[Future[None], dict[tuple[str, bytes], bytes]]] = deque()
        self._pinned: deque[dict[tuple[str, bytes], bytes]] = deque(maxlen=PINNED_EPOCHS)

    @property
    def is_shared(self) -> bool:
        return True

    @property
    def is_full(self) -> bool:
        return self._local.is_full

    def ensure_writable(self) -> None:
        """Wait for the writes under way and ignore their errors: the epoch that made them begins again."""
        while self._under_way:
            wait([self._under_way.popleft()[0]])
        self._local.ensure_writable()

    def pin(self, changes: Sequence[Change]) -> None:
        """Answer reads of these rows from memory, until rows of ``PINNED_EPOCHS`` later epochs were pinned.

        The rows that follow from a head are written after it was published. A process that knows the head
        need not wait for them.
        """
        self._pinned.append({(family, key): value for family, key, value in changes if value is not None})

    def differing(self) -> list[tuple[str, bytes]]:
        """Return family and key of each pinned row that has another value in the shared store.

        Reads do not notice such a row as long as it is pinned. A missing row is not returned: the signer may
        be about to write it.
        """
        wrong = []
        for (family, key), value in (row for rows in self._pinned for row in rows.items()):
            if family not in LOCAL:
                with _named():
                    stored = self._shared.get_many(family, [key], again=True)[0]
                if stored not in (None, value):
                    wrong.append((family, key))
        return wrong

    def get(self, family: str, key: bytes) -> bytes | None:
        return self._local.get(family, key) if family in LOCAL else self.get_many(family, [key])[0]

    def get_many(self, family: str, keys: Sequence[bytes], *, again: bool = False) -> list[bytes | None]:
        if family in LOCAL:
            return self._local.get_many(family, keys, again=again)
        found = {key: value for key in keys if (value := self._known(family, key, again=again)) is not None}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            with _named():
                rows = self._shared.get_many(family, missing, again=again)
            for key, value in zip(missing, rows, strict=True):
                if value is not None:
                    found[key] = value
                    if family in CACHED:
                        self._rows.put((family, key), value)
        return [found.get(key) for key in keys]

    def _known(self, family: str, key: bytes, *, again: bool) -> bytes | None:
        for rows in (*(rows for _, rows in self._under_way), *self._pinned):
            if (value := rows.get((family, key))) is not None:
                return value
        return self._rows.get((family, key)) if family in CACHED and not again else None

    def scan(
        self, family: str, prefix: bytes = b"", *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        if family in LOCAL:
            yield from self._local.scan(family, prefix, start=start, reverse=reverse)
        elif family == ERASURES and prefix and start is None and not reverse:
            yield from self._erasures(prefix)
        else:
            with _named():
                yield from self._shared.scan(family, prefix, start=start, reverse=reverse)

    def _erasures(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """Return the erasures of one index or entry.

        Each lookup asks for erasures, and nearly always there is none. So that answer is kept in memory.
        """
        none = f"{ERASURES} {self._erased}", prefix
        if self._rows.get(none) is not None:
            return []
        with _named():
            rows = list(self._shared.scan(ERASURES, prefix))
        if not rows:
            self._rows.put(none, b"")
        return rows

    def forget_erasures(self) -> None:
        """Read erasures again: an epoch with erasures is going to be adopted."""
        self._erased += 1

    def remember(self, fact: bytes) -> None:
        """Keep a fact that was verified about a row, with the rows in memory. ``fact`` is a hash of it."""
        self._rows.put((FACTS, fact), b"")

    def remembers(self, fact: bytes) -> bool:
        """Return whether ``fact`` was kept. Facts that were not used for long are forgotten."""
        return self._rows.get((FACTS, fact)) is not None

    def write(self, changes: Iterable[Change], sync: bool = True) -> None:
        local: list[Change] = []
        shared: list[Change] = []
        for change in changes:
            (local if change[0] in LOCAL else shared).append(change)
        if shared and not sync:
            self._finish(UNDER_WAY - 1)
            rows = {(family, key): value for family, key, value in shared if value is not None}
            self._under_way.append((self._writer.submit(self._shared.write, shared), rows))
        elif shared:
            self._finish(0)
            with _named():
                self._shared.write(shared)
        if local:
            self._local.write(local, sync)

    def _finish(self, most: int) -> None:
        """Wait until at most ``most`` writes are under way."""
        while len(self._under_way) > most:
            with _named():
                self._under_way[0][0].result()
            self._under_way.popleft()

    def close(self) -> None:
        self._writer.shutdown()
        self._shared.close()
        self._local.close()


@contextmanager
def _named() -> Iterator[None]:
    """Raise an outage of the shared store as one, and not as one of the event log."""
    try:
        yield
    except UnavailableError as error:
        raise StoreAwayError(str(error)) from None


def row_size(key: tuple[str, bytes], value: bytes) -> int:
    """Return the bytes that a row takes in memory."""
    return _ROW_BYTES + len(key[1]) + len(value)
