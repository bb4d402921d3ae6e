"""The sources of a group: one stream, or $all with a filter, and the parked messages of the group.

``Pinned`` goes by the stream of the event, or of the event that a link names. ``PinnedByCorrelation`` goes by
the ``$correlationId`` in the event's metadata, and by the stream where there is none.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kt_es.eventstore.rights import json_object
from kt_es.node.groups.messages import Message
from kt_es.node.groups.settings import Filter, Predicate, Strategy, parked_stream, predicate
from kt_es.node.store.log import ALL, NodeLog
from kt_es.node.store.reading import LINK, all_forwards, forwards, link_event, linked, stored_at, target
from kt_es.node.store.records import Proposed, id_of, name_of, parsed, position_of, revision_of, type_of
from kt_es.node.store.transaction import Transaction

CORRELATION = "$correlationId"
REPLAY_AHEAD = 500  # parked messages that wait to be delivered again; more are read when these are gone
Pin = Callable[[bytes], int]  # from a stored event to a number that is shared out among consumers


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Messages, the next order to read, whether there is ``more`` now, and how many a filter dropped."""

    messages: list[Message]
    following: int
    more: bool
    passed_over: int = 0


class StreamSource:
    """Messages from one stream; their order is the revision."""

    def __init__(self, log: NodeLog, name: str, pin: Pin) -> None:
        self._log = log
        self._name = self.wakes_on = name  # in ``log.Wakeups``
        self._pin = pin

    def read(self, at: int, limit: int) -> SourceBatch:
        """Return messages from order ``at`` (inclusive) up."""
        chunk = forwards(self._log, self._name, at, limit)
        messages = [
            Message(revision_of(stored), id_of(stored), stored, pin=self._pin(stored))
            for stored in chunk.events
        ]
        return SourceBatch(messages, chunk.following, chunk.more)

    def load(self, order: int) -> bytes | None:
        """Return the stored event at ``order``, if it is still there."""
        return stored_at(self._log, self._name, order)


class AllSource:
    """As ``StreamSource``, from $all with a filter; the order is the position."""

    wakes_on = ALL

    def __init__(self, log: NodeLog, filter_: Filter | None, pin: Pin) -> None:
        self._log = log
        self._pin = pin
        self._filter = filter_
        self._passes: Predicate | None = None

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


def pinner(log: NodeLog, strategy: Strategy) -> Pin:
    """Return the pin of ``strategy``; 0 for every event where nothing is pinned."""
    if strategy is Strategy.PINNED:
        return lambda stored: _number(_stream(stored))
    if strategy is Strategy.PINNED_BY_CORRELATION:
        return lambda stored: _number(_correlation(log, stored) or _stream(stored))
    return lambda _stored: 0


def _number(text: str) -> int:
    # JSON text may have half a surrogate pair, which UTF-8 cannot.
    return zlib.crc32(text.encode(errors="surrogatepass"))


def _stream(stored: bytes) -> str:
    return name_of(stored) if type_of(stored) != LINK else target(stored)[1]


def _correlation(log: NodeLog, stored: bytes) -> str | None:
    event = linked(log, stored) if type_of(stored) == LINK else stored
    if event is None:
        return None
    found = json_object(parsed(event).event.custom_metadata).get(CORRELATION)
    return found if isinstance(found, str) else None


class Parked:
    """Reads and replays one group's parked messages; the runner writes them.

    A replayed message stays parked until it and all parked messages before it are settled. Then it is
    removed.
    """

    def __init__(self, log: NodeLog, stream: str, name: str, pin: Pin) -> None:
        self._log = log
        self._stream = parked_stream(stream, name)
        self._pin = pin
        self._replaying: set[int] = set()  # revisions, as in what follows
        self._settled: set[int] = set()  # replayed and settled, not yet removed
        self._unread = range(0)  # to replay, and not yet read
        self._limit = 0  # how many of these may be replayed

    @property
    def count(self) -> int:
        """Messages that are parked and not yet settled by a replay."""
        head = self._log.head(self._stream)
        return max(0, head.last - head.first + 1 - len(self._settled)) if head.exists else 0

    def load(self, revision: int) -> bytes | None:
        return stored_at(self._log, self._stream, revision)

    def park(self, tx: Transaction, link: Proposed) -> None:
        tx.append(self._stream, [link])

    def replay(self, limit: int | None) -> None:
        """Deliver again the messages that are parked now, at most ``limit``."""
        head = self._log.head(self._stream)
        asked = head.last - head.first + 1 if limit is None else limit
        self._limit = asked + (self._limit if self._unread else 0)
        self._unread = range(self._unread.start if self._unread else head.first, head.last + 1)

    def read(self, retrying: int) -> list[Message]:
        """Return the next few messages to replay, while ``retrying`` messages wait to be delivered again."""
        messages: list[Message] = []
        while self._unread and self._limit > 0 and retrying + len(messages) < REPLAY_AHEAD:
            chunk = forwards(self._log, self._stream, self._unread.start)
            stored_by_revision = {revision_of(stored): stored for stored in chunk.events}
            fresh = [at for at in stored_by_revision if at in self._unread and at not in self._replaying]
            for at in fresh[: self._limit]:
                stored = stored_by_revision[at]
                messages.append(Message(at, id_of(stored), parked=at, pin=self._pin(stored)))
                self._replaying.add(at)
                self._limit -= 1
            self._unread = range(chunk.following, self._unread.stop) if chunk.more else range(0)
        return messages

    def settle(self, revisions: Iterable[int]) -> None:
        self._settled.update(revisions)

    def trimmed(self) -> int | None:
        """Return the first revision that has to stay; None if nothing can be removed."""
        first = keep = self._log.head(self._stream).first
        while keep in self._settled:
            keep += 1
        return keep if keep > first else None

    def trim(self, tx: Transaction, keep: int) -> None:
        if tx.head(self._stream).truncate_before < keep:
            tx.rewrite_metadata(self._stream, keep)

    def forget(self, keep: int) -> None:
        """Forget the parked messages below ``keep``, whose removal is on disk."""
        self._settled = {at for at in self._settled if at >= keep}
        self._replaying = {at for at in self._replaying if at >= keep}


def link_to(stored: bytes, *, replayed: bool) -> Proposed:
    """Return the link under which an event is parked. A replayed event is a link already."""
    if replayed and type_of(stored) == LINK:
        return link_event(*target(stored))
    return link_event(revision_of(stored), name_of(stored))
