"""An event log in memory, for tests: it passes the same contract as EventStoreDB behind ``EsdbLog``.

It breaks on demand: ``away`` makes every call fail and ends subscriptions with ``UnavailableError``;
``break_appends`` fails the next ones, written or not.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from kt_es.errors import KtError, UnavailableError, WrongRevisionError
from kt_es.eventstore.streams import (
    ANY,
    MAX_APPEND,
    Append,
    Event,
    Metadata,
    NewEvent,
    append_one_by_one,
)


class MemoryLog:
    """``EventLog`` over lists. All state is guarded by ``_changed``, which is notified on any change."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._all: list[Event] = []
        self._streams: dict[str, list[Event]] = {}
        self._truncated: dict[str, int] = {}
        self._metadata: dict[str, Metadata] = {}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._breaks: deque[bool] = deque()
        self._away = False
        self.appends = 0

    @property
    def away(self) -> bool:
        return self._away

    @away.setter
    def away(self, value: bool) -> None:
        with self._changed:
            self._away = value
            self._changed.notify_all()

    def break_appends(self, count: int = 1, *, written: bool) -> None:
        """The next appends raise ``UnavailableError``, after they were written or without."""
        with self._changed:
            self._breaks.extend([written] * count)

    def append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        with self._changed:
            self._reach()
            broken = self._breaks.popleft() if self._breaks else None
            if broken is not False:
                self._append(stream, expected, events)
            if broken is not None:
                raise UnavailableError("the append was broken by the test")

    def _append(self, stream: str, expected: int, events: Sequence[NewEvent]) -> None:
        if sum(len(event.data) for event in events) > MAX_APPEND:
            raise KtError("append: MaximumAppendSizeExceededError")
        there = self._streams.setdefault(stream, [])
        ids = [event.id for event in events]
        first = expected + 1
        if expected == ANY:
            first = next((event.revision for event in there if event.id == ids[0]), len(there))
        if [event.id for event in there[first : first + len(ids)]] == ids and ids:
            return
        if expected not in (ANY, len(there) - 1) or first != len(there):
            raise WrongRevisionError(stream, expected)
        self.appends += 1
        for event in events:
            made = Event(stream, len(there), event.type, event.data, event.id, len(self._all))
            there.append(made)
            self._all.append(made)
        self._changed.notify_all()

    def append_all(self, appends: Sequence[Append]) -> Sequence[KtError | None]:
        return append_one_by_one(self, appends)

    def last_revision(self, stream: str) -> int:
        last = self.last_event(stream)
        return -1 if last is None else last.revision

    def last_event(self, stream: str) -> Event | None:
        with self._changed:
            self._reach()
            events = self._visible(stream, 0)
            return events[-1] if events else None

    def read(self, stream: str, start: int = 0, limit: int | None = None) -> Iterator[Event]:
        with self._changed:
            self._reach()
            events = self._visible(stream, start)
        yield from events if limit is None else events[:limit]

    def subscribe(self, stream: str, after: int = -1) -> _Subscription:
        with self._changed:
            self._reach()
        return _Subscription(self, lambda last: self._visible(stream, last + 1), after)

    def subscribe_prefix(self, prefix: str, after: int | None = None) -> _PrefixSubscription:
        with self._changed:
            self._reach()
        return _PrefixSubscription(self, prefix, -1 if after is None else after)

    def join_group(self, stream: str, group: str) -> _GroupPlace | None:
        with self._changed:
            self._reach()
            found = self._groups.setdefault((stream, group), _Group(stream))
            if found.taken:
                return None
            found.taken = True
            return _GroupPlace(self, found)

    def truncate(self, stream: str, before: int) -> None:
        with self._changed:
            self._reach()
            self._truncated[stream] = max(before, self._truncated.get(stream, 0))

    def metadata(self, stream: str) -> Metadata:
        with self._changed:
            self._reach()
            return self._metadata.get(stream, Metadata())

    def set_metadata(self, stream: str, values: Mapping[str, object], expected: int) -> None:
        with self._changed:
            self._reach()
            if self._metadata.get(stream, Metadata()).revision != expected:
                raise WrongRevisionError(f"$${stream}", expected)
            self._metadata[stream] = Metadata(dict(values), expected + 1)

    def close(self) -> None:
        """Nothing to release: clients share this log, and each may close it."""

    def _reach(self) -> None:
        if self._away:
            raise UnavailableError("the event log is unavailable (away)")

    def _visible(self, stream: str, start: int) -> list[Event]:
        return self._streams.get(stream, [])[max(start, self._truncated.get(stream, 0)) :]


class _Subscription:
    """Events after revision ``after``; blocks for the next one until it is stopped."""

    def __init__(self, log: MemoryLog, pending: Callable[[int], list[Event]], after: int) -> None:
        self._log = log
        self._pending = pending
        self._after = after
        self._stopped = False

    def __iter__(self) -> Iterator[Event]:
        while (event := self._next()) is not None:
            yield event

    def _next(self) -> Event | None:
        changed = self._log._changed
        with changed:
            while not self._stopped:
                self._log._reach()
                pending = self._pending(self._after)
                if pending:
                    self._after = pending[0].revision
                    return self._delivered(pending[0])
                changed.wait()
        return None

    def _delivered(self, event: Event) -> Event:
        return event

    def stop(self) -> None:
        with self._log._changed:
            self._stopped = True
            self._log._changed.notify_all()


class _PrefixSubscription:
    """Events of streams with a prefix, and a checkpoint (type ``""``) behind each run of other events."""

    def __init__(self, log: MemoryLog, prefix: str, after: int) -> None:
        self._log = log
        self._prefix = prefix
        self._next_position = after + 1
        self._skipped = False
        self._stopped = False

    def __iter__(self) -> Iterator[Event]:
        while (event := self._next()) is not None:
            yield event

    def _next(self) -> Event | None:
        changed = self._log._changed
        with changed:
            while not self._stopped:
                self._log._reach()
                while self._next_position < len(self._log._all):
                    event = self._log._all[self._next_position]
                    self._next_position += 1
                    if event.stream.startswith(self._prefix):
                        return event
                    self._skipped = True
                if self._skipped:
                    self._skipped = False
                    return Event("", 0, "", b"", uuid.UUID(int=0), self._next_position - 1)
                changed.wait()
        return None

    def stop(self) -> None:
        with self._log._changed:
            self._stopped = True
            self._log._changed.notify_all()


class _Group:
    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.acknowledged: set[int] = set()
        self.taken = False


class _GroupPlace(_Subscription):
    """The one place of a group: what was not acknowledged before it was taken comes again."""

    def __init__(self, log: MemoryLog, group: _Group) -> None:
        super().__init__(
            log,
            lambda last: [
                event
                for event in log._visible(group.stream, last + 1)
                if event.revision not in group.acknowledged
            ],
            -1,
        )
        self._group = group

    def _delivered(self, event: Event) -> Event:
        return Event(event.stream, event.revision, event.type, event.data, event.id, event.position, event.id)

    def ack(self, event: Event) -> None:
        with self._log._changed:
            self._log._reach()
            self._group.acknowledged.add(event.revision)

    def stop(self) -> None:
        with self._log._changed:
            if not self._stopped:
                self._group.taken = False
        super().stop()
