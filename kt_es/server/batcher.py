"""Packs concurrent submissions into one append of a ``Mutations`` event.

The next batch gathers while one append is under way. So batches grow with the load, and a single submission
is appended at once.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from kt_es.errors import KtError, UnavailableError
from kt_es.eventstore.streams import NewEvent, content_event
from kt_es.formats.queue import MAX_EVENT, MAX_EVENT_ITEMS, MUTATIONS, encode_mutations
from kt_es.server.availability import Appender
from kt_es.server.problems import NotNowError

# Bytes of the CBOR head of the array and of each byte string in it, at most (RFC 8949, 3).
_HEAD = 3


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
                event = self._append(batch)
            except KtError as error:
                for waiting in batch:
                    waiting.event.set_exception(error)
                if isinstance(error, UnavailableError):
                    self._refuse_waiting(error)
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

    def _append(self, batch: list[_Waiting]) -> NewEvent:
        event = content_event(self._stream, MUTATIONS, encode_mutations([waiting.item for waiting in batch]))
        deadline = min(waiting.deadline for waiting in batch)
        self._appender.append(self._stream, event, deadline)
        return event

    def _refuse_waiting(self, error: UnavailableError) -> None:
        with self._changed:
            refused, self._waiting = self._waiting, deque()
        for waiting in refused:
            waiting.event.set_exception(error)
