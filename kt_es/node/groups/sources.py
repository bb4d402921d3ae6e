"""What a group reads from: one stream, or $all with a filter; and which consumer each event is pinned to.

``Pinned`` goes by the stream of the event, or of the event that a link names. ``PinnedByCorrelation`` goes by
the ``$correlationId`` in the event's metadata, and by the stream where there is none.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kt_es.eventstore.rights import json_object
from kt_es.node.groups.consumers import Message
from kt_es.node.groups.settings import Filter, Predicate, Strategy, predicate
from kt_es.node.store.log import ALL, NodeLog
from kt_es.node.store.reading import LINK, all_forwards, forwards, linked, stored_at, target
from kt_es.node.store.records import id_of, name_of, parsed, position_of, revision_of, type_of
from kt_es.node.store.streams import ALL_NAME

CORRELATION = "$correlationId"
Pin = Callable[[bytes], int]  # from a stored event to a number that is shared out among consumers


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Messages, the next order to read, whether there is ``more`` now, and how many a filter dropped."""

    messages: list[Message]
    following: int
    more: bool
    passed_over: int = 0


class Source(Protocol):
    """Where messages come from, in order."""

    @property
    def wakes_on(self) -> str:
        """The stream whose wake-ups to wait for (``log.Wakeups``)."""

    def read(self, at: int, limit: int) -> SourceBatch:
        """Messages from order ``at`` (inclusive) up."""

    def load(self, order: int) -> bytes | None:
        """The stored event at ``order``, if it is still there."""


class StreamSource:
    """Order is the revision."""

    def __init__(self, log: NodeLog, name: str, pin: Pin) -> None:
        self._log = log
        self._name = name
        self._pin = pin

    @property
    def wakes_on(self) -> str:
        return self._name

    def read(self, at: int, limit: int) -> SourceBatch:
        chunk = forwards(self._log, self._name, at, limit)
        messages = [
            Message(revision_of(stored), id_of(stored), stored, pin=self._pin(stored))
            for stored in chunk.events
        ]
        return SourceBatch(messages, chunk.following, chunk.more)

    def load(self, order: int) -> bytes | None:
        return stored_at(self._log, self._name, order)


class AllSource:
    """Order is the position."""

    def __init__(self, log: NodeLog, filter_: Filter | None, pin: Pin) -> None:
        self._log = log
        self._pin = pin
        self._filter = filter_
        self._passes: Predicate | None = None

    @property
    def wakes_on(self) -> str:
        return ALL

    def read(self, at: int, limit: int) -> SourceBatch:
        if self._passes is None:
            # Not at the start: a filter that has become invalid stops its group, not the node.
            self._passes = predicate(self._filter)
        passes, chunk = self._passes, all_forwards(self._log, at)
        messages = [
            Message(position_of(stored), id_of(stored), stored, pin=self._pin(stored))
            for stored in chunk.events
            if passes(stored)
        ]
        return SourceBatch(messages, chunk.following, chunk.more, len(chunk.events) - len(messages))

    def load(self, order: int) -> bytes | None:
        events = all_forwards(self._log, order, limit=1).events
        return events[0] if events and position_of(events[0]) == order else None


def source_of(log: NodeLog, stream: str, filter_: Filter | None, pin: Pin) -> Source:
    """The source of a group on ``stream``, which may be $all."""
    return AllSource(log, filter_, pin) if stream == ALL_NAME else StreamSource(log, stream, pin)


def pinner(log: NodeLog, strategy: Strategy) -> Pin:
    """The pin of ``strategy``; 0 for every event where nothing is pinned."""
    if strategy is Strategy.PINNED:
        return lambda stored: _number(_stream(stored))
    if strategy is Strategy.PINNED_BY_CORRELATION:
        return lambda stored: _number(_correlation(log, stored) or _stream(stored))
    return lambda _stored: 0


def _number(text: str) -> int:
    # JSON text may have half a surrogate pair, which UTF-8 cannot.
    return zlib.crc32(text.encode(errors="surrogatepass"))


def _stream(stored: bytes) -> str:
    if type_of(stored) != LINK:
        return name_of(stored)
    _, name = target(stored)
    return name


def _correlation(log: NodeLog, stored: bytes) -> str | None:
    event = linked(log, stored) if type_of(stored) == LINK else stored
    if event is None:
        return None
    found = json_object(parsed(event).event.custom_metadata).get(CORRELATION)
    return found if isinstance(found, str) else None
