"""Submissions on their way: packed into one append, then waiting for their verdict.

The next batch gathers while one append is under way. So batches grow with the load, and a single submission
is appended at once.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from kt_es.crypto.hashes import sha256
from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore.streams import content_event
from kt_es.formats.queue import (
    MAX_EVENT,
    MAX_EVENT_ITEMS,
    MUTATIONS,
    ItemKind,
    Record,
    encode_mutations,
)
from kt_es.server.availability import Appender
from kt_es.server.responses import NotNowError

# Bytes of the CBOR head of the array and of each byte string in it, at most (RFC 8949, 3).
_HEAD = 3
MAX_WAITERS = 10_000


@dataclass(frozen=True, slots=True)
class _Waiting:
    item: bytes
    deadline: float
    event: Future[uuid.UUID] = field(default_factory=Future)


class Batcher:
    """Appends mutations to the queue for many threads at once.

    An append whose outcome is unknown is repeated as the same event until the first deadline in the batch.
    Then the batch fails with ``UnavailableError``, and so does the one that gathered meanwhile.
    """

    def __init__(self, appender: Appender, stream: str) -> None:
        self._appender = appender
        self._stream = stream
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def append(self, item: bytes, deadline: float) -> uuid.UUID:
        """Put an encoded mutation into the queue; return the id of its event, which is durable.

        ``deadline`` is by the appender's clock. Raises ``UnavailableError`` if the append has no answer by
        then: the mutation may be in the queue nevertheless, and repeating the call is safe.
        """
        waiting = _Waiting(item, deadline)
        with self._changed:
            if self._closed:
                raise NotNowError("the front end is stopping")
            self._waiting.append(waiting)
            self._changed.notify()
        return waiting.event.result()

    def run(self) -> None:
        """Append batches until ``close``, in a thread of its own."""
        while batch := self._next_batch():
            try:
                items = encode_mutations([waiting.item for waiting in batch])
                event = content_event(self._stream, MUTATIONS, items)
                self._appender.append(self._stream, event, min(waiting.deadline for waiting in batch))
            except KtError as error:
                if isinstance(error, UnavailableError):
                    with self._changed:
                        batch += self._waiting
                        self._waiting.clear()
                for waiting in batch:
                    waiting.event.set_exception(error)
            else:
                for waiting in batch:
                    waiting.event.set_result(event.id)

    def close(self) -> None:
        """Refuse further mutations. ``run`` appends those that wait, and then ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _next_batch(self) -> list[_Waiting]:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            batch: list[_Waiting] = []
            size = _HEAD
            while self._waiting and len(batch) < MAX_EVENT_ITEMS:
                size += _HEAD + len(self._waiting[0].item)
                if batch and size > MAX_EVENT:
                    break
                batch.append(self._waiting.popleft())
            return batch


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
