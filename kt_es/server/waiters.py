"""Requests that wait for the verdict on what they submitted."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass

from kt_es.crypto.hashes import sha256
from kt_es.formats.queue import ItemKind, Record

MAX_WAITERS = 10_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """The decision on a queue item, and the epoch that has it."""

    record: Record
    epoch: int


class Waiters:
    """Futures of outcomes by the hash of the item's bytes.

    The entry hash is no key here, because the same entry under other signatures is another item with its own
    verdict. Only items that a request waits for are remembered, which bounds the memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[bytes, list[Future[Outcome | None]]] = {}
        self._count = 0
        self._closed = False
        # The first record of each item in the epoch that is being replayed. Owned by the replica's thread.
        self._noted: dict[bytes, Record] = {}

    def register(self, item: bytes) -> Future[Outcome | None] | None:
        """Return a future of the outcome of ``item``, None if too many requests wait already.

        Its result is None if the replica stops first. The caller must always call ``discard``.
        """
        future: Future[Outcome | None] = Future()
        # A running future cannot be cancelled while another thread sets its result.
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed or self._count >= MAX_WAITERS:
                return None
            self._waiting.setdefault(sha256(item), []).append(future)
            self._count += 1
        return future

    def discard(self, item: bytes, future: Future[Outcome | None]) -> None:
        """Stop waiting."""
        key = sha256(item)
        with self._lock:
            waiting = self._waiting.get(key, [])
            if future in waiting:
                waiting.remove(future)
                self._count -= 1
                if not waiting:
                    del self._waiting[key]

    def restart(self) -> None:
        """Forget the notes of the epoch, because it is read again from its beginning."""
        self._noted = {}

    def note(self, record: Record) -> None:
        content = record.item.content
        if not self._waiting or record.item.kind != ItemKind.MUTATION or not isinstance(content, bytes):
            return
        key = sha256(content)
        if key in self._waiting:
            self._noted.setdefault(key, record)

    def commit(self, epoch: int) -> None:
        """Set the outcomes of the items of ``epoch``, which is committed."""
        decided = []
        with self._lock:
            for key, record in self._noted.items():
                futures = self._waiting.pop(key, [])
                self._count -= len(futures)
                decided += [(future, Outcome(record, epoch)) for future in futures]
        self._noted = {}
        for future, outcome in decided:
            future.set_result(outcome)

    def close(self) -> None:
        with self._lock:
            futures = [future for waiting in self._waiting.values() for future in waiting]
            self._waiting, self._count, self._closed = {}, 0, True
        for future in futures:
            future.set_result(None)
