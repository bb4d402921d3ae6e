"""What a group reads from: one stream, or $all with a filter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kt_es.node.groups.filters import Filter, Predicate, predicate
from kt_es.node.groups.values import Message
from kt_es.node.store.log import EventLog
from kt_es.node.store.reading import all_forwards, forwards, stored_at
from kt_es.node.store.records import id_of, position_of, revision_of
from kt_es.node.store.wakeups import ALL

Pin = Callable[[bytes], int]  # see ``pins``


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages, where to go on, whether there is ``more`` now, and how many a filter held back."""

    messages: list[Message]
    following: int
    more: bool
    passed_over: int = 0


class Source(Protocol):
    """Where messages come from, in order."""

    @property
    def wakes_on(self) -> str:
        """What to be woken by (``wakeups``)."""

    def read(self, at: int, limit: int) -> Batch:
        """Messages from order ``at`` (inclusive) up."""

    def load(self, order: int) -> bytes | None:
        """The stored event at ``order``, if it is still there."""


class StreamSource:
    """Order is the revision."""

    def __init__(self, log: EventLog, name: str, pin: Pin) -> None:
        self._log = log
        self._name = name
        self._pin = pin

    @property
    def wakes_on(self) -> str:
        return self._name

    def read(self, at: int, limit: int) -> Batch:
        chunk = forwards(self._log, self._name, at, limit)
        messages = [
            Message(revision_of(stored), id_of(stored), stored, pin=self._pin(stored))
            for stored in chunk.events
        ]
        return Batch(messages, chunk.following, chunk.more)

    def load(self, order: int) -> bytes | None:
        return stored_at(self._log, self._name, order)


class AllSource:
    """Order is the position."""

    def __init__(self, log: EventLog, filter_: Filter | None, pin: Pin) -> None:
        self._log = log
        self._pin = pin
        self._filter = filter_
        self._passes: Predicate | None = None

    @property
    def wakes_on(self) -> str:
        return ALL

    def read(self, at: int, limit: int) -> Batch:
        if self._passes is None:
            # Not at the start: a filter that can be used no more stops its group, not the node.
            self._passes = predicate(self._filter)
        passes, chunk = self._passes, all_forwards(self._log, at)
        messages = [
            Message(position_of(stored), id_of(stored), stored, pin=self._pin(stored))
            for stored in chunk.events
            if passes(stored)
        ]
        return Batch(messages, chunk.following, chunk.more, len(chunk.events) - len(messages))

    def load(self, order: int) -> bytes | None:
        events = all_forwards(self._log, order, limit=1).events
        return events[0] if events and position_of(events[0]) == order else None
