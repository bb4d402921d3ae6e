"""What waits in the queue: which submitted mutations no epoch has decided yet.

The queue itself says so, whichever front end took a mutation. Each event is read once for all who ask, and
forgotten when its epoch is committed here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from kt_es.crypto.hashes import sha256
from kt_es.errors import MalformedError
from kt_es.eventstore.streams import EventLog
from kt_es.formats.entries import Mutation
from kt_es.formats.queue import items_of
from kt_es.ledger.rows import Committed
from kt_es.server.responses import NotNowError

MAX_PENDING = 50_000
"""Mutations that are kept in memory, some 15 MB. If more wait, nothing can be told about the others."""


class PendingMutations:
    """Reads the undecided part of the queue, when somebody asks. Safe for threads; one reads at a time."""

    def __init__(self, log: Callable[[], EventLog], queue: str, most: int = MAX_PENDING) -> None:
        self._log = log
        self._queue = queue
        self._most = most
        self._lock = threading.Lock()  # guards what follows
        # The events from revision ``_begun`` up to ``_next`` were read.
        self._begun = 0
        self._next = 0
        self._items: dict[bytes, list[bytes]] = {}  # hashes of items by entry hash, in the order of the queue
        self._read: deque[tuple[int, bytes, bytes]] = deque()  # revision, entry hash, hash of the item

    def has(self, committed: Committed, entry_hash: bytes, item_hash: bytes | None = None) -> bool:
        """Return whether a mutation is in the queue after the epoch of ``committed``.

        Raises:
            UnavailableError: The log cannot be reached, too much waits, or this front end is behind.
        """
        with self._lock:
            self._forget(committed.queue_next)
            self._read_on()
            items = self._items.get(entry_hash, [])
            return bool(items) if item_hash is None else item_hash in items

    def _forget(self, decided: int) -> None:
        """Forget what stands before the revision ``decided`` of the queue."""
        if not self._begun <= decided <= self._next:
            # Too far behind, or ahead: another request has asked as of another epoch.
            self._items, self._next = {}, decided
            self._read.clear()
        while self._read and self._read[0][0] < decided:
            _, entry_hash, item_hash = self._read.popleft()
            items = self._items[entry_hash]
            items.remove(item_hash)
            if not items:
                del self._items[entry_hash]
        self._begun = decided

    def _read_on(self) -> None:
        for event in self._log().read(self._queue, self._next):
            if event.revision != self._next:
                raise NotNowError("this front end is behind: the queue was truncated after its epoch")
            if len(self._read) >= self._most:
                raise NotNowError("too much waits in the queue to tell what is in it", retry_after=10.0)
            for item in items_of(event.revision, event.type, event.data):
                if isinstance(item.content, bytes):
                    self._note(event.revision, item.content)
            self._next += 1

    def _note(self, revision: int, content: bytes) -> None:
        try:
            entry_hash = Mutation.decode(content).entry_hash
        except MalformedError:
            return
        item_hash = sha256(content)
        self._items.setdefault(entry_hash, []).append(item_hash)
        self._read.append((revision, entry_hash, item_hash))
