"""A log that connects on its first use, so that lookups do not wait for it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from kt_es.eventstore.streams import Event, EventLog, Metadata, NewEvent
from kt_es.server.problems import NotNowError


class LogConnections:
    """Makes clients of the log with ``connect``. Closing ends the calls that hang in any of them."""

    def __init__(self, connect: Callable[[], EventLog]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[EventLog] = weakref.WeakSet()
        self._closed = False

    def connect(self) -> EventLog:
        """Another client. The caller closes it."""
        log = self._connect()
        with self._lock:
            if not self._closed:
                self._open.add(log)
                return log
        log.close()
        raise NotNowError("the front end is stopping")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            logs = list(self._open)
        for log in logs:
            log.close()


class RequestLog(Protocol):
    """The part of ``EventLog`` that requests need."""

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None: ...

    def last_revision(self, stream: str) -> int: ...

    def last_event(self, stream: str) -> Event | None: ...

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]: ...

    def metadata(self, stream: str) -> Metadata: ...

    def set_metadata(self, stream: str, values: Mapping[str, object], expected: int) -> None: ...


class LateLog:
    """A ``RequestLog`` that calls ``connect`` on its first use, and again after a failure."""

    def __init__(self, connect: Callable[[], EventLog]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._log: EventLog | None = None

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        self._connected().append(stream, expected, events)

    def last_revision(self, stream: str) -> int:
        return self._connected().last_revision(stream)

    def last_event(self, stream: str) -> Event | None:
        return self._connected().last_event(stream)

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        return self._connected().read(stream, start, limit)

    def metadata(self, stream: str) -> Metadata:
        return self._connected().metadata(stream)

    def set_metadata(self, stream: str, values: Mapping[str, object], expected: int) -> None:
        self._connected().set_metadata(stream, values, expected)

    def _connected(self) -> EventLog:
        with self._lock:
            if self._log is None:
                self._log = self._connect()
            return self._log
