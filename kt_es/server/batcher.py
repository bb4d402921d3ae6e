"""Concurrent submissions packed into one append: a ``Mutations`` event takes all that came meanwhile.

There is no waiting for company: while one append is under way the next batch gathers, so batches
grow with the load and a lone submission goes at once.
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

# CBOR of the array and of each byte string in it: at most 3 bytes of head (RFC 8949, 3).
_HEAD = 3


@dataclass(frozen=True, slots=True)
class _Waiting:
    item: bytes
    deadline: float
    event: Future[uuid.UUID] = field(default_factory=Future)


class Batcher:
    """Appends mutations to the queue for many threads at once.

    An append whose outcome is unknown is repeated as the same event until the first deadline in the
    batch; then all of it fails with ``UnavailableError``, and so does what gathered behind it.
    """

    def __init__(
        self,
        appender: Appender,
        stream: str,
    ) -> None:
        self._appender = appender
        self._stream = stream
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def append(self, item: bytes, deadline: float) -> uuid.UUID:
        """Put one mutation's bytes into the queue; the id of the event that has it, durable by now.

        ``deadline`` is the appender's. Raises ``UnavailableError`` if that could not be done in
        time: it may have been done nevertheless, and repeating it does no harm.
        """
        waiting = _Waiting(item, deadline)
        with self._changed:
            if self._closed:
                raise NotNowError("the front end is stopping")
            self._waiting.append(waiting)
            self._changed.notify()
        return waiting.event.result()

    def run(self) -> None:
        """Append batches until ``close`` was called; for a thread of its own."""
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
        """Refuse what comes from now on; what has come is still appended, then ``run`` ends."""
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
