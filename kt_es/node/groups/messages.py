"""The parts of ``group.Group``: messages, the consumers that get them, and the progress of the group.

Like the group, they are pure.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from kt_es.node.groups.settings import GroupSettings

BUCKETS = 1024  # by which pinned messages are shared out
LAZY = 4096  # settled entries that may wait in a queue before they are swept out


class NackAction(Enum):
    """What a negative acknowledgement asks for."""

    UNKNOWN = 0
    PARK = 1
    RETRY = 2
    SKIP = 3
    STOP = 4


@dataclass(slots=True, eq=False)
class Message:
    """An event on its way through a group.

    ``order`` is its revision (in $all: position). ``parked`` is its revision among the parked ones if it
    is replayed from there, else -1. ``payload`` is kept from reading to sending only. ``pin`` decides
    the consumer of a pinned strategy.
    """

    order: int
    id: str
    payload: bytes | None = None
    retries: int = 0
    parked: int = -1
    pin: int = 0
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """Address, user and name of a consumer's connection, as far as known; for information only."""

    address: str = ""
    user: str = ""
    connection: str = ""


class Rate:
    """Counts events, and gives their rate since ``start`` (seconds of a steady clock)."""

    def __init__(self, start: float) -> None:
        self.total = 0
        self._start = start
        self._measured = 0

    def per_second(self, now: float) -> int:
        """Return the average so far, over a second at least."""
        return int(self.total / max(now - self._start, 1.0))

    def since_measured(self) -> int:
        """Return how many were counted since the last call."""
        measured, self._measured = self._measured, self.total
        return self.total - measured


class Consumer:
    """One connected consumer with room for ``capacity`` messages in flight.

    ``number`` is unique among all consumers that the group ever had. ``rate`` counts its deliveries.
    """

    def __init__(self, capacity: int, wake: Callable[[], None], peer: Peer | None = None) -> None:
        self.capacity = capacity
        self.wake = wake
        self.peer = peer or Peer()
        self.number = 0
        self.rate = Rate(0.0)
        self.in_flight = 0
        self.held = 0  # bytes of payload in the outbox
        self.outbox: deque[Delivery] = deque()
        self.dropped = False

    @property
    def has_room(self) -> bool:
        """Whether another message may be delivered to it."""
        return self.in_flight < self.capacity and not self.dropped


@dataclass(slots=True, eq=False)
class Delivery:
    """A message given to a consumer. It is current until it is acknowledged or taken back."""

    message: Message
    consumer: Consumer
    deadline: float


class Consumers:
    """The connected consumers of a group, and who gets the next message. ``rate`` counts all deliveries."""

    def __init__(self, now: float) -> None:
        self.rate = Rate(now)
        self._consumers: deque[Consumer] = deque()
        self._admitted = 0
        self._pins: dict[int, Consumer] = {}  # by bucket, as far as asked for

    def __len__(self) -> int:
        return len(self._consumers)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(self._consumers)

    def add(self, consumer: Consumer, now: float) -> None:
        self._admitted += 1
        consumer.number = self._admitted
        consumer.rate = Rate(now)
        self._consumers.append(consumer)
        self._pins.clear()

    def remove(self, consumer: Consumer) -> None:
        if consumer in self._consumers:
            self._consumers.remove(consumer)
        self._pins.clear()

    def with_room(self, *, in_turn: bool) -> Consumer | None:
        """Return a consumer with room: the last one while it has room, or with ``in_turn`` the next one."""
        consumers = self._consumers
        for _ in range(len(consumers)):
            consumer = consumers[0]
            if in_turn or not consumer.has_room:
                consumers.rotate(-1)
            if consumer.has_room:
                return consumer
        return None

    def pinned(self, pin: int) -> Consumer:
        """Return the consumer of ``pin``.

        It is the consumer with the highest hash, so few pins move when a consumer connects or disconnects.
        """
        bucket = pin % BUCKETS
        consumer = self._pins.get(bucket)
        if consumer is None:
            consumer = max(self._consumers, key=lambda candidate: _weight(bucket, candidate.number))
            self._pins[bucket] = consumer
        return consumer


def _weight(bucket: int, number: int) -> bytes:
    return hashlib.blake2b(b"%d/%d" % (bucket, number), digest_size=8).digest()


class GroupProgress:
    """The orders of messages between a group's checkpoint and ``cursor``, the next one to read.

    A group that was changed, or whose node was restarted, resumes at ``checkpoint``. Messages after the
    checkpoint are delivered again even if they were settled. ``known`` is the order of the last message read,
    -1 before the first.
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
        """Note messages that were read, in order; ``passed_over`` events did not pass the filter."""
        for message in messages:
            self._outstanding[message.order] = self._read
            self._ascending.append(message.order)
            self._read += 1
            self.known = message.order
        self._read += passed_over
        self.cursor = cursor
        # While one message stays unsettled for long, the settled ones after it would pile up.
        if len(self._ascending) > 2 * len(self._outstanding) + LAZY:
            self._ascending = deque(sorted(self._outstanding))

    def settle(self, message: Message) -> None:
        if message.parked < 0:
            self._outstanding.pop(message.order, None)

    def low(self) -> int:
        """Return the order of the lowest message that is not settled: all below are."""
        orders = self._ascending
        while orders and orders[0] not in self._outstanding:
            orders.popleft()
        return orders[0] if orders else self.cursor

    def due(self, now: float) -> int | None:
        """Return the checkpoint to write at ``now``, if one is due.

        A checkpoint is due when ``max_checkpoint_count`` events are done since the last checkpoint. After
        ``checkpoint_after`` it is due when ``min_checkpoint_count`` events are done. An event is done if no
        message up to it is unsettled.
        """
        done = self._done()
        enough = done >= max(self._settings.max_checkpoint_count, 1)
        if not enough and not (self._is_worth_it(done) and now >= self._deadline()):
            return None
        low = self.low()
        return low if low > self.checkpoint else None

    def written(self, order: int, now: float) -> None:
        """Note that the checkpoint ``order``, which is ``low``, is being written."""
        self._checkpointed += self._done()
        self.checkpoint = order
        self._time = now

    def deadline(self, now: float) -> float | None:
        """Return the next time to call ``due`` if nothing happens before."""
        if self._is_worth_it(self._done()) and self.low() > self.checkpoint:
            return max(self._deadline(), now)
        return None

    def _done(self) -> int:
        return self._outstanding.get(self.low(), self._read) - self._checkpointed

    def _is_worth_it(self, done: int) -> bool:
        return done >= max(self._settings.min_checkpoint_count, 1)

    def _deadline(self) -> float:
        return self._time + self._settings.checkpoint_after / 1000
