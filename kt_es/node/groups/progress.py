"""How far a group is: checkpoint, messages not settled yet, and the parked ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from kt_es.node.groups.consumers import Message
from kt_es.node.groups.settings import GroupSettings, parked_stream
from kt_es.node.groups.sources import Pin
from kt_es.node.store.log import NodeLog
from kt_es.node.store.reading import LINK, forwards, link_event, stored_at, target
from kt_es.node.store.records import Proposed, id_of, name_of, revision_of, type_of
from kt_es.node.store.transaction import Transaction

LAZY = 4096  # settled entries that may wait in a queue before they are swept out


class GroupProgress:
    """The orders of messages between a group's checkpoint and ``cursor``, the next one to read.

    A group that was changed, or whose node was restarted, resumes at ``checkpoint``: what was settled behind
    it is delivered again. ``known`` is the order of the last message read, -1 before the first.
    """

    def __init__(self, settings: GroupSettings, cursor: int, now: float) -> None:
        self.cursor = cursor
        self.checkpoint = cursor
        self.known = -1
        self._settings = settings
        self._outstanding: dict[int, int] = {}  # by order: how many events were read before
        self._ascending: deque[int] = deque()  # those outstanding, and some that are settled
        self._read = 0  # events, those included that a filter passed over
        self._checkpointed = 0  # of them, below the checkpoint
        self._time = now

    def read(self, messages: Iterable[Message], cursor: int, passed_over: int) -> None:
        """Note messages that were read, in order.

        Args:
            messages: Those that passed the filter.
            cursor: The order to read next.
            passed_over: How many events did not pass the filter.
        """
        for message in messages:
            self._outstanding[message.order] = self._read
            self._ascending.append(message.order)
            self._read += 1
            self.known = message.order
        self._read += passed_over
        self.cursor = cursor
        # Behind a message that stays unsettled for long, settled ones would pile up.
        if len(self._ascending) > 2 * len(self._outstanding) + LAZY:
            self._ascending = deque(sorted(self._outstanding))

    def settle(self, message: Message) -> None:
        """Nothing more is to be done for ``message``."""
        if message.parked < 0:
            self._outstanding.pop(message.order, None)

    def low(self) -> int:
        """The order of the lowest message that is not settled: all below are."""
        orders = self._ascending
        while orders and orders[0] not in self._outstanding:
            orders.popleft()
        return orders[0] if orders else self.cursor

    def due(self, now: float) -> int | None:
        """The checkpoint to write at ``now``, if one is due.

        One is due when ``max_checkpoint_count`` events are done since the last one, or after
        ``checkpoint_after`` when ``min_checkpoint_count`` are. An event is done if no message up to it is
        unsettled.
        """
        done = self._done()
        enough = done >= max(self._settings.max_checkpoint_count, 1)
        if not enough and not (self._is_worth_it(done) and now >= self._deadline()):
            return None
        low = self.low()
        return low if low > self.checkpoint else None

    def written(self, order: int, now: float) -> None:
        """The checkpoint ``order``, which is that of ``low``, is being written."""
        self._checkpointed += self._done()
        self.checkpoint = order
        self._time = now

    def deadline(self, now: float) -> float | None:
        """When to call ``due`` next, if nothing happens before."""
        if self._is_worth_it(self._done()) and self.low() > self.checkpoint:
            return max(self._deadline(), now)
        return None

    def _done(self) -> int:
        return self._outstanding.get(self.low(), self._read) - self._checkpointed

    def _is_worth_it(self, done: int) -> bool:
        return done >= max(self._settings.min_checkpoint_count, 1)

    def _deadline(self) -> float:
        return self._time + self._settings.checkpoint_after / 1000


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
