"""The parked messages of a group: a stream of links to events that no consumer could process."""

from __future__ import annotations

from collections.abc import Iterable

from kt_es.node.groups.consumers import Message
from kt_es.node.groups.settings import parked_stream
from kt_es.node.groups.sources import Pin
from kt_es.node.store.log import NodeLog
from kt_es.node.store.reading import LINK, forwards, link_event, stored_at, target
from kt_es.node.store.records import Proposed, id_of, name_of, revision_of, type_of
from kt_es.node.store.transaction import Transaction

REPLAY_AHEAD = 500  # parked messages that wait to be delivered again; more are read when these are gone


class Parked:
    """Reads and replays one group's parked messages; the runner writes them.

    A replayed message stays parked until it is settled. ``trim`` then removes it, once all before it are.
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
        """The stored link at ``revision``, if it is still there."""
        return stored_at(self._log, self._stream, revision)

    def park(self, tx: Transaction, link: Proposed) -> None:
        """Stage a parked message."""
        tx.append(self._stream, [link])

    def replay(self, limit: int | None) -> None:
        """Deliver again what is parked now, at most ``limit`` messages."""
        head = self._log.head(self._stream)
        asked = head.last - head.first + 1 if limit is None else limit
        self._limit = asked + (self._limit if self._unread else 0)
        self._unread = range(self._unread.start if self._unread else head.first, head.last + 1)

    def read(self, retrying: int) -> list[Message]:
        """The next messages to replay, a few at a time; ``retrying`` already wait to be delivered again."""
        messages: list[Message] = []
        while self._unread and self._limit > 0 and retrying + len(messages) < REPLAY_AHEAD:
            chunk = forwards(self._log, self._stream, self._unread.start)
            stored_by_revision = {revision_of(stored): stored for stored in chunk.events}
            fresh = [at for at in stored_by_revision if at in self._unread and at not in self._replaying]
            fresh = fresh[: self._limit]
            self._limit -= len(fresh)
            self._replaying.update(fresh)
            self._unread = range(chunk.following, self._unread.stop) if chunk.more else range(0)
            messages += (
                Message(at, id_of(stored), parked=at, pin=self._pin(stored))
                for at, stored in ((at, stored_by_revision[at]) for at in fresh)
            )
        return messages

    def settle(self, revisions: Iterable[int]) -> None:
        """Replayed messages are settled."""
        self._settled.update(revisions)

    def trimmed(self) -> int | None:
        """The first revision that has to stay; None if nothing can be removed."""
        first = keep = self._log.head(self._stream).first
        while keep in self._settled:
            keep += 1
        return keep if keep > first else None

    def trim(self, tx: Transaction, keep: int) -> None:
        """Stage the removal of what is below ``keep``."""
        if tx.head(self._stream).truncate_before < keep:
            tx.rewrite_metadata(self._stream, keep)

    def forget(self, keep: int) -> None:
        """Nothing below ``keep`` is parked any more: the removal is on disk."""
        self._settled = {at for at in self._settled if at >= keep}
        self._replaying = {at for at in self._replaying if at >= keep}


def link_to(stored: bytes, *, replayed: bool) -> Proposed:
    """The link under which an event is parked. A replayed event is a link already."""
    if replayed and type_of(stored) == LINK:
        return link_event(*target(stored))
    return link_event(revision_of(stored), name_of(stored))
